"""Random seeds derived from the step instead of a running state."""

import random

import numpy as np
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from latentsync.batch import Batch


class SeedEveryStep(Callback):
    """Seeds the global generators at each step from (seed, epoch, batch, rank).

    Random numbers inside networks (dropout, a VAE's sample) are then the same after resuming, even
    from a killed run, and no generator state needs to be stored per process.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        place = (self.seed, trainer.current_epoch, batch_idx, trainer.global_rank)
        words = np.random.SeedSequence(place).generate_state(3)
        torch.manual_seed(int(words[0]))
        np.random.seed(int(words[1]))  # noqa: NPY002 - the state that libraries draw from
        random.seed(int(words[2]))
