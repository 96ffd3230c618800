"""results.csv => the tables and the picture of README.md.

python experiments/ablation/table.py [results.csv]
"""

import csv
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt

HERE = Path(__file__).parent
FIGURES = {
    "r_open": "r(open)",
    "leak": "leak r(open)",
    "sync": "sync score",
    "sync_confidence": "confidence",
    "flicker": "flicker",
}
# Title, then (label, run, guidance, reference when drawing); the first is what others lean on.
Case = tuple[str, str, str, str]
QUESTIONS: dict[str, list[Case]] = {
    "Noise": [
        ("mixed", "base", "1.5", "apart"),
        ("shared", "noise_shared", "1.5", "apart"),
        ("independent", "noise_independent", "1.5", "apart"),
    ],
    "Audio dropout and guidance": [
        (f"dropout {share}, guidance {guidance}", run, guidance, "apart")
        for share, run in (("0.1", "base"), ("0", "dropout_0"))
        for guidance in ("1.0", "1.5", "2.0")
    ],
    "Reference": [
        ("trained far, drawn far", "base", "1.5", "apart"),
        ("trained far, drawn with itself", "base", "1.5", "own"),
        ("trained near, drawn far", "reference_near", "1.5", "apart"),
        ("trained near, drawn with itself", "reference_near", "1.5", "own"),
    ],
    "Motion modules": [
        ("stage 2, off", "motion_off", "1.5", "apart"),
        ("stage 2, on", "motion_on", "1.5", "apart"),
    ],
    "Sync loss": [
        ("none", "motion_on", "1.5", "apart"),
        ("latent", "sync_latent", "1.5", "apart"),
        ("pixel", "sync_pixel", "1.5", "apart"),
    ],
}
Values = Mapping[str, Mapping[int, float]]  # figure => seed => value


def main() -> None:
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "results.csv"
    cases = read(path)
    for title, rows in answered(cases).items():
        sys.stdout.write(f"\n### {title}\n\n{table(rows, cases)}\n")
    plot(cases, HERE / "ablation.png")


def answered(cases: Mapping[tuple, Values]) -> dict[str, list[Case]]:
    """The questions with the cases that were drawn, two of them or more."""
    drawn = {
        title: [case for case in rows if tuple(case[1:]) in cases]
        for title, rows in QUESTIONS.items()
    }
    return {title: rows for title, rows in drawn.items() if len(rows) > 1}


def read(path: Path) -> dict[tuple[str, str, str], Values]:
    """(run, guidance, reference) => figure => seed => value."""
    cases: dict = defaultdict(lambda: defaultdict(dict))
    with path.open(newline="") as lines:
        for row in csv.DictReader(lines):
            case = cases[row["run"], row["guidance"], row["reference"]]
            for figure in FIGURES:
                case[figure][int(row["seed"])] = float(row[figure])
    return cases


def table(rows: Iterable[Case], cases: Mapping[tuple, Values]) -> str:
    """Mean and standard deviation over seeds, and the difference to the first row, seed by seed."""
    rows = list(rows)
    first = cases[rows[0][1:]]
    lines = [
        f"| | {' | '.join(FIGURES.values())} |",
        "|---" * (len(FIGURES) + 1) + "|",
    ]
    for label, *key in rows:
        values = cases[tuple(key)]
        cells = [cell(values[figure], first[figure]) for figure in FIGURES]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def cell(values: Mapping[int, float], first: Mapping[int, float]) -> str:
    text = f"{statistics.fmean(values.values()):.3f} ± {spread(values.values()):.3f}"
    if values is first:
        return text
    steps = [values[seed] - first[seed] for seed in sorted(values.keys() & first.keys())]
    # All seeds on one side: with three, chance alone does that in one of four.
    mark = "*" if steps and (min(steps) > 0 or max(steps) < 0) else ""
    return text + mark


def spread(values: Iterable[float]) -> float:
    values = list(values)
    return statistics.stdev(values) if len(values) > 1 else float("nan")


def plot(cases: Mapping[tuple, Values], path: Path) -> None:
    """A dot for every seed, a bar at the mean; one row of panels for each question."""
    mpl.use("Agg")
    shown = ("r_open", "leak", "sync", "flicker")
    questions = answered(cases)
    num_rows = sum(len(rows) for rows in questions.values())
    grid, axes = plt.subplots(
        len(questions),
        len(shown),
        figsize=(13, 1 + 0.5 * num_rows + 0.3 * len(questions)),
        sharex="col",
        height_ratios=[len(rows) for rows in questions.values()],
        layout="constrained",
        squeeze=False,
    )
    for line, (title, rows) in zip(axes, questions.items(), strict=True):
        for axis, figure in zip(line, shown, strict=True):
            for place, (_, *key) in enumerate(rows):
                values = list(cases[tuple(key)][figure].values())
                axis.scatter(values, [place] * len(values), s=18, alpha=0.7)
                axis.plot(statistics.fmean(values), place, "k|", markersize=14)
            labels = [label for label, *_ in rows]
            axis.set_yticks(range(len(rows)), labels if figure == shown[0] else [""] * len(rows))
            axis.set_ylim(len(rows) - 0.5, -0.5)
            axis.grid(axis="x", alpha=0.3)
        line[0].set_title(title, loc="left", fontsize=10, fontweight="bold")
    for axis, figure in zip(axes[-1], shown, strict=True):
        axis.set_xlabel(FIGURES[figure])
    grid.savefig(path, dpi=70)


if __name__ == "__main__":
    main()
