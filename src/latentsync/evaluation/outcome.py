"""What an evaluation writes whatever it measured: metrics.json, clips.csv, the tables."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from latentsync.evaluation.aggregate import Row, figures_of
from latentsync.evaluation.clip_values import (
    CLIPS,
    CLIPS_TABLE,
    by_condition,
    differences,
    intervals,
    read_clips,
    tables_of,
    write_clips,
    write_clips_table,
)
from latentsync.evaluation.control_findings import control_table
from latentsync.evaluation.report import write_metrics, write_text
from latentsync.evaluation.report_page import Page, write_page
from latentsync.evaluation.statistics import LEVEL, NUM_RESAMPLES
from latentsync.evaluation.tables import (
    Content,
    condition_table,
    difference_table,
    key_table,
    latex_table,
    markdown_table,
    plain_markdown,
    rich_table,
)

# Settings without which two evaluations measured different things.
SAME_SETTINGS = ("fps", "crf", "max_frames", "lse_faces", "setting")


@dataclass(frozen=True, slots=True)
class Outcome:
    """The rows of an evaluation, and what else metrics.json says."""

    title: str
    rows: Mapping[str, Row]
    settings: Mapping[str, object]
    seed: int
    num_failed: int = 0
    more: Mapping[str, object] = field(default_factory=dict)
    controls: Mapping[str, object] | None = None
    page: Page = field(default_factory=Page)
    conditions: Mapping[str, str] = field(default_factory=dict)


def write_outcome(out: Path, outcome: Outcome, *, against: Path | None = None) -> None:
    """Write all files and print the tables; `against`: the folder of an earlier evaluation."""
    figures = figures_of(next(iter(outcome.rows.values())).metrics)
    tables = tables_of(outcome.rows)
    write_clips(out / CLIPS, tables, figures)
    write_clips_table(out / CLIPS_TABLE, tables, figures)
    spans = intervals(tables, figures, seed=outcome.seed)
    content = Content(
        {name: row.summary() for name, row in outcome.rows.items()},
        figures,
        spans,
        outcome.num_failed,
    )
    settings = {**outcome.settings, "seed": outcome.seed}
    bootstrap = {"level": LEVEL, "resamples": NUM_RESAMPLES, "over": "speakers"}
    written: dict[str, object] = {
        "settings": settings,
        "rows": content.rows,
        **outcome.more,
        "num_failed": outcome.num_failed,
        "bootstrap": bootstrap,
        "intervals": spans,
    }
    texts = [markdown_table(content), key_table(content)]
    apart = by_condition(tables, figures, outcome.conditions)
    if apart:
        written["by_condition"] = apart
        texts.insert(1, plain_markdown(condition_table(apart, figures)))
    console = Console()
    console.print(rich_table(content, title=outcome.title))
    if against is not None:
        check_alike(against, settings)
        found = differences(tables, read_clips(against / CLIPS), figures, seed=outcome.seed)
        written["differences"] = {"against": str(against), "rows": found}
        table = difference_table(found, figures, against=against.name)
        texts.insert(1, plain_markdown(table))
        console.print(_printed(table, title="differences"))
    if outcome.controls is not None:
        written["controls"] = outcome.controls
        table = control_table(outcome.controls, figures)
        texts.insert(1, plain_markdown(table))
        shown = [line[:-1] for line in table]
        console.print(_printed(shown, title="controls: the truth spoiled"))
        for name, *_, text in table[1:]:
            console.print(f"{name}: {text}")
    write_metrics(out / "metrics.json", written)
    write_text(out / "table.md", "\n".join(texts))
    write_text(out / "table.tex", latex_table(content))
    write_page(
        out,
        title=outcome.title,
        content=content,
        rows=outcome.rows,
        written=written,
        page=outcome.page,
    )


def check_alike(against: Path, settings: Mapping[str, object]) -> None:
    """ValueError if the earlier evaluation was made with settings that change what is measured."""
    path = against / "metrics.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: against= is the out= of an earlier evaluation")
    theirs = json.loads(path.read_text(encoding="utf-8"))["settings"]
    for name in SAME_SETTINGS:
        if theirs.get(name) != settings.get(name):
            raise ValueError(
                f"against={against} was measured with {name}={theirs.get(name)}, this with "
                f"{name}={settings.get(name)}: measure both alike"
            )


def _printed(table: list[list[str]], *, title: str) -> Table:
    head, *body = table
    printed = Table(*head, title=title)
    for line in body:
        printed.add_row(*line)
    return printed
