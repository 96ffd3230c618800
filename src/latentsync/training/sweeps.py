"""What a finished sweep says: a table of its runs and a picture of objective over each value."""

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from latentsync.files import publish

RESULT_NAME = "result.json"


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a sweep; `value` is None if it ended before it could be judged."""

    name: str
    overrides: dict[str, str]
    objective: str
    value: float | None


def write_result(run: Run, folder: Path) -> None:
    """Leave result.json in the folder of a run."""
    row = {"overrides": run.overrides, "objective": run.objective, "value": run.value}
    with publish(folder / RESULT_NAME) as partial:
        partial.write_text(json.dumps(row, indent=2) + "\n", encoding="utf-8")


def read_runs(sweep_dir: Path) -> list[Run]:
    """The runs that left a result, in the order of their numbers."""
    paths = sorted(sweep_dir.glob(f"*/{RESULT_NAME}"), key=lambda path: _order(path.parent.name))
    return [
        Run(name=path.parent.name, **json.loads(path.read_text(encoding="utf-8"))) for path in paths
    ]


def write_sweep(sweep_dir: Path) -> list[Path]:
    """Write table.csv, table.md and scatter.png beside the runs; nothing where none finished."""
    runs = read_runs(sweep_dir)
    if not runs:
        return []
    swept = swept_names(runs)
    header = ["run", *swept, runs[0].objective]
    rows = [
        [run.name, *(run.overrides.get(name, "") for name in swept), _number(run.value)]
        for run in runs
    ]
    paths = [sweep_dir / name for name in ("table.csv", "table.md", "scatter.png")]
    with publish(paths[0]) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    with publish(paths[1]) as partial:
        lines = [header, ["---"] * len(header), *rows]
        partial.write_text("".join(f"| {' | '.join(line)} |\n" for line in lines), encoding="utf-8")
    with publish(paths[2]) as partial:
        plot_runs(runs, swept, partial)
    return paths


def swept_names(runs: Sequence[Run]) -> list[str]:
    """The overrides that are not the same in all runs."""
    names = sorted({name for run in runs for name in run.overrides})
    return [name for name in names if len({run.overrides.get(name) for run in runs}) > 1]


def plot_runs(runs: Sequence[Run], swept: Sequence[str], path: Path) -> None:
    """One panel a swept value: numbers on an axis (logarithmic over decades), words apart."""
    judged = [(run, run.value) for run in runs if run.value is not None]
    num_panels = max(len(swept), 1)
    figure = Figure(figsize=(4 * num_panels, 3.2), layout="constrained")
    for index, name in enumerate(swept):
        axes = figure.add_subplot(1, num_panels, index + 1)
        words = [run.overrides.get(name, "") for run, _ in judged]
        numbers = _as_numbers(words)
        axes.scatter(words if numbers is None else numbers, [value for _, value in judged])
        if numbers and min(numbers) > 0 and max(numbers) >= 10 * min(numbers):
            axes.set_xscale("log")
        axes.set_xlabel(name, fontsize=9)
        axes.set_ylabel(runs[0].objective, fontsize=9)
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=80)


def _as_numbers(words: Sequence[str]) -> list[float] | None:
    try:
        return [float(word) for word in words]
    except ValueError:
        return None


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _order(name: str) -> tuple[int, str]:
    return (int(name), "") if name.isdigit() else (2**31, name)
