"""python draw.py RUNS: curves.png, curves.csv and the table's rows, from the runs' CSV logs."""

import csv
import sys
from pathlib import Path

from matplotlib.figure import Figure

from latentsync.training.callbacks import read_curves

RUNS = ("bce_alone", "contrast_first", "demo_bce_alone", "demo_contrast_first")
SHOWN = ("train/bce", "val/bce", "val/p_in_above_off", "val/accuracy")


def main(folder: Path) -> None:
    here = Path(__file__).parent
    curves = {name: read_curves(folder / name / "csv") for name in RUNS}
    figure = Figure(figsize=(10, 7), layout="constrained")
    for axes, shown in zip(figure.subplots(2, 2).flat, SHOWN, strict=True):
        for name in RUNS:
            dashed = "--" if "contrast" in name else "-"
            axes.plot(*zip(*curves[name][shown], strict=True), dashed, label=name, linewidth=1)
        if shown.endswith("bce"):
            axes.axhline(0.693, color="grey", linewidth=0.5)
        axes.set(title=shown, xlabel="step")
    axes.legend(fontsize=8)
    figure.savefig(here / "curves.png", dpi=80)
    with (here / "curves.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("run", "value", "step", "is"))
        for name in RUNS:
            for shown in SHOWN:
                for step, value in curves[name][shown]:
                    writer.writerow((name, shown, step, f"{value:.4f}"))
    for name in RUNS:
        cells = [f"{curves[name][shown][-1][1]:.3f}" for shown in SHOWN[1:]]
        plateau = [step for step, value in curves[name]["val/bce"] if value >= 0.68]
        sys.stdout.write(f"| {name} | {' | '.join(cells)} | {max(plateau, default=0)} |\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
