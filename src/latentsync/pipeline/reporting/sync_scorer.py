"""Sync of picture and voice, scored by the SyncNet that came with a model.

Faces are cropped from source and result like the model's own, one window at a time.
"""

from collections import deque
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor

from latentsync.media.audio import SAMPLE_RATE, read_waveform
from latentsync.media.frame import Picture
from latentsync.media.mel import mel_spectrogram, mel_window
from latentsync.metrics.sync import (
    MAX_SHIFT,
    NOT_VALID,
    SyncScore,
    score_of,
    shift_cosines,
    why_invalid,
)
from latentsync.models.model_config import ModelFormat
from latentsync.models.syncnet import SYNTHETIC, StableSyncNet, load_syncnet, sync_input
from latentsync.pipeline.chunks import Run, slot_entries
from latentsync.pipeline.compositing import RunsAt, face_in
from latentsync.pipeline.job import Job
from latentsync.pipeline.render import placements_of

STRIDE = 8  # slots between the starts of windows
MEL_SECONDS = 200 / SAMPLE_RATE  # between columns of the mel
SILENT_PEAK = 0.003  # fraction of full scale: -50 dB
OWN_SECONDS = 30  # of the source's own sound, used to validate the SyncNet

Pair = UInt8[np.ndarray, "2 r r 3"]  # a face in the source and in the result


@dataclass(frozen=True, slots=True)
class SyncScores:
    """The cosines of one window with the sound at every shift; NaN beyond the ends of the voice.

    `first`: first slot of the window. `own`: cosines of the source with the video's own sound, as
    far as it is available.
    """

    first: int
    before: Float[Tensor, " k"]
    after: Float[Tensor, " k"]
    own: Float[Tensor, " k"] | None = None


class SyncScorer:
    """Scores every redrawn run in windows that begin every `stride` slots.

    Holds one window of faces per run and the sound around it; a window's result is 62 numbers.
    """

    def __init__(
        self, job: Job, form: ModelFormat, syncnet: StableSyncNet, *, stride: int = STRIDE
    ) -> None:
        if syncnet.reads_latents:
            raise ValueError("a SyncNet that reads latents cannot judge pictures")
        self.job, self.form, self.syncnet, self.stride = job, form, syncnet, stride
        self.length = syncnet.config.num_frames
        self.placements, self.runs_at = placements_of(job, form), RunsAt(job.runs)
        self.entries = slot_entries(
            job.timeline, fps=job.slot_rate, num_slots=len(job.skip_reasons)
        )
        self.trails: dict[int, deque[Pair]] = {}
        self.heard: dict[tuple[int | str | None, int], Float[Tensor, " d"]] = {}
        self.own = own_sound(job, syncnet)
        self.scores: list[SyncScores] = []

    def look(self, entry: int, number: int, source: Picture, result: Picture) -> None:
        """Add the next frame of the output, with its source frame."""
        first, end = np.searchsorted(self.entries, [entry, entry + 1])
        for slot in range(first, end):
            runs = self.runs_at(slot)
            self.trails = {index: self.trails.get(index, deque()) for index, _ in runs}
            for index, run in runs:
                placement = self.placements.at(run.track, number)
                assert placement is not None, "a run has a usable face in each of its slots"
                faces = [
                    face_in(picture, placement, self.form.resolution)
                    for picture in (source, result)
                ]
                self._add(run, slot, self.trails[index], np.stack(faces))

    def score(self, first: int, end: int) -> tuple[SyncScore, SyncScore] | None:
        """Scores of the source and of the result over windows that begin in these slots; None if
        there are none."""
        own = [scores for scores in self.scores if first <= scores.first < end]
        if not own:
            return None
        return (
            score_of(torch.stack([scores.before for scores in own])),
            score_of(torch.stack([scores.after for scores in own])),
        )

    def why_invalid(self) -> str | None:
        """Why its scores are not valid for this video; None if they are.

        A SyncNet trained on recorded faces is trusted; any other must first recognise the source's
        own sound. If that cannot be tested, one trained on synthetic faces is rejected, and one
        with unknown training data is accepted.
        """
        learnt = self.syncnet.config.trained_on
        own = [scores.own for scores in self.scores if scores.own is not None]
        if learnt not in (None, SYNTHETIC):
            return None
        if own:
            return why_invalid([score_of(torch.stack(own))], trained_on=learnt, subject="the video")
        if learnt is None:
            return None
        return (
            f"{NOT_VALID}: SyncNet learnt from {learnt} faces, and the video has no sound of its "
            "own by which it could be tested"
        )

    def _add(self, run: Run, slot: int, recent: deque[Pair], faces: Pair) -> None:
        recent.append(faces)
        if len(recent) < self.length:
            return
        first = slot - self.length + 1
        if (first - run.first) % self.stride == 0:
            self._score_chunk(run, first, np.stack(recent))
        recent.popleft()

    @torch.no_grad()
    def _score_chunk(self, run: Run, first: int, faces: UInt8[np.ndarray, "f 2 r r 3"]) -> None:
        voice = self.job.voice_of(run)
        last = round(voice.seconds * self.form.fps) - self.length
        if first > last:
            return
        pixels = rearrange(torch.from_numpy(faces), "f two h w c -> two f c h w")
        pixels = pixels.to(self.syncnet.device).float() / 127.5 - 1
        stacked = sync_input(pixels, self.syncnet.config.resolution)
        vision = self.syncnet.embed_frames(stacked).cpu()
        low, high = max(0, first - MAX_SHIFT), min(last, first + MAX_SHIFT)
        sound = self._sound(voice.mel, run.speech, low, high + 1)
        before, after = shift_cosines(vision, sound, torch.tensor([first - low] * 2))
        self.scores.append(SyncScores(first, before, after, self._with_own(first, vision[:1])))

    def _with_own(self, first: int, vision: Float[Tensor, "1 d"]) -> Float[Tensor, " k"] | None:
        """Cosines of the source's window with the source's own sound, if available."""
        if self.own is None or not self._is_in_time(first):
            return None
        low = max(0, first - MAX_SHIFT)
        end = min(self._num_own(), first + MAX_SHIFT + 1)
        if first >= end:
            return None
        (cosines,) = shift_cosines(
            vision, self._sound(self.own, None, low, end), torch.tensor([first - low])
        )
        return cosines

    def _is_in_time(self, first: int) -> bool:
        """Whether a window shows the source at its original times, neither retimed nor looped."""
        times = self.job.analysis.times
        slots = np.array([first, first + self.length - 1])
        numbers = self.job.timeline.numbers[self.entries[slots]]
        shown = times.starts[numbers] * float(times.time_base) * self.form.fps
        return bool((np.abs(shown - slots) <= 1).all())

    def _num_own(self) -> int:
        assert self.own is not None, "asked for only where there is such a sound"
        return round(self.own.shape[1] * MEL_SECONDS * self.form.fps) - self.length + 1

    def _sound(
        self, mel: Float[Tensor, "80 k"] | None, name: int | str | None, first: int, end: int
    ) -> Float[Tensor, "n d"]:
        """Embeddings of the windows of a voice that begin in these slots; `name` is None for the
        source's own sound."""
        new = [slot for slot in range(first, end) if (name, slot) not in self.heard]
        if new:
            assert mel is not None, "the voices were listened to with their mel"
            windows = [
                mel_window(mel, slot, num_frames=self.length, fps=self.form.fps) for slot in new
            ]
            batch = torch.stack(windows)[:, None].to(self.syncnet.device)
            embedded = self.syncnet.embed_mel(batch).cpu()
            self.heard.update(
                {(name, slot): each for slot, each in zip(new, embedded, strict=True)}
            )
        for key in [key for key in self.heard if key[0] == name and key[1] < first]:
            del self.heard[key]
        return torch.stack([self.heard[name, slot] for slot in range(first, end)])


def own_sound(job: Job, syncnet: StableSyncNet) -> Float[Tensor, "80 k"] | None:
    """Mel of the beginning of the video's own sound, to validate a SyncNet; None if validation is
    not needed or the sound is missing or silent."""
    if not job.source.info.has_audio or syncnet.config.trained_on not in (None, SYNTHETIC):
        return None
    try:
        waveform = read_waveform(job.source.path, max_seconds=OWN_SECONDS)
    except (ValueError, OSError):  # its sound may be damaged although its picture is not
        return None
    return None if waveform.abs().max() < SILENT_PEAK else mel_spectrogram(waveform)


@lru_cache(maxsize=1)
def load_sync_scorer(folder: Path, device: torch.device) -> StableSyncNet | None:
    """The SyncNet in a model's folder, loaded once; None if it reads latents."""
    syncnet = load_syncnet(folder)
    return None if syncnet.reads_latents else syncnet.requires_grad_(False).to(device)
