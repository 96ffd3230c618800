"""Plots of a run's logged values."""

import csv
from pathlib import Path

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CSVLogger
from matplotlib.figure import Figure

from latentsync.files import publish


class CurvePicture(Callback):
    """Plots every logged value from the CSV log, at every validation and at the end."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._plot(trainer)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._plot(trainer)

    def _plot(self, trainer: Trainer) -> None:
        logs = [logger for logger in trainer.loggers if isinstance(logger, CSVLogger)]
        if not logs or not trainer.is_global_zero:
            return
        logs[0].save()
        curves = read_curves(Path(logs[0].log_dir).parent)
        with publish(self.path) as partial:
            plot_curves(curves, partial)


def read_curves(log_dir: Path) -> dict[str, list[tuple[int, float]]]:
    """(step, value) pairs of every logged value, over all parts of a resumed run."""
    points: dict[str, dict[int, float]] = {}
    # A part resumed from an earlier step overrides what the previous part logged for the same
    # steps.
    for metrics_path in sorted(log_dir.glob("version_*/metrics.csv"), key=part_number):
        with metrics_path.open(newline="") as file:
            for row in csv.DictReader(file):
                for name, value in row.items():
                    if value and name not in ("step", "epoch"):
                        points.setdefault(name, {})[int(row["step"])] = float(value)
    return {name: sorted(values.items()) for name, values in points.items()}


def part_number(metrics_path: Path) -> int:
    """The N of version_N/metrics.csv."""
    return int(metrics_path.parent.name.removeprefix("version_"))


def plot_curves(curves: dict[str, list[tuple[int, float]]], path: Path) -> None:
    """One panel per curve, three per row."""
    num_rows = -(-len(curves) // 3)
    figure = Figure(figsize=(12, 2.6 * max(num_rows, 1)), layout="constrained")
    for index, (name, points) in enumerate(sorted(curves.items())):
        axes = figure.add_subplot(num_rows, 3, index + 1)
        axes.plot(*zip(*points, strict=True), linewidth=1)
        axes.set_title(name, fontsize=9)
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=80)
