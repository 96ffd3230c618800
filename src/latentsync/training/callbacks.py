"""What a run leaves behind to look at."""

import csv
from pathlib import Path

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CSVLogger
from matplotlib.figure import Figure

from latentsync.media.files import publish


class CurvePicture(Callback):
    """One small plot per logged value, drawn from the CSV log at every validation and at the end."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._draw(trainer)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._draw(trainer)

    def _draw(self, trainer: Trainer) -> None:
        logs = [logger for logger in trainer.loggers if isinstance(logger, CSVLogger)]
        if not logs or not trainer.is_global_zero:
            return
        logs[0].save()
        metrics_path = Path(logs[0].log_dir) / "metrics.csv"
        if metrics_path.is_file():
            curves = read_curves(metrics_path)
            with publish(self.path) as partial:
                plot_curves(curves, partial)


def read_curves(metrics_path: Path) -> dict[str, list[tuple[int, float]]]:
    """(step, value) pairs of every column of a metrics.csv."""
    curves: dict[str, list[tuple[int, float]]] = {}
    with metrics_path.open(newline="") as file:
        for row in csv.DictReader(file):
            for name, value in row.items():
                if value and name not in ("step", "epoch"):
                    curves.setdefault(name, []).append((int(row["step"]), float(value)))
    return curves


def plot_curves(curves: dict[str, list[tuple[int, float]]], path: Path) -> None:
    """One panel a curve, three in a row."""
    num_rows = -(-len(curves) // 3)
    figure = Figure(figsize=(12, 2.6 * max(num_rows, 1)), layout="constrained")
    for index, (name, points) in enumerate(sorted(curves.items())):
        axes = figure.add_subplot(num_rows, 3, index + 1)
        axes.plot(*zip(*points, strict=True), linewidth=1)
        axes.set_title(name, fontsize=9)
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=80)
