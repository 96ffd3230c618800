"""Trains SyncNet: first by contrast, then to be a calibrated judge."""

from collections.abc import Callable
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from lightning import LightningModule
from torch import Tensor
from torch.optim import Optimizer

from latentsync.batch import Batch
from latentsync.losses import InfoNCE, cosine_bce
from latentsync.models import StableSyncNet, latent_sync_input, save_network, sync_input


class SyncNetTask(LightningModule):
    """InfoNCE until `bce_from_step`, from then on the official loss, which calibrates the cosine.

    Batches hold several windows of each clip, so that an off-sync pair differs in time and not
    only in speaker. Windows of one clip less than `min_offset_frames` apart are no negatives; for
    InfoNCE those further apart count `same_clip_weight` times, see there.
    """

    def __init__(
        self,
        syncnet: StableSyncNet,
        *,
        optimizer: Callable[..., Optimizer],
        schedule: Callable[..., object],
        bce_from_step: int,
        min_offset_frames: int = 4,
        same_clip_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.syncnet = syncnet
        self.info_nce = InfoNCE(same_clip_weight=same_clip_weight)
        self.optimizer, self.schedule = optimizer, schedule
        self.bce_from_step = bce_from_step
        self.min_offset_frames = min_offset_frames

    def configure_optimizers(self) -> dict[str, object]:
        optimizer = self.optimizer(self.parameters())
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": self.schedule(optimizer), "interval": "step"},
        }

    def embed(self, batch: Batch) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b d"]]:
        """Unit vectors of the frames and of the sound of every window."""
        if self.syncnet.reads_latents:
            return self.syncnet(latent_sync_input(batch["latents"]), batch["mel"])
        frames = sync_input(batch["pixels"], self.syncnet.config.resolution)
        return self.syncnet(frames, batch["mel"])

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        vision, audio = self.embed(batch)
        near = near_in_time(batch, self.min_offset_frames)
        values = {
            "train/info_nce": self.info_nce(vision, audio, near, same_clip(batch)),
            "train/bce": balanced_bce(vision, audio, near),
        }
        chosen = "train/info_nce" if self.global_step < self.bce_from_step else "train/bce"
        self.log_dict(values)
        self.log("train/loss", values[chosen], prog_bar=True)
        return values[chosen]

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        vision, audio = self.embed(batch)
        scores = vision.float() @ audio.float().T
        shifted = same_clip(batch) & ~near_in_time(batch, self.min_offset_frames)
        in_sync = scores.diagonal()
        off = scores[shifted]
        above = (in_sync[:, None] > scores)[shifted].float().mean()
        accuracy = ((in_sync > 0.5).float().mean() + (off <= 0.5).float().mean()) / 2
        self.log("val/p_in_above_off", above, prog_bar=True)
        self.log("val/accuracy", accuracy, prog_bar=True)
        self.log("val/cosine_in", in_sync.mean())
        self.log("val/cosine_off", off.mean())

    def export(self, folder: Path) -> None:
        """Write the trained SyncNet as a folder."""
        save_network(self.syncnet, folder)


def same_clip(batch: Batch) -> Bool[Tensor, "b b"]:
    """Which pairs of windows come from one clip."""
    clips = batch["clip_index"]
    return clips[:, None] == clips[None, :]


def near_in_time(batch: Batch, min_offset_frames: int) -> Bool[Tensor, "b b"]:
    """Which pairs of windows come from one clip and nearly one time."""
    starts = batch["start"]
    return same_clip(batch) & ((starts[:, None] - starts[None, :]).abs() < min_offset_frames)


def balanced_bce(
    vision: Float[Tensor, "b d"], audio: Float[Tensor, "b d"], near: Bool[Tensor, "b b"]
) -> Float[Tensor, ""]:
    """The official loss on every in-sync pair and as many off-sync pairs, the same each step.

    Window i gets the sound of the first window after it in the batch that is far enough away in
    time or belongs to another clip: with several windows of a clip beside each other this is
    mostly the same clip at another time, the hard case.
    """
    num_windows = len(vision)
    own = torch.arange(num_windows, device=vision.device)
    order = (own[:, None] + own[None, 1:]) % num_windows
    fair = ~near.gather(1, order)
    partner = order.gather(1, fair.int().argmax(dim=1, keepdim=True))[:, 0]
    labels = torch.cat([torch.ones_like(own), torch.zeros_like(own)]).float()
    return cosine_bce(vision.repeat(2, 1), torch.cat([audio, audio[partner]]), labels)
