"""Exponential moving average of the weights."""

import logging
from functools import partial

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

log = logging.getLogger(__name__)


class AveragedWeights(EMAWeightAveraging):
    """Lightning's EMA, copied to the model at the end of `fit` instead of the training loop.

    A checkpoint written when the loop ends then still holds the raw weights, from which training
    can resume; and a run resumed with no steps left also ends with the average. A run too short for
    the average to start keeps its own weights. Frozen parameters stay bit-identical, unlike with
    Lightning's formula, decay * a + (1 - decay) * a, which rounds.
    """

    def __init__(self, *, decay: float = 0.999, **arguments: object) -> None:
        super().__init__(decay=decay, **arguments)
        self.decay = decay

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if not isinstance(trainer.strategy, DDPStrategy | SingleDeviceStrategy):
            raise ValueError(
                f"weights cannot be averaged while {type(trainer.strategy).__name__} holds parts "
                "of them in each process: leave the average out with ~callbacks.ema"
            )
        if stage == "fit":
            # Replaces Lightning's setup, which warns about any model that defines
            # `configure_model`.
            self._average_model = AveragedModel(
                pl_module,
                device=self._device or pl_module.device,
                use_buffers=self._use_buffers,
                avg_fn=partial(move_toward, share=1 - self.decay),
            )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Do nothing yet: see `on_fit_end`."""

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        average = self._average_model
        if average is not None and int(average.n_averaged) == 0:
            log.warning(
                "the run ended after %d steps, before its average began: the model holds the "
                "weights themselves (callbacks.ema.update_starting_at_step)",
                trainer.global_step,
            )
            return
        super().on_train_end(trainer, pl_module)


def move_toward(average: Tensor, value: Tensor, _num_averaged: object, *, share: float) -> Tensor:
    """Move the average by `share` toward the new value; counters are set to it."""
    if not average.is_floating_point():
        return value
    return torch.lerp(average, value, share)
