"""A short video with sound at validation: ground truth above, generated below."""

from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from lightning import Trainer
from torch import Generator, Tensor
from torch.nn.functional import pad

from latentsync.batch import Batch
from latentsync.data import ClipDataset
from latentsync.diffusion.sampler import Sampler
from latentsync.files import aside
from latentsync.losses import SyncLoss
from latentsync.media.audio import SAMPLE_RATE, read_waveform, write_wav
from latentsync.media.video import VideoWriter
from latentsync.models import LipSyncModel, StableSyncNet, sync_input
from latentsync.training.callbacks.at_validation import AtValidation, validation_set
from latentsync.training.loggers import log_video
from latentsync.training.tasks.diffusion import DiffusionTask

MAX_CLIPS = 4
STRIP_FRAMES = 8
LOGGED_WITH_SAMPLES = ("val/sample_sync", "val/truth_sync")


class SampleVideo(AtValidation):
    """Writes a video of the first validation clips, ground truth above generated, with the same
    noise each time.

    The clips follow each other with their sound (without sound if the data set skips frames). The
    video is written to `folder` and to loggers that accept images or videos, at the first
    validation at least `every_n_steps` after the last one; averaged weights are in place then. If
    batches have a mel, the mean cosine of a SyncNet of pixels is logged as `val/sample_sync`, and
    that of the ground truth as `val/truth_sync`: of `syncnet`, for runs without a sync loss, or
    else of the sync loss.
    """

    def __init__(
        self,
        folder: Path | str,
        *,
        every_n_steps: int,
        sampler: Sampler,
        syncnet: StableSyncNet | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(every_n_steps)
        if syncnet is not None and syncnet.reads_latents:
            raise ValueError(
                "samples are pictures: callbacks.samples.syncnet must be a SyncNet of pixels, "
                "this one reads latents"
            )
        self.scorer = None if syncnet is None else SyncLoss(syncnet)
        self.folder = Path(folder)
        self.sampler = sampler
        self.seed = seed

    def observe(self, trainer: Trainer, task: DiffusionTask, batch: Batch) -> None:
        some: Batch = {name: value[:MAX_CLIPS] for name, value in batch.items()}  # type: ignore[assignment,index]
        truth, generated = generate_samples(task.model, some, self.sampler, seed=self.seed)
        scorer = self.scorer or task.losses.get("sync")
        if isinstance(scorer, SyncLoss) and not scorer.reads_latents and "mel" in some:
            for name, pixels in zip(LOGGED_WITH_SAMPLES, (generated, truth), strict=True):
                task.log(name, sync_cosine(scorer, pixels, some), batch_size=len(generated))
        if trainer.is_global_zero:
            dataset = validation_set(trainer)
            sound = sound_of(dataset, some) if dataset.items.stride == 1 else None
            frames = one_above_the_other(truth, generated)
            self._show(trainer, frames, sound, fps=task.model.format.fps)

    def _show(
        self,
        trainer: Trainer,
        frames: UInt8[np.ndarray, "n h w 3"],
        sound: Float[Tensor, " t"] | None,
        *,
        fps: float,
    ) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"step_{trainer.global_step:07d}.mp4"
        write_sample(frames, path, fps=fps, sound=sound)
        strip = np.hstack(list(frames[:: max(1, len(frames) // STRIP_FRAMES)]))
        log_video(trainer, "val/samples", path, strip=strip, sound=sound, sample_rate=SAMPLE_RATE)


def generate_samples(
    model: LipSyncModel, batch: Batch, sampler: Sampler, *, seed: int
) -> tuple[Float[Tensor, "b f 3 h w"], Float[Tensor, "b f 3 h w"]]:
    """Ground truth and generated frames of a batch; stored latents are decoded first."""
    if "pixels" in batch:
        truth, reference = batch["pixels"], batch["reference"]
    else:
        with torch.no_grad():
            truth, reference = (
                model.decode(rearrange(latents, "b f c x y -> b c f x y")).clamp(-1, 1)
                for latents in (batch["latents"], batch["reference_latents"])
            )
    generated = model.generate(
        truth,
        batch["audio"],
        sampler=sampler.suited_to(model.process),
        generator=Generator().manual_seed(seed),
        reference=reference,
    )
    return truth, generated


def sync_cosine(
    loss: SyncLoss, pixels: Float[Tensor, "b f 3 h w"], batch: Batch
) -> Float[Tensor, ""]:
    """SyncNet's mean cosine of frames with their sound; 1 is in sync."""
    loss.syncnet.to(pixels.device)
    with torch.no_grad():
        frames = sync_input(pixels.clamp(-1, 1).float(), loss.resolution)
        vision, audio = loss.syncnet.net(frames, batch["mel"])
    return (vision * audio).sum(dim=-1).mean()


def one_above_the_other(
    truth: Float[Tensor, "b f 3 h w"], generated: Float[Tensor, "b f 3 h w"]
) -> UInt8[np.ndarray, "bf two_h w 3"]:
    """Frames of all clips in sequence, ground truth above generated."""
    rows = [rearrange(pixels, "b f c h w -> (b f) h w c") for pixels in (truth, generated)]
    return ((torch.cat(rows, dim=1).float() + 1) * 127.5).clamp(0, 255).byte().cpu().numpy()


def sound_of(dataset: ClipDataset, batch: Batch) -> Float[Tensor, " t"]:
    """The sound of a batch's frames, clip after clip, at 16 kHz."""
    pieces = []
    for index, start in zip(batch["clip_index"].tolist(), batch["start"].tolist(), strict=True):
        clip = dataset.clips[index]
        clip.bring(clip.path)
        waveform = read_waveform(clip.path, SAMPLE_RATE)
        first, length = (
            round(frames / clip.fps * SAMPLE_RATE) for frames in (start, dataset.items.num_frames)
        )
        piece = waveform[first : first + length]
        pieces.append(pad(piece, (0, length - len(piece))))
    return torch.cat(pieces)


def write_sample(
    frames: UInt8[np.ndarray, "n h w 3"],
    path: Path,
    *,
    fps: float,
    sound: Float[Tensor, " t"] | None,
) -> None:
    """Write a video of these frames with their sound."""
    height, width = frames.shape[1:3]
    sound_path = None if sound is None else aside(path.with_suffix(".wav"))
    try:
        if sound is not None and sound_path is not None:
            write_wav(sound_path, sound, SAMPLE_RATE)
        with VideoWriter(path, fps=fps, width=width, height=height, audio=sound_path) as writer:
            for frame in frames:
                writer.write(frame)
    finally:
        if sound_path is not None:
            sound_path.unlink(missing_ok=True)
