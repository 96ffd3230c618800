"""A folder of results against a folder of references of the same names: any real videos.

Both are cut with the placement of the reference's face, so that pixels can be compared, and both
mouths are read by landmarks. A pair's first `max_frames` are held in memory, no more.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor
from tqdm import tqdm

from latentsync.cli.evaluation import Faces, Judge
from latentsync.cli.mouth_mesh import shapes
from latentsync.faces import ALIGNERS, Face, FaceDetector, align, track
from latentsync.media.audio import read_waveform
from latentsync.media.mel import mel_spectrogram
from latentsync.media.video import probe, read_frames
from latentsync.metrics.row import Row

Frame = UInt8[np.ndarray, "h w 3"]
In = TypeVar("In")
Out = TypeVar("Out")

log = logging.getLogger(__name__)

VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".m4v", ".webm", ".avi")


def compare_folders(
    pred_dir: Path, ref_dir: Path, *, judge: Judge, max_frames: int
) -> dict[str, Row]:
    """The rows `pred` and `ref` over all pairs of equal name."""
    rows = {"pred": Row(), "ref": Row()}
    pairs = list(find_pairs(pred_dir, ref_dir))
    for pred_path, ref_path in tqdm(pairs, desc="compare", unit="video"):
        compare_pair(rows, pred_path, ref_path, judge=judge, max_frames=max_frames)
    return rows


def find_pairs(pred_dir: Path, ref_dir: Path) -> Iterator[tuple[Path, Path]]:
    """Every video of `pred_dir` with the one of the same name, maybe another suffix, beside it."""
    for name, folder in (("pred", pred_dir), ("ref", ref_dir)):
        if not folder.is_dir():
            raise FileNotFoundError(f"{name}={folder} is no folder")
    references = {path.stem: path for path in videos(ref_dir)}
    results = videos(pred_dir)
    if not results:
        raise FileNotFoundError(f"pred={pred_dir} holds no video ({', '.join(VIDEO_SUFFIXES)})")
    missing = [path.name for path in results if path.stem not in references]
    if missing:
        raise ValueError(
            f"{len(missing)} videos of pred={pred_dir} have no namesake in ref={ref_dir}, "
            f"first: {missing[0]}"
        )
    for path in results:
        yield path, references[path.stem]


def videos(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in VIDEO_SUFFIXES)


def compare_pair(
    rows: dict[str, Row], pred_path: Path, ref_path: Path, *, judge: Judge, max_frames: int
) -> None:
    """Add one pair to both rows."""
    fps, detector = judge.model_format.fps, judge.detector
    if detector is None:
        raise ValueError("comparing folders needs a face detector: faces=mesh")
    pred, ref = probe(pred_path), probe(ref_path)
    if (pred.width, pred.height) != (ref.width, ref.height):
        raise ValueError(
            f"{pred_path} is {pred.width}x{pred.height}, but {ref_path} is {ref.width}x{ref.height}"
        )
    lengths = sorted(min(info.duration_seconds, max_frames / fps) for info in (pred, ref))
    if lengths[1] - lengths[0] > 1.5 / fps:
        log.warning(
            "%s lasts %.2f s and %s %.2f s: only what both show is compared",
            *(pred_path, pred.duration_seconds, ref_path, ref.duration_seconds),
        )
    pred_frames, ref_frames, again = (
        read_frames(path, fps=fps, num_frames=max_frames)
        for path in (pred_path, ref_path, pred_path)
    )
    pred_faces, ref_faces, ref_mesh = cut_alike(pred_frames, ref_frames, judge, detector)
    if not len(ref_faces):
        raise ValueError(f"no face found in any of {len(ref_mesh)} frames of {ref_path}")
    pred_mesh = shapes(track(again, detector))[: len(ref_mesh)]
    rows["pred"].add_mesh(pred_mesh, ref_mesh)
    judge.compare(rows["pred"], pred_faces, ref_faces, same_speech=True)
    for row, path, faces in (
        (rows["pred"], pred_path, pred_faces),
        (rows["ref"], ref_path, ref_faces),
    ):
        row.num_clips += 1
        # Where a face is missing, frames and sound would part.
        if judge.syncnet is not None and len(faces) == len(ref_mesh) and probe(path).has_audio:
            mel = mel_spectrogram(read_waveform(path))
            row.add_sync(judge.sync(faces, mel))


def cut_alike(
    pred_frames: Iterable[Frame], ref_frames: Iterable[Frame], judge: Judge, detector: FaceDetector
) -> tuple[Faces, Faces, Float[Tensor, "n 2"]]:
    """Both videos' faces where the reference has one, and the reference's mouth in every frame."""
    resolution = judge.model_format.resolution
    aligner = ALIGNERS[judge.model_format.aligner](resolution)
    found: list[Face | None] = []

    def follow(pairs: Iterator[tuple[Frame, Frame]]) -> Iterator[Face | None]:
        for face in track((ref for _, ref in pairs), detector):
            found.append(face)
            yield face

    def place(followed: Iterator[tuple[tuple[Frame, Frame], Face | None]]) -> Iterable:
        return aligner.placements(
            None if face is None else aligner.points_of(face) for _, face in followed
        )

    # The shorter of the two ends both.
    followed = beside(zip(pred_frames, ref_frames, strict=False), follow)
    faces = [
        [align(frame, placement, resolution) for frame in pair]
        for (pair, _), placement in beside(followed, place)
        if placement is not None
    ]
    both = np.array(faces, dtype=np.uint8).reshape(-1, 2, resolution, resolution, 3)
    return both[:, 0], both[:, 1], shapes(found)


def beside(
    items: Iterable[In], follow: Callable[[Iterator[In]], Iterable[Out]]
) -> Iterator[tuple[In, Out]]:
    """Each item with what `follow` makes of it; holds only the items `follow` is ahead.

    (`itertools.tee` would keep up to 57 pictures longer than needed: it frees by blocks.)
    """
    ahead: deque[In] = deque()

    def tap() -> Iterator[In]:
        for item in items:
            ahead.append(item)
            yield item

    for result in follow(tap()):
        yield ahead.popleft(), result
