"""Trains the mouth reader on synthetic faces with known ground truth."""

from pathlib import Path

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional
from torchmetrics import PearsonCorrCoef

from latentsync.batch import Batch
from latentsync.models.mouth_reader import MOUTH_TRAITS, MouthReader, mouth_box
from latentsync.models.serialization import save_network
from latentsync.training.augment import augment
from latentsync.training.tasks.base import MakeOptimizer, MakeSchedule, Task

# As a fraction of the face's side.
MARGIN = 0.0625


class ReaderTask(Task):
    """Regression of the four mouth traits from augmented faces; validated on clean ones."""

    def __init__(
        self,
        reader: MouthReader,
        *,
        optimizer: MakeOptimizer,
        schedule: MakeSchedule,
        seed: int = 0,
    ) -> None:
        super().__init__(optimizer=optimizer, schedule=schedule)
        self.reader = reader
        self.seed = seed
        self.correlation = PearsonCorrCoef(num_outputs=len(MOUTH_TRAITS))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        faces, truth = faces_and_truth(batch)
        # Seeded from the step and not from a running state: a resumed run gets the same numbers.
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.global_step)
        # Only the reader's crop is augmented, with a margin from which shifts fill the edges.
        rough = augment(mouth_box(faces, margin=MARGIN), generator)
        margin = int(MARGIN * faces.shape[-1])
        box = rough[..., margin:-margin, margin:-margin]
        loss = functional.smooth_l1_loss(self.reader.read_box(box), truth, beta=0.1)
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        faces, truth = faces_and_truth(batch)
        self.correlation.update(self.reader(faces), truth)

    def on_validation_epoch_end(self) -> None:
        values = self.correlation.compute()
        for trait, value in zip(MOUTH_TRAITS, values, strict=True):
            self.log(f"val/r_{trait}", value, prog_bar=trait == "open")
        self.correlation.reset()

    def export(self, folder: Path) -> None:
        """Write the network to a folder that `load_network(MouthReader, folder)` reads."""
        save_network(self.reader, folder)


def faces_and_truth(batch: Batch) -> tuple[Float[Tensor, "n 3 h w"], Float[Tensor, "n 4"]]:
    """All frames of a batch, flattened, with their ground truth."""
    return (
        rearrange(batch["pixels"], "b f c h w -> (b f) c h w"),
        rearrange(batch["truth"], "b f t -> (b f) t"),
    )
