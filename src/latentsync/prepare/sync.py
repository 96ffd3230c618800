"""Offset between picture and sound of a clip, found by a SyncNet, corrected by moving the cut."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import isfinite
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor

from latentsync.media.audio import SAMPLE_RATE
from latentsync.media.mel import mel_spectrogram, mel_window
from latentsync.metrics.lse import MAX_SHIFT, Lse, lse
from latentsync.metrics.sync import LEAD, SyncScore, sync_score
from latentsync.metrics.syncnet_v2 import FPS, SAMPLES_PER_FRAME, FaceTrack, cropped, embed_track
from latentsync.models.syncnet import StableSyncNet, load_syncnet, sync_input
from latentsync.models.syncnet_v2 import SyncNetV2
from latentsync.prepare.segment import sample_of
from latentsync.prepare.stage import AlignedSegment, Dropped
from latentsync.weights import load_official_syncnet_v2

STRIDE = 4  # frames between windows of the picture
BATCH = 16
MIN_LSE_C = 3.0  # of what the published preparation keeps
# The face in the square, shares of its side: medians of FaceMesh's boxes (x0, y0, x1, y1) in 123
# aligned frames of 22 real clips. Four fifths of them differ by .13 at most.
FACE_BOX = (0.11, 0.02, 0.91, 0.83)

Faces = Sequence[UInt8[np.ndarray, "r r 3"]]
Scorer = Callable[[Faces, Float[Tensor, " t"]], SyncScore | Lse | None]


@dataclass(kw_only=True)
class MeasureSync:
    """Adds `sync_confidence` (lead of the best shift) and `sync_offset` in frames: positive if the
    sound leads.

    The offset is None where the SyncNet is not sure of it, and both are without one: nothing is
    dropped on a guess. An offset of up to `max_corrected` frames is corrected: the clip gets the
    sound that belongs to its picture, and loses the frames that then have none. No sample changes.
    `syncnet` is a folder written by training, whose SyncNet reads pixels, or the file of SyncNet v2
    (`syncnet_v2.model`). Of the latter the confidence is LSE-C of the aligned faces, as in the
    published preparation, and what has less than 3 is not judged.
    """

    name: ClassVar[str] = "sync"
    takes: ClassVar[type] = AlignedSegment
    makes: ClassVar[type] = AlignedSegment

    syncnet: Path | str | None = None
    fps: float = 25.0
    max_corrected: int = 6

    @cached_property
    def scorer(self) -> Scorer | None:
        if self.syncnet is None:
            return None
        if Path(self.syncnet).is_dir():
            return SyncNetScorer(Path(self.syncnet), fps=self.fps)
        return SyncNetV2Scorer(load_official_syncnet_v2(self.syncnet), fps=self.fps)

    def run(self, aligned: AlignedSegment) -> Iterator[AlignedSegment | Dropped]:
        score = self.scorer(aligned.faces, aligned.waveform) if self.scorer else None
        if score is None:
            yield aligned.with_measures(sync_offset=None, sync_confidence=None)
            return
        sure = score.confidence >= (MIN_LSE_C if isinstance(score, Lse) else LEAD)
        measured = aligned.with_measures(
            sync_offset=score.offset if sure else None, sync_confidence=score.confidence
        )
        if not sure or not 0 < abs(score.offset) <= self.max_corrected:
            yield measured
            return
        yield self._dropped(aligned, score.offset)
        yield shifted(measured, score.offset, fps=self.fps)

    def _dropped(self, aligned: AlignedSegment, offset: int) -> Dropped:
        """The frames without sound: the last ones if the sound is late."""
        start, end = aligned.start_frame, aligned.start_frame + len(aligned.faces)
        start, end = (start, start + offset) if offset > 0 else (end + offset, end)
        reason = f"no sound after an offset of {offset} frames was corrected"
        return Dropped.part(aligned.source, self.name, reason, start=start, end=end, fps=self.fps)


def shifted(aligned: AlignedSegment, offset: int, *, fps: float) -> AlignedSegment:
    """The segment whose frame i has the sound that was at frame i - offset, without the frames that
    have none."""
    num_frames = len(aligned.faces)
    first, end = max(offset, 0), num_frames + min(offset, 0)
    own = aligned.own_sound
    return replace(
        aligned,
        start_frame=aligned.start_frame + first,
        faces=aligned.faces[first:end],
        turns=aligned.turns[first:end],
        openings=None if aligned.openings is None else aligned.openings[first:end],
        waveform=aligned.waveform[sample_of(first - offset, fps) : sample_of(end - offset, fps)],
        own_sound=None if own is None else own.part(first - offset, end - offset, fps),
    )


class SyncNetScorer:
    """Scores aligned faces with the SyncNet of a folder; None for clips too short to be shifted."""

    def __init__(self, folder: Path, *, fps: float) -> None:
        self.net: StableSyncNet = load_syncnet(folder).eval().requires_grad_(False)
        if self.net.reads_latents:
            raise ValueError(f"the SyncNet of {folder} reads latents: give one that reads pixels")
        self.fps = fps

    @torch.no_grad()
    def __call__(self, faces: Faces, waveform: Float[Tensor, " t"]) -> SyncScore | None:
        length = self.net.config.num_frames
        mel = mel_spectrogram(waveform)
        last = min(len(faces), int(len(waveform) * self.fps // SAMPLE_RATE)) - length
        if last < STRIDE:
            return None
        starts = torch.arange(0, last + 1, STRIDE)
        vision = [self._embedded(faces[start : start + length]) for start in starts.tolist()]
        windows = [
            mel_window(mel, start, num_frames=length, fps=self.fps) for start in range(last + 1)
        ]
        batches = torch.stack(windows)[:, None].split(BATCH)
        sound = torch.cat([self.net.embed_mel(batch) for batch in batches])
        score = sync_score(torch.cat(vision), sound, starts)
        return score if isfinite(score.confidence) else None

    def _embedded(self, faces: Faces) -> Float[Tensor, "1 d"]:
        pixels = rearrange(torch.from_numpy(np.stack(faces)), "f h w c -> 1 f c h w")
        stacked = sync_input(pixels.float() / 127.5 - 1, self.net.config.resolution)
        return self.net.embed_frames(stacked)


class SyncNetV2Scorer:
    """Scores aligned faces with SyncNet v2; None for clips too short for it.

    Crops are cut around the usual place of a face in the square, grey beyond it.
    """

    def __init__(self, net: SyncNetV2, *, fps: float) -> None:
        if fps != FPS:
            raise ValueError(f"SyncNet v2 sees {FPS} frames a second, got prepare.fps={fps:g}")
        self.net = net

    def __call__(self, faces: Faces, waveform: Float[Tensor, " t"]) -> Lse | None:
        if min(len(faces), len(waveform) // SAMPLES_PER_FRAME) <= 2 * MAX_SHIFT:
            return None
        box = np.array(FACE_BOX) * faces[0].shape[0]
        crops = cropped(faces, FaceTrack(0, np.tile(box, (len(faces), 1))))
        embedded = embed_track(self.net, crops, len(faces), waveform, with_backwards=False)
        return lse(embedded.vision, embedded.sound)
