"""Trains SyncNet: first with InfoNCE, then with BCE, which calibrates its cosine."""

from dataclasses import dataclass
from pathlib import Path

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from latentsync.batch import Batch
from latentsync.data import ClipDataset
from latentsync.data.mixing import column_of
from latentsync.data.synthetic import faces_of
from latentsync.losses import InfoNCE, OffsetHead, cosine_bce
from latentsync.metrics.calibration import CalibrationCounts
from latentsync.models import StableSyncNet, latent_sync_input, save_network, sync_input
from latentsync.training.tasks.base import MakeOptimizer, MakeSchedule, Task

NUM_SAMPLED_SOURCES = 256  # evenly spaced, to find out what kind of faces a set has


@dataclass(frozen=True, slots=True)
class Pairs:
    """Positive and negative pairs of windows and sounds in a batch.

    Windows of one clip less than `min_offset_frames` apart are no negatives; those further apart
    have weight `same_clip_weight` in `InfoNCE`. `official`: BCE uses the published pairs instead of
    balanced ones, see `official_bce`; for comparison only, it needs `windows_per_clip=2`.
    """

    min_offset_frames: int = 4
    same_clip_weight: float = 1.0
    official: bool = False

    def __post_init__(self) -> None:
        if self.min_offset_frames < 1:
            raise ValueError(f"min_offset_frames must be 1 or more, got {self.min_offset_frames}")


class SyncNetTask(Task):
    """InfoNCE until `bce_from_step`, then the official BCE loss, which calibrates the cosine.

    Batches hold several windows of each clip, so that negatives differ in time and not only in
    speaker. InfoNCE uses the windows of all processes as negatives, BCE only those of its own
    process.

    `windows_at_once`: maximum number of windows whose activations are in memory, for any batch
    size. `offset_weight`: weight of the additional offset loss, see `OffsetHead`; None: no head.
    """

    def __init__(
        self,
        syncnet: StableSyncNet,
        *,
        optimizer: MakeOptimizer,
        schedule: MakeSchedule,
        bce_from_step: int,
        pairs: Pairs | None = None,
        windows_at_once: int | None = None,
        offset_weight: float | None = None,
        max_offset_frames: int = 15,
    ) -> None:
        super().__init__(optimizer=optimizer, schedule=schedule)
        if windows_at_once is not None and windows_at_once < 1:
            raise ValueError(f"windows_at_once must be 1 or more, or null, got {windows_at_once}")
        self.syncnet = syncnet
        self.pairs = pairs or Pairs()
        self.info_nce = InfoNCE(same_clip_weight=self.pairs.same_clip_weight)
        self.bce_from_step = bce_from_step
        self.windows_at_once = windows_at_once
        self.offset_weight = offset_weight
        self.offset_head: OffsetHead | None = None
        if offset_weight is not None:
            num_channels = syncnet.config.visual_encoder["block_out_channels"][-1]
            self.offset_head = OffsetHead(num_channels, max_offset_frames=max_offset_frames)
        self.calibration = CalibrationCounts()

    def on_fit_start(self) -> None:
        """Record what kind of faces it is trained on; the exported folder states it."""
        dataset = getattr(self.trainer.datamodule, "train_set", None)
        if isinstance(dataset, ClipDataset):
            sources = sorted(set(column_of(dataset.clips, "source")))
            faces = faces_of(sources[:: max(1, len(sources) // NUM_SAMPLED_SOURCES)])
            if faces is not None:
                self.syncnet.register_to_config(trained_on=faces)

    def embed(self, batch: Batch) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b d"]]:
        """Unit vectors of the frames and of the sound of every window."""
        return embed_in_parts(
            self.syncnet, judged_frames(self.syncnet, batch), batch["mel"], self.windows_at_once
        )

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        vision, audio = self.embed(batch)
        values = self.losses(vision, audio, batch)
        self.log_dict({f"train/{name}": value for name, value in values.items()})
        loss = self.chosen(values)
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def losses(
        self, vision: Float[Tensor, "b d"], audio: Float[Tensor, "b d"], batch: Batch
    ) -> dict[str, Float[Tensor, ""]]:
        """Every loss term by name, including those not trained on at this step."""
        near = near_in_time(batch, self.pairs.min_offset_frames)
        use_official_pairs = self.pairs.official and self.training
        values = {
            "info_nce": self._contrast(vision, audio, batch),
            "bce": official_bce(vision, audio, batch)
            if use_official_pairs
            else balanced_bce(vision, audio, near),
        }
        if self.offset_head is not None:
            values["offset_error"] = self.offset_head.error(
                vision, audio, frames_after(batch), same_clip(batch)
            )
        return values

    def chosen(self, values: dict[str, Float[Tensor, ""]]) -> Float[Tensor, ""]:
        """The training loss of this step: InfoNCE or BCE, plus the offset loss if there is a
        head."""
        loss = values["info_nce" if self.global_step < self.bce_from_step else "bce"]
        if self.offset_weight is None:
            return loss
        return loss + self.offset_weight * values["offset_error"]

    def _contrast(
        self, vision: Float[Tensor, "b d"], audio: Float[Tensor, "b d"], batch: Batch
    ) -> Float[Tensor, ""]:
        if self._trainer is not None and self.trainer.training and self.trainer.world_size > 1:
            # Gradients are summed over processes here and averaged later: the result is that of one
            # batch.
            gather = self.trainer.strategy.all_gather
            vision, audio = (
                rearrange(gather(rows, sync_grads=True), "r b d -> (r b) d")
                for rows in (vision, audio)
            )
            batch = {
                "clip_index": gather(batch["clip_index"]).flatten(),
                "start": gather(batch["start"]).flatten(),
            }
        near = near_in_time(batch, self.pairs.min_offset_frames)
        return self.info_nce(vision, audio, near, same_clip(batch))

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Log the losses; returns the embeddings of the frames for callbacks."""
        vision, audio = self.embed(batch)
        values = self.losses(vision, audio, batch)
        values["loss"] = self.chosen(values)
        self.log_dict(
            {f"val/{name}": value for name, value in values.items()}, batch_size=len(vision)
        )
        off = same_clip(batch) & ~near_in_time(batch, self.pairs.min_offset_frames)
        self.calibration.update(vision.float() @ audio.float().T, off)
        return {"vision": vision}

    def on_validation_epoch_end(self) -> None:
        # Callbacks run first and may read the counts.
        values = self.calibration.compute()
        self.log_dict({f"val/{name}": value for name, value in values.items()}, prog_bar=True)
        self.calibration.reset()

    def export(self, folder: Path) -> None:
        """Write the trained SyncNet as a folder."""
        save_network(self.syncnet, folder)


def judged_frames(syncnet: StableSyncNet, batch: Batch) -> Float[Tensor, "b fc h w"]:
    """The visual input of this SyncNet from a batch: latents, or the lower half of the pixels."""
    if syncnet.reads_latents:
        return latent_sync_input(batch["latents"])
    return sync_input(batch["pixels"], syncnet.config.resolution)


def embed_in_parts(
    syncnet: StableSyncNet,
    frames: Float[Tensor, "b fc h w"],
    mel: Float[Tensor, "b 1 m t"],
    windows_at_once: int | None,
) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b d"]]:
    """Embeddings of a batch, with activations of at most `windows_at_once` windows in memory.

    Gradient caching (arXiv 2101.06983): the loss needs the embeddings of all windows at once, the
    network only its own windows. Checkpointing drops the activations of a part and recomputes them
    in the backward pass; gradients equal those of the whole batch, at the cost of one more forward
    pass.
    """
    if windows_at_once is None or len(mel) <= windows_at_once:
        return syncnet(frames, mel)
    parts = [
        checkpoint(syncnet, *part, use_reentrant=False)
        for part in zip(frames.split(windows_at_once), mel.split(windows_at_once), strict=True)
    ]
    vision, audio = zip(*parts, strict=True)
    return torch.cat(vision), torch.cat(audio)


def same_clip(batch: Batch) -> Bool[Tensor, "b b"]:
    """Which pairs of windows come from the same clip."""
    clips = batch["clip_index"]
    return clips[:, None] == clips[None, :]


def frames_after(batch: Batch) -> Float[Tensor, "b b"]:
    """By how many frames window j begins after window i; only meaningful within a clip."""
    starts = batch["start"].float()
    return starts[None, :] - starts[:, None]


def near_in_time(batch: Batch, min_offset_frames: int) -> Bool[Tensor, "b b"]:
    """Which pairs of windows come from the same clip and nearly the same time."""
    return same_clip(batch) & (frames_after(batch).abs() < min_offset_frames)


def balanced_bce(
    vision: Float[Tensor, "b d"], audio: Float[Tensor, "b d"], near: Bool[Tensor, "b b"]
) -> Float[Tensor, ""]:
    """The official loss on all in-sync pairs and as many off-sync ones, chosen deterministically.

    The negative of window i is the sound of the first window after it in the batch that is far
    enough away in time or belongs to another clip: with several windows of a clip in sequence this
    is mostly the same clip at another time, the hard case.
    """
    num_windows = len(vision)
    own = torch.arange(num_windows, device=vision.device)
    order = (own[:, None] + own[None, 1:]) % num_windows
    fair = ~near.gather(1, order)
    partner = order.gather(1, fair.int().argmax(dim=1, keepdim=True))[:, 0]
    labels = torch.cat([torch.ones_like(own), torch.zeros_like(own)]).float()
    return cosine_bce(vision.repeat(2, 1), torch.cat([audio, audio[partner]]), labels)


def official_bce(
    vision: Float[Tensor, "b d"], audio: Float[Tensor, "b d"], batch: Batch
) -> Float[Tensor, ""]:
    """The official loss on the official pairs: one per clip, in sync or off sync with probability
    1/2.

    The frames are those of the first of the clip's two windows; the sound is its own or that of the
    second, which may begin a single frame later or earlier.
    """
    clips = batch["clip_index"]
    if len(clips) % 2 or bool((clips[0::2] != clips[1::2]).any()):
        raise ValueError("pairs.official needs data.train.windows_per_clip=2, got another number")
    in_sync = torch.rand(len(clips) // 2, device=clips.device) < 0.5
    sound = torch.where(in_sync[:, None], audio[0::2], audio[1::2])
    return cosine_bce(vision[0::2], sound, in_sync.float())
