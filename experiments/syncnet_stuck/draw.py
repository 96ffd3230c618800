"""python draw.py RUNS NAME: NAME.png, NAME.csv and the table's rows, from the runs' CSV logs.

Runs are called VARIANT_SEED; those of a variant get one colour and one row.
"""

import csv
import statistics
import sys
from collections import defaultdict
from pathlib import Path

from matplotlib import colormaps
from matplotlib.figure import Figure

from latentsync.training.callbacks.curves import read_curves

SHOWN = ("train/bce", "val/bce", "val/p_in_above_off", "val/accuracy")
PLATEAU = 0.68
Curves = dict[str, list[tuple[int, float]]]


def main(folder: Path, name: str) -> None:
    here = Path(__file__).parent
    runs = {run.name: read_curves(run / "csv") for run in sorted(folder.iterdir())}
    variants: dict[str, list[Curves]] = defaultdict(list)
    for run, curves in runs.items():
        variants[run.rpartition("_")[0]].append(curves)
    plot(variants, here / f"{name}.png")
    with (here / f"{name}.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("run", "value", "step", "is"))
        for run, curves in runs.items():
            for shown in SHOWN:
                for step, value in curves[shown]:
                    writer.writerow((run, shown, step, f"{value:.4f}"))
    for variant, seeds in variants.items():
        sys.stdout.write(f"| {variant} | {' | '.join(cells(seeds))} |\n")


def cells(seeds: list[Curves]) -> list[str]:
    """Mean and range of what validation ends with, and the last step on the plateau."""
    texts = []
    for shown in SHOWN[1:]:
        ends = [curves[shown][-1][1] for curves in seeds]
        texts.append(f"{statistics.fmean(ends):.3f} ({min(ends):.3f} to {max(ends):.3f})")
    last = [
        max((step for step, value in curves["val/bce"] if value >= PLATEAU), default=0)
        for curves in seeds
    ]
    return [*texts, ", ".join(map(str, last))]


def plot(variants: dict[str, list[Curves]], path: Path) -> None:
    figure = Figure(figsize=(10, 7), layout="constrained")
    colours = colormaps["tab10"]
    for axes, shown in zip(figure.subplots(2, 2).flat, SHOWN, strict=True):
        for number, (variant, seeds) in enumerate(variants.items()):
            for index, curves in enumerate(seeds):
                label = None if index else variant
                axes.plot(*zip(*curves[shown], strict=True), color=colours(number), label=label,
                          linewidth=1)  # fmt: skip
        if shown.endswith("bce"):
            axes.axhline(0.693, color="grey", linewidth=0.5)
        axes.set(title=shown, xlabel="step")
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=80)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
