"""SyncNet's own evaluation, on the clips of any prepared set: accuracy, offsets, calibration.

Every window of a clip is compared with the clip's own sound at the same time and at every other
time that is at least SMALLEST_OFF frames away; nothing of other clips.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from matplotlib.figure import Figure
from torch import Tensor

from latentsync.data.clips import Clip
from latentsync.data.stores import map_tensors
from latentsync.evaluation.aggregate import Row
from latentsync.evaluation.pairs import Failed
from latentsync.evaluation.sync_embeddings import (
    count_windows,
    embed_pictures,
    embed_sound,
    lower_halves,
    window_starts,
)
from latentsync.files import publish
from latentsync.media.container import UNREADABLE
from latentsync.media.video import open_clip
from latentsync.metrics import sync
from latentsync.metrics.calibration import CalibrationCounts
from latentsync.metrics.sync import SMALLEST_OFF, SyncFigures, shift_cosines
from latentsync.models.syncnet import StableSyncNet
from latentsync.training.callbacks.sync_plots import plot_calibration, plot_offsets

OWN = "own sound"
PLOTS = {"calibration": "calibration.png", "offsets": "offsets.png"}


class SyncNetItself:
    """What a SyncNet makes of clips with their own sound; memory is that of one clip."""

    def __init__(self) -> None:
        self.row = Row({"sync": SyncFigures()})
        self.counts = CalibrationCounts()
        self.failed: list[Failed] = []

    def add(
        self,
        vision: Float[Tensor, "n d"],
        sound: Float[Tensor, "m d"],
        starts: Int[Tensor, " n"],
        *,
        clip: str,
        speaker: str,
    ) -> None:
        """Add a clip: unit vectors of the windows at `starts`, and of the sound at every frame."""
        off = (starts[:, None] - starts[None]).abs() >= SMALLEST_OFF
        self.counts.update(vision @ sound[starts].T, off)
        cosines = shift_cosines(vision, sound, starts)
        self.row.add({"sync_cosines": cosines}, clip=clip, speaker=speaker)

    @property
    def offsets(self) -> Counter[int]:
        """The clips by the frames that the best sound comes late."""
        (metric,) = self.row.metrics.values()
        assert isinstance(metric, SyncFigures)
        return Counter(-score.offset for score in metric.scores())

    def summary(self, *, trained_on: str | None) -> dict[str, object]:
        """Additions to metrics.json."""
        (metric,) = self.row.metrics.values()
        assert isinstance(metric, SyncFigures)
        curve, offsets = self.counts.curve(), self.offsets
        columns = (curve.cosine, curve.in_sync, curve.weight)
        return {
            "itself": self.counts.compute(),
            "offsets": {str(late): offsets[late] for late in sorted(offsets)},
            "calibration": [
                dict(zip(("cosine", "in_sync", "weight"), cells, strict=True))
                for cells in zip(*(column.tolist() for column in columns), strict=True)
            ],
            "trained_on": trained_on,
            "sync_not_valid": sync.why_invalid(metric.scores(), trained_on=trained_on),
            "failed": [each.as_row() for each in self.failed],
        }

    def plots(self) -> Iterator[tuple[str, Figure]]:
        """The calibration curve and the histogram of offsets, by file name."""
        yield PLOTS["calibration"], plot_calibration(self.counts.curve())
        yield PLOTS["offsets"], plot_offsets(self.offsets)


def score_clips(
    clips: Iterable[Clip], syncnet: StableSyncNet, *, stride: int, max_frames: int
) -> SyncNetItself:
    """Every `stride`-th window of the first `max_frames` of all clips; ValueError for a SyncNet of
    latents. What cannot be read, or is too short, is a counted failure."""
    if syncnet.reads_latents:
        raise ValueError(
            "this SyncNet reads latents: its training gives the same figures at every validation"
        )
    scored = SyncNetItself()
    for clip in clips:
        try:
            _score(clip, scored, syncnet, stride=stride, max_frames=max_frames)
        except UNREADABLE as error:
            scored.failed.append(Failed(f"{clip.name}.mp4", " ".join(str(error).split())))
    return scored


def _score(
    clip: Clip, scored: SyncNetItself, syncnet: StableSyncNet, *, stride: int, max_frames: int
) -> None:
    clip.bring()
    num_windows = count_windows(syncnet, min(clip.num_frames, max_frames))
    starts = window_starts(num_windows, stride)
    if int(starts[-1]) < SMALLEST_OFF:
        raise ValueError(f"{clip.path} is too short for windows {SMALLEST_OFF} frames apart")
    frames = open_clip(clip.path).frames(np.arange(min(clip.num_frames, max_frames)))
    mel = map_tensors(clip.features_path)["mel"].float()
    vision = embed_pictures(syncnet, lower_halves(syncnet, frames), stride=stride)
    sound = embed_sound(syncnet, mel, num_windows, fps=clip.fps)
    if not bool(torch.isfinite(vision).all() and torch.isfinite(sound).all()):
        raise ValueError(f"{clip.path} has embeddings that are not finite")
    scored.add(vision, sound, starts, clip=clip.name, speaker=clip.source)


def write_plots(folder: Path, scored: SyncNetItself) -> None:
    """Write the two pictures to `folder`."""
    for name, figure in scored.plots():
        with publish(folder / name) as partial:
            figure.savefig(partial, dpi=80, format="png")
