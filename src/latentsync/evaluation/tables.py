"""Tables of an evaluation: in the terminal, as Markdown, as LaTeX. Figures as rows, conditions as
columns, which fits a terminal of 80 columns; below a figure stands its interval.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rich.markup import escape
from rich.table import Table

from latentsync.metrics.base import Figure

Summaries = Mapping[str, Mapping[str, float | str]]
# By row and figure: low, high, num_clips and more, as in metrics.json.
Statistics = Mapping[str, Mapping[str, Mapping[str, float]]]


@dataclass(frozen=True, slots=True)
class Content:
    """What all tables of one evaluation show."""

    rows: Summaries
    figures: Sequence[Figure]
    intervals: Statistics = field(default_factory=dict)
    num_failed: int = 0


def lines(content: Content) -> list[list[tuple[str, str]]]:
    """One line per figure that has a label and occurs in any row: the label, then the value and the
    interval of each row.

    Missing values are a dash; strings, such as "not valid here", are kept. The number of clips
    and, where some failed, that of failures come last.
    """
    rows = content.rows
    table = [
        [(figure.label, ""), *(_cell(content, name, figure) for name in rows)]
        for figure in content.figures
        if figure.label is not None and any(figure.key in row for row in rows.values())
    ]
    table.append([("clips", ""), *((f"{row['num_clips']:g}", "") for row in rows.values())])
    if content.num_failed:
        table.append([("failed", ""), *((str(content.num_failed), "") for _ in rows)])
    return table


def _cell(content: Content, row: str, figure: Figure) -> tuple[str, str]:
    value = content.rows[row].get(figure.key, math.nan)
    found = content.intervals.get(row, {}).get(figure.key)
    if isinstance(value, str) or found is None:
        return as_text(value, figure.form), ""
    low, high = (as_text(found[name], figure.form) for name in ("low", "high"))
    notes = [] if math.isnan(found["low"]) else [f"{low} to {high}"]
    # A figure that a clip lacks is a mean over the others.
    if 0 < found["num_clips"] < float(content.rows[row]["num_clips"]):
        notes.append(f"n={found['num_clips']:g}")
    return as_text(value, figure.form), ", ".join(notes)


def as_text(value: float | str, form: str) -> str:
    """A value in the form of its figure."""
    if isinstance(value, str):
        return value
    return "-" if math.isnan(value) else form.format(value)


def rich_table(content: Content, *, title: str) -> Table:
    """For a terminal."""
    table = Table("", *map(escape, content.rows), title=escape(title))
    for line in lines(content):
        table.add_row(*(escape("\n".join(filter(None, cell))) for cell in line))
    return table


def markdown_table(content: Content) -> str:
    """For a README."""
    body = [[f"{value} ({span})" if span else value for value, span in line]
            for line in lines(content)]  # fmt: skip
    head = [["", *content.rows], ["---"] * (len(content.rows) + 1)]
    return "".join(f"| {' | '.join(line)} |\n" for line in [*head, *body])


LATEX = str.maketrans(
    {"%": r"\%", "&": r"\&", "_": r"\_", "#": r"\#", "$": r"\$", ">": "$>$", "<": "$<$",
     "{": r"\{", "}": r"\}", "|": r"$|$", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
     "\\": r"\textbackslash{}"}
)  # fmt: skip


def latex_table(content: Content) -> str:
    """A tabular for a paper, in plain LaTeX."""
    head = [[("", ""), *((name, "") for name in content.rows)]]
    body = [
        " & ".join(
            value.translate(LATEX) + (rf" {{\scriptsize({span.translate(LATEX)})}}" if span else "")
            for value, span in line
        )
        for line in [*head, *lines(content)]
    ]
    columns = "l" + "r" * len(content.rows)
    inside = [body[0], r"\hline", *body[1:]]
    marked = [line if line == r"\hline" else rf"{line} \\" for line in inside]
    return "\n".join([rf"\begin{{tabular}}{{{columns}}}", *marked, r"\end{tabular}", ""])


def key_table(content: Content) -> str:
    """Definitions of the figures in metrics.json."""
    head = "| in metrics.json | in | better | from | to | defined by |\n|---|---|---|---|---|---|\n"
    return head + "".join(
        f"| {each.key} | {each.unit} | {each.better} | {each.low:g} | {each.high:g} | "
        f"{each.source} |\n"
        for each in content.figures
        if any(each.key in row for row in content.rows.values())
    )


def difference_table(
    rows: Statistics, figures: Sequence[Figure], *, against: str
) -> list[list[str]]:
    """One line per row and figure that two methods have, with a head."""
    head = ["row", "figure", f"minus {against}", "95 % interval", "p", "clips", "speakers"]
    return [head] + [
        [
            name, figure.label or figure.key, _signed(found["difference"]),
            f"{_signed(found['low'])} to {_signed(found['high'])}", as_text(found["p_value"],
            "{:.4f}"), f"{found['num_clips']:g}", f"{found['num_speakers']:g}",
        ]
        for name, row in rows.items()
        for figure in figures
        if (found := row.get(figure.key)) is not None and found["num_clips"]
    ]  # fmt: skip


def condition_table(rows: Statistics, figures: Sequence[Figure]) -> list[list[str]]:
    """One line per row of results and condition; the figures in the table of all; a head."""
    keys = {key for row in rows.values() for means in row.values() for key in means}
    shown = [each for each in figures if each.label is not None and each.key in keys]
    head = ["row", "condition", "clips", *(str(figure.label) for figure in shown)]
    return [head] + [
        [name, condition, f"{means['num_clips']:g}",
         *(as_text(means.get(each.key, math.nan), each.form) for each in shown)]
        for name, row in rows.items()
        for condition, means in row.items()
    ]  # fmt: skip


def _signed(value: float) -> str:
    return as_text(value, "{:+.4g}")


def plain_markdown(table: Sequence[Sequence[str]]) -> str:
    """Lines of cells, the head first."""
    head, *body = table
    return "".join(f"| {' | '.join(line)} |\n" for line in [head, ["---"] * len(head), *body])
