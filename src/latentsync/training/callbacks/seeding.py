"""Random numbers from the step and not from a running state."""

import random

import numpy as np
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from latentsync.batch import Batch


class SeedEveryStep(Callback):
    """Seeds the global generators at each step from (seed, epoch, batch, rank).

    What a network draws for itself (dropout, a VAE's sample) is then the same in a run that was
    stopped and gone on with, also after a kill, and nothing need be stored for each process.
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
