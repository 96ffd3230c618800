"""Base class of tasks: an optimizer, a schedule, and a network to export at the end."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

from lightning import LightningModule
from torch.optim import Optimizer

MakeOptimizer = Callable[..., Optimizer]
MakeSchedule = Callable[..., object]


class Task(LightningModule, ABC):
    """A LightningModule that trains all its parameters with `requires_grad`.

    `optimizer` is called with them, `schedule` with the optimizer; the schedule advances per step.
    """

    def __init__(self, *, optimizer: MakeOptimizer, schedule: MakeSchedule) -> None:
        super().__init__()
        self.optimizer, self.schedule = optimizer, schedule

    def configure_optimizers(self) -> dict[str, object]:
        optimizer = self.optimizer([each for each in self.parameters() if each.requires_grad])
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": self.schedule(optimizer), "interval": "step"},
        }

    @abstractmethod
    def export(self, folder: Path) -> None:
        """Write the trained network as a self-describing folder."""
