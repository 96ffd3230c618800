"""The value by which a sweep compares its runs; names that are never logged are rejected early."""

import difflib
import logging
from collections.abc import Iterable, Mapping

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from latentsync.training.callbacks.samples import LOGGED_WITH_SAMPLES

log = logging.getLogger(__name__)


def objective_of(metrics: Mapping[str, Tensor], name: str) -> float | None:
    """The value by which a sweep compares runs; None if the run never validated.

    ValueError if the name was not logged although the run did validate.
    """
    if name in metrics:
        return float(metrics[name])
    validated = any(each.startswith("val/") for each in metrics)
    if name.startswith("val/") and not validated:
        log.warning("objective=%s has no value: the run ended before its first validation", name)
        return None
    raise ValueError(_not_logged(name, metrics))


class ObjectiveCheck(Callback):
    """Raises ValueError as soon as it is certain that the objective is not logged.

    Names that begin with neither val/ nor train/ are rejected before the first step, val/ names at
    the end of the first validation, train/ names at the second logging interval: only tasks and
    callbacks determine what is logged. Values logged with samples may first appear later. A run
    that ends at that validation is not stopped.
    """

    def __init__(self, name: str) -> None:
        if not name.startswith(("val/", "train/")):
            raise ValueError(
                f"objective={name} is logged by nobody: names begin with val/ or train/, "
                "as val/loss does"
            )
        self.name = name

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        logged = trainer.callback_metrics
        is_known = self.name in (*logged, *LOGGED_WITH_SAMPLES) or self.name.startswith("train/")
        is_last = trainer.global_step == trainer.max_steps
        if not is_known and not is_last and not trainer.sanity_checking:
            raise ValueError(_not_logged(self.name, logged))

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        logged = trainer.callback_metrics
        is_known = self.name in logged or not self.name.startswith("train/")
        # The pace is first logged at the second interval.
        if not is_known and trainer.global_step == 2 * trainer.log_every_n_steps:
            raise ValueError(_not_logged(self.name, logged))


def _not_logged(name: str, logged: Iterable[str]) -> str:
    near = ", ".join(difflib.get_close_matches(name, list(logged), n=3))
    return (
        f"objective={name} was not logged{near and f'; near: {near}'}; there are: "
        f"{', '.join(sorted(logged))}"
    )
