"""The list of pairs of the drawn benchmark, whose clips are drawn if they are not there."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import cv2
import torch
from tqdm import tqdm

from latentsync.data.synthetic.conditions import (
    NUM_CLIPS,
    VERSION,
    condition_of,
    render_benchmark_clip,
)
from latentsync.evaluation.pair_list import Task, task_of
from latentsync.evaluation.setting import AUTO, CROSS, RECONSTRUCTION


def synthetic_list(
    folder: Path, *, setting: str, limit: int | None, seconds: float, num_workers: int
) -> list[Task]:
    """The pairs of the first `limit` clips: own voice, and that of the next clip."""
    num_clips = min(NUM_CLIPS if limit is None else limit, NUM_CLIPS)
    if num_clips < 1:
        raise ValueError(f"limit={limit} must be positive")
    # Clips of another length are other clips.
    folder = folder / f"v{VERSION}_{seconds:g}s"
    folder.mkdir(parents=True, exist_ok=True)
    stems = [folder / f"{index:03d}" for index in range(num_clips)]
    render_all(stems, seconds=seconds, num_workers=num_workers)
    return list(pairs_of(stems, setting))


def pairs_of(stems: Sequence[Path], setting: str) -> Iterator[Task]:
    """Every clip with its own voice and with the next one's."""
    for index, stem in enumerate(stems):
        video, condition = stem.with_suffix(".mp4"), condition_of(index)
        if setting in (AUTO, RECONSTRUCTION):
            yield task_of(
                *(stem.name, video, stem.with_suffix(".wav")),
                speaker=stem.name, setting=RECONSTRUCTION, condition=condition,
            )  # fmt: skip
        if setting in (AUTO, CROSS) and len(stems) > 1:
            other = stems[(index + 1) % len(stems)]
            yield task_of(
                *(f"{stem.name}--{other.name}", video, other.with_suffix(".wav")),
                speaker=stem.name, setting=CROSS, condition=condition,
            )  # fmt: skip


def render_all(stems: Sequence[Path], *, seconds: float, num_workers: int) -> None:
    """Draw what is not there yet."""
    missing = [
        (stem, index)
        for index, stem in enumerate(stems)
        if not stem.with_name(f"{stem.name}.truth.npz").is_file()
    ]
    if not missing:
        return
    arguments = (*zip(*missing, strict=True), [seconds] * len(missing))
    with tqdm(total=len(missing), desc="drawing the benchmark", unit="clip") as bar:
        if num_workers <= 1:
            for _ in map(_render, *arguments):
                bar.update()
            return
        with ProcessPoolExecutor(num_workers, mp_context=get_context("spawn")) as pool:
            for _ in pool.map(_render, *arguments):
                bar.update()


def _render(stem: Path, index: int, seconds: float) -> Path:
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    return render_benchmark_clip(stem, index, seconds=seconds)
