"""Compares a folder of results with a folder of references of the same names: any real videos.

Both are cropped with the placement of the reference's face, so that pixels are comparable, and both
mouths are measured by landmarks. Only the first `max_frames` of one pair are in memory.
"""

import logging
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor
from torchmetrics import Metric
from tqdm import tqdm

from latentsync.evaluation.aggregate import Row
from latentsync.evaluation.landmarks import by_landmarks, lips_of
from latentsync.evaluation.lse import LseScorer, NoTrack
from latentsync.evaluation.model import Evaluator, Faces
from latentsync.evaluation.pairs import Failed, Pair, find_pairs
from latentsync.faces import ALIGNERS, Face, FaceDetector, align, track
from latentsync.media.audio import read_waveform
from latentsync.media.container import UNREADABLE
from latentsync.media.formats import is_padded
from latentsync.media.mel import mel_spectrogram
from latentsync.media.video import VideoInfo, probe, read_frames
from latentsync.metrics.base import Sample
from latentsync.metrics.lse import LseFigures
from latentsync.metrics.lse import why_invalid as lse_invalid_because
from latentsync.metrics.mouth import silent_frames
from latentsync.metrics.sync import SyncFigures, why_invalid
from latentsync.models.syncnet import StableSyncNet

Frame = UInt8[np.ndarray, "h w 3"]
In = TypeVar("In")
Out = TypeVar("Out")

log = logging.getLogger(__name__)

# Rates with a smaller relative difference are equal up to rounding.
SAME_RATE = 0.005


@dataclass(frozen=True, slots=True)
class Measured:
    """The measurements of one pair; `notes`: caveats, one sentence by kind."""

    name: str
    samples: dict[str, Sample]
    notes: dict[str, str]


class Comparison:
    """The results of a comparison so far."""

    def __init__(self, metrics: Mapping[str, Metric]) -> None:
        self.rows = {"pred": Row(metrics), "ref": Row(metrics)}
        self.failed: list[Failed] = []
        self.notes: dict[str, list[str]] = defaultdict(list)

    @property
    def num_measured(self) -> int:
        return self.rows["ref"].num_clips

    @property
    def num_pairs(self) -> int:
        return self.num_measured + len(self.failed)

    def add(self, result: Measured | Failed) -> dict[str, object]:
        """Add one pair; returns its line of pairs.jsonl."""
        if isinstance(result, Failed):
            self.failed.append(result)
            log.warning("%s is left out: %s", result.name, result.reason)
            return result.as_row()
        rows = {
            name: self.rows[name].add(sample, clip=result.name, speaker=result.name)
            for name, sample in result.samples.items()
        }
        for kind, note in result.notes.items():
            self.notes[kind].append(note)
        return {"pred": result.name, "rows": rows, "notes": list(result.notes.values())}

    def finish(self, *, trained_on: str | None) -> dict[str, object]:
        """Remove invalid sync figures, log the notes, and return the additions to metrics.json."""
        invalid = leave_out_invalid_sync(self.rows, self.rows["ref"], trained_on=trained_on)
        lse_invalid = leave_out_invalid_lse(self.rows, self.rows["ref"])
        for notes in self.notes.values():
            log.warning("of %d pairs %d: %s", self.num_measured, len(notes), notes[0])
        return {
            "pairs": self.num_measured,
            "failed": [each.as_row() for each in self.failed],
            "notes": [note for notes in self.notes.values() for note in notes],
            "sync_not_valid": invalid,
            **({} if lse_invalid is None else {"lse_not_valid": lse_invalid}),
        }

    def raise_failed(self, path: Path) -> None:
        """ValueError if a pair could not be measured; `path` lists all of them."""
        if not self.failed:
            return
        first = self.failed[0]
        raise ValueError(
            f"{len(self.failed)} of {self.num_pairs} pairs could not be measured, first: "
            f"{first.name} ({first.reason}); all are in {path}"
        )


def leave_out_invalid_sync(
    rows: Mapping[str, Row], truth: Row, *, trained_on: str | None
) -> str | None:
    """Invalidate the sync figures of all rows if SyncNet fails on the truth; returns the reason."""
    for name, metric in truth.metrics.items():
        if not isinstance(metric, SyncFigures):
            continue
        invalid = why_invalid(metric.scores(), trained_on=trained_on)
        if invalid is not None:
            for row in rows.values():
                row.invalidate(name)
            log.warning("the sync figures are left out: %s", invalid)
            return invalid
    return None


def leave_out_invalid_lse(rows: Mapping[str, Row], truth: Row) -> str | None:
    """The same for SyncNet v2, which was trained on filmed people."""
    for name, metric in truth.metrics.items():
        if isinstance(metric, LseFigures):
            invalid = lse_invalid_because(metric.offsets())
            if invalid is not None:
                for row in rows.values():
                    row.invalidate(name)
                log.warning("LSE is left out: %s", invalid)
            return invalid
    return None


# Inputs that need synthetic ground truth, which videos do not have.
UNKNOWN = "a reference is a video, and no drawn truth"
UNKNOWN_OF_VIDEOS = {
    **dict.fromkeys(("reading", "driving", "own"), UNKNOWN),
    **dict.fromkeys(
        ("own_landmarks", "other_voice_landmarks"), "pred= and ref= speak with the same voice"
    ),
}
# Inputs that need whole frames, which drawn clips do not have.
UNKNOWN_OF_ALIGNED = {
    "lse_curves": "drawn clips are aligned faces without surroundings: use pred= and ref="
}


def compare_folders(
    pred_dir: Path, ref_dir: Path, *, evaluator: Evaluator, max_frames: int
) -> Iterator[Measured | Failed]:
    """Each pair of equal names as soon as it is measured, or why it could not be."""
    found = find_pairs(pred_dir, ref_dir)
    if found.passed_over:
        log.info(
            "%d files of pred=%s are no videos and have no namesake: %s",
            *(len(found.passed_over), pred_dir, ", ".join(found.passed_over[:5])),
        )
    yield from found.failed
    for pair in tqdm(found.pairs, desc="compare", unit="video"):
        try:
            yield compare_pair(pair, evaluator=evaluator, max_frames=max_frames)
        except UNREADABLE as error:
            yield Failed(pair.name, " ".join(str(error).split()))


def compare_pair(pair: Pair, *, evaluator: Evaluator, max_frames: int) -> Measured:
    """The measurements of one pair, for its `pred` and its `ref`."""
    fps, detector = evaluator.model_format.fps, evaluator.detector
    if detector is None:
        raise ValueError("comparing folders needs a face detector: faces=mesh")
    pred, ref = probe(pair.pred), probe(pair.ref)
    check_sizes(pred, ref)
    pred_frames, ref_frames, again = (
        read_frames(path, fps=fps, num_frames=max_frames)
        for path in (pair.pred, pair.ref, pair.pred)
    )
    pred_faces, ref_faces, ref_lips = cut_alike(pred_frames, ref_frames, evaluator, detector)
    if not len(ref_faces):
        raise ValueError(f"no face found in any of {len(ref_lips)} frames of {pair.ref}")
    pred_lips = lips_of(track(again, detector))[: len(ref_lips)]
    mesh = by_landmarks(pred_lips, ref_lips)
    samples = {
        "pred": mesh | evaluator.compare(pred_faces, ref_faces, same_speech=True),
        "ref": Sample(),
    }
    notes = notes_on_time(pred, ref, fps=fps, max_frames=max_frames)
    if evaluator.lse is not None:
        add_lse(samples, notes, {"pred": pred, "ref": ref}, evaluator.lse, max_frames / fps)
    videos = {"pred": pred, "ref": ref}
    mels = {
        name: mel_spectrogram(read_waveform(info.path))
        for name, info in videos.items()
        if info.has_audio
    }
    for name, lips in (("pred", pred_lips), ("ref", ref_lips)):
        if name in mels:
            silent = silent_frames(mels[name], len(lips), fps=fps)
            samples[name] |= {"lips": lips, "silent": silent}
    if evaluator.syncnet is not None:
        wanting = why_no_sync(evaluator.syncnet, ref_faces, num_frames=len(ref_lips))
        faces = {"pred": pred_faces, "ref": ref_faces}
        if wanting is not None:
            notes["sync"] = wanting
        else:
            for name, mel in mels.items():
                samples[name]["sync_cosines"] = evaluator.sync_cosines(faces[name], mel)
    return Measured(pair.name, samples, notes)


def add_lse(
    samples: Mapping[str, Sample],
    notes: dict[str, str],
    videos: Mapping[str, VideoInfo],
    scorer: LseScorer,
    seconds: float,
) -> None:
    """Add the inputs of LSE to the samples, or a note why there are none."""
    for name, info in videos.items():
        if not info.has_audio:
            notes["lse"] = f"no LSE: {info.path} has no sound"
            continue
        try:
            samples[name]["lse_curves"] = scorer.curves(info.path, seconds=seconds)
        except NoTrack as error:
            notes["lse"] = f"no LSE: {error}"


def check_sizes(pred: VideoInfo, ref: VideoInfo) -> None:
    # 4:2:0 output may be padded by a column or row to even sides: face positions are the same.
    if not is_padded((pred.width, pred.height), (ref.width, ref.height)):
        raise ValueError(
            f"{pred.path} is {pred.width}x{pred.height}, but {ref.path} is {ref.width}x{ref.height}"
        )


def notes_on_time(
    pred: VideoInfo, ref: VideoInfo, *, fps: float, max_frames: int
) -> dict[str, str]:
    """Notes on different length and rate: frames are paired by time, not by index."""
    notes = {}
    lengths = sorted(min(info.duration_seconds, max_frames / fps) for info in (pred, ref))
    if lengths[1] - lengths[0] > 1.5 / fps:
        notes["length"] = (
            f"{pred.path} lasts {pred.duration_seconds:.2f} s and {ref.path} "
            f"{ref.duration_seconds:.2f} s: only what both show is compared"
        )
    if abs(pred.fps / ref.fps - 1) > SAME_RATE:
        notes["rate"] = (
            f"{pred.path} has {float(pred.fps):.5g} fps and {ref.path} {float(ref.fps):.5g}: "
            f"frames are paired by time, on a grid of {fps:g} fps, and are up to half a frame "
            "apart; for exact pictures bring both to one rate"
        )
    return notes


def why_no_sync(syncnet: StableSyncNet, faces: Faces, *, num_frames: int) -> str | None:
    """Why sync cannot be scored on these faces of `num_frames` frames, if so."""
    if len(faces) < num_frames:
        # If a face is missing, frames and sound are no longer aligned.
        return f"no sync: only {len(faces)} of {num_frames} frames of the reference show a face"
    if num_frames < syncnet.config.num_frames:
        return f"no sync: it needs {syncnet.config.num_frames} frames or more, got {num_frames}"
    return None


def cut_alike(
    pred_frames: Iterable[Frame],
    ref_frames: Iterable[Frame],
    evaluator: Evaluator,
    detector: FaceDetector,
) -> tuple[Faces, Faces, Float[Tensor, "n 40 2"]]:
    """Faces of both videos where the reference has one, and the lips in all reference frames."""
    resolution = evaluator.model_format.resolution
    aligner = ALIGNERS[evaluator.model_format.aligner](resolution)
    found: list[Face | None] = []

    def follow(pairs: Iterator[tuple[Frame, Frame]]) -> Iterator[Face | None]:
        for face in track((ref for _, ref in pairs), detector):
            found.append(face)
            yield face

    def place(followed: Iterator[tuple[tuple[Frame, Frame], Face | None]]) -> Iterable:
        return aligner.placements(
            None if face is None else aligner.points_of(face) for _, face in followed
        )

    # The shorter video ends both.
    followed = beside(zip(pred_frames, ref_frames, strict=False), follow)
    faces = [
        [align(frame, placement, resolution) for frame in pair]
        for (pair, _), placement in beside(followed, place)
        if placement is not None
    ]
    both = np.array(faces, dtype=np.uint8).reshape(-1, 2, resolution, resolution, 3)
    return both[:, 0], both[:, 1], lips_of(found)


def beside(
    items: Iterable[In], follow: Callable[[Iterator[In]], Iterable[Out]]
) -> Iterator[tuple[In, Out]]:
    """Each item with the result of `follow` for it; buffers only the items `follow` is ahead.

    (`itertools.tee` would keep up to 57 pictures longer than needed, as it frees in blocks.)
    """
    waiting: deque[In] = deque()

    def tap() -> Iterator[In]:
        for item in items:
            waiting.append(item)
            yield item

    for result in follow(tap()):
        yield waiting.popleft(), result
