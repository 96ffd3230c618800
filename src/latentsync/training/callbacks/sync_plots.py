"""Two plots of a SyncNet at every validation: calibration of its cosine, and offsets."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import torch
from jaxtyping import Float, Int
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from matplotlib.figure import Figure
from safetensors.torch import load_file
from torch import Tensor

from latentsync.batch import Batch
from latentsync.data import Clip, ClipDataset
from latentsync.files import publish
from latentsync.media.mel import mel_window
from latentsync.metrics.calibration import CalibrationCurve
from latentsync.metrics.sync import MAX_SHIFT, shift_cosines
from latentsync.models import StableSyncNet
from latentsync.training.loggers import log_figure
from latentsync.training.tasks.syncnet import SyncNetTask

# Error in frames up to which an offset counts as correct, as in SyncNet's own evaluation.
TOLERANCE = 1
# Sounds embedded per batch: a mel window is small, but a long clip has hundreds.
SOUNDS_AT_ONCE = 64


class SyncPlots(Callback):
    """Plots calibration.png and offsets.png into `folder` and into loggers that accept images.

    The offset of a validation clip is the shift, in -15..15 frames, at which its sound fits its
    windows best; prepared clips are in sync, so it should be 0. `val/offset_accuracy` is the
    fraction of the first `num_clips` clips whose offset is at most one frame.
    """

    def __init__(self, folder: Path | str, *, num_clips: int = 32) -> None:
        if num_clips < 1:
            raise ValueError(f"num_clips must be 1 or more, got {num_clips}")
        self.folder = Path(folder)
        self.num_clips = num_clips
        self._offsets: dict[int, int] = {}

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not isinstance(pl_module, SyncNetTask):
            raise ValueError(f"callbacks=syncnet is for SyncNet, not {type(pl_module).__name__}")
        self._offsets = {}

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Mapping[str, Tensor],
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        dataset = getattr(trainer.datamodule, "val_set", None)
        assert isinstance(dataset, ClipDataset)
        assert isinstance(pl_module, SyncNetTask)
        for index in batch["clip_index"].unique().tolist():
            if index not in self._offsets and len(self._offsets) < self.num_clips:
                own = batch["clip_index"] == index
                self._offsets[index] = find_offset(
                    pl_module.syncnet, outputs["vision"][own], batch["start"][own],
                    dataset.clips[index],
                )  # fmt: skip

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, SyncNetTask)
        offsets = list(self._offsets.values())
        found = sum(abs(offset) <= TOLERANCE for offset in offsets) / len(offsets)
        pl_module.log("val/offset_accuracy", found)
        if trainer.is_global_zero:
            self._publish(trainer, "calibration", plot_calibration(pl_module.calibration.curve()))
            self._publish(trainer, "offsets", plot_offsets(Counter(offsets)))

    def _publish(self, trainer: Trainer, name: str, figure: Figure) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with publish(self.folder / f"{name}.png") as partial:
            figure.savefig(partial, dpi=80, format="png")
        log_figure(trainer, f"val/{name}", figure)


@torch.no_grad()
def find_offset(
    syncnet: StableSyncNet,
    vision: Float[Tensor, "n d"],
    starts: Int[Tensor, " n"],
    clip: Clip,
) -> int:
    """By how many frames the best-fitting sound comes after these windows.

    `vision`: embeddings of the clip's windows that begin at frames `starts`.
    """
    clip.bring(clip.features_path)
    mel, length = load_file(clip.features_path)["mel"], syncnet.config.num_frames
    sounds = torch.stack(
        [
            mel_window(mel, start, num_frames=length, fps=clip.fps)
            for start in range(clip.num_frames - length + 1)
        ]
    )[:, None].to(syncnet.device)
    audio = torch.cat([syncnet.embed_mel(part) for part in sounds.split(SOUNDS_AT_ONCE)])
    curve = shift_cosines(vision.float(), audio.float(), starts).nanmean(dim=0)
    # A network that scores all sounds equally has found nothing: among ties take the largest
    # offset.
    best = torch.nonzero(curve == curve[~curve.isnan()].max())[:, 0] - MAX_SHIFT
    return int(best[best.abs().argmax()])


def plot_calibration(curve: CalibrationCurve) -> Figure:
    """Fraction of pairs in sync per cosine, above a histogram of pairs; the diagonal is ideal."""
    figure = Figure(figsize=(5, 5), layout="constrained")
    top, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    top.plot([0, 1], [0, 1], color="grey", linewidth=1, linestyle="--")
    seen = curve.weight > 0
    top.plot(curve.cosine[seen], curve.in_sync[seen], marker="o")
    top.set(ylabel="share in sync", ylim=(0, 1), title=f"calibration error {curve.error:.3f}")
    num_bins = len(curve.weight)
    centres = [(index + 0.5) / num_bins for index in range(num_bins)]
    below.bar(centres, curve.weight, width=0.9 / num_bins)
    below.set(xlabel="cosine", ylabel="share of pairs", xlim=(0, 1))
    return figure


def plot_offsets(offsets: Counter[int]) -> Figure:
    """Histogram of the clips' offsets."""
    figure = Figure(figsize=(6, 3), layout="constrained")
    axes = figure.add_subplot()
    shifts = range(-MAX_SHIFT, MAX_SHIFT + 1)
    axes.bar(list(shifts), [offsets[shift] for shift in shifts])
    axes.set(xlabel="frames the best sound comes late", ylabel="clips")
    axes.set_title(f"offset of {offsets.total()} clips in sync")
    return figure
