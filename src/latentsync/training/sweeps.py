"""Results of a sweep: a table of its runs and a plot of the objective over each swept value."""

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from latentsync.files import held, publish

RESULT_NAME = "result.json"


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a sweep; `value` is None if it ended before its objective was logged, or failed
    with `error`."""

    name: str
    overrides: dict[str, str]
    objective: str
    value: float | None
    error: str | None = None


def write_result(run: Run, folder: Path) -> None:
    """Write result.json into the folder of a run."""
    row = {name: value for name, value in asdict(run).items() if name != "name"}
    with publish(folder / RESULT_NAME) as partial:
        partial.write_text(json.dumps(row, indent=2) + "\n", encoding="utf-8")


def read_runs(sweep_dir: Path) -> list[Run]:
    """The runs that have a result, in numerical order."""
    paths = sorted(sweep_dir.glob(f"*/{RESULT_NAME}"), key=lambda path: _order(path.parent.name))
    return [
        Run(name=path.parent.name, **json.loads(path.read_text(encoding="utf-8"))) for path in paths
    ]


def write_sweep(sweep_dir: Path) -> list[Path]:
    """Write table.csv, table.md and scatter.png next to the runs; nothing if no run has a
    result."""
    # Runs that end at the same time write one after the other: the last table contains all of them.
    with held(sweep_dir, wait=True):
        runs = read_runs(sweep_dir)
        return _write_runs(runs, sweep_dir) if runs else []


def _write_runs(runs: Sequence[Run], sweep_dir: Path) -> list[Path]:
    swept = swept_names(runs)
    header = ["run", *swept, runs[0].objective]
    rows = [
        [run.name, *(run.overrides.get(name, "") for name in swept), _number(run.value)]
        for run in runs
    ]
    if any(run.error is not None for run in runs):
        header.append("failed")
        rows = [[*row, run.error or ""] for row, run in zip(rows, runs, strict=True)]
    paths = [sweep_dir / name for name in ("table.csv", "table.md", "scatter.png")]
    with publish(paths[0]) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    with publish(paths[1]) as partial:
        lines = [header, ["---"] * len(header), *rows]
        partial.write_text("".join(map(_markdown, lines)), encoding="utf-8")
    with publish(paths[2]) as partial:
        plot_runs(runs, swept, partial)
    return paths


def swept_names(runs: Sequence[Run]) -> list[str]:
    """The overrides that differ between runs."""
    names = sorted({name for run in runs for name in run.overrides})
    return [name for name in names if len({run.overrides.get(name) for run in runs}) > 1]


def plot_runs(runs: Sequence[Run], swept: Sequence[str], path: Path) -> None:
    """One panel per swept value: numeric axes (logarithmic from one decade up), otherwise
    categories."""
    from matplotlib.figure import Figure  # slow to import

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


def _markdown(cells: Sequence[str]) -> str:
    # Error messages may contain pipes and line breaks.
    whole = (" ".join(cell.replace("|", "\\|").split()) for cell in cells)
    return f"| {' | '.join(whole)} |\n"


def _as_numbers(words: Sequence[str]) -> list[float] | None:
    try:
        return [float(word) for word in words]
    except ValueError:
        return None


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _order(name: str) -> tuple[int, str]:
    return (int(name), "") if name.isdigit() else (2**31, name)
