"""Whether a prepared data set is whole, and what it holds."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import safe_open

from latentsync.data.clips import FEATURES_FOLDER, LATENTS_FOLDER, Clip
from latentsync.data.dataset import UNREADABLE
from latentsync.data.manifest import DROPPED_NAME, listed_clips, manifest_of
from latentsync.media.clip_reader import open_clip

TENSORS = (FEATURES_FOLDER, LATENTS_FOLDER)  # folders of folders, one per encoder and VAE


@dataclass(frozen=True, slots=True)
class Damage:
    """A file of a data set that cannot be used, and why."""

    path: Path
    reason: str


def damages_of(clips: Sequence[Clip]) -> Iterator[list[Damage]]:
    """For each clip of a set, what is wrong with its files: missing, unreadable, of another length.

    Its files are the video, of which the first and the last frame are decoded, and the tensors of
    every folder of the set, of which the header is read.
    """
    root = clips[0].path.parent.parent
    folders = [each for name in TENSORS for each in sorted((root / name).glob("*/"))]
    for clip in clips:
        tensors = [clip.features_path, *(each / f"{clip.name}.safetensors" for each in folders)]
        yield [*_damages_of_video(clip), *(each for path in tensors for each in _of_tensors(path))]


def _damages_of_video(clip: Clip) -> Iterator[Damage]:
    try:
        reader = open_clip(clip.path)
        if len(reader) != clip.num_frames:
            yield Damage(clip.path, f"{len(reader)} frames, the manifest says {clip.num_frames}")
        else:
            reader.frames([0, len(reader) - 1])
    except UNREADABLE as error:
        yield Damage(clip.path, _reason(error))


def _of_tensors(path: Path) -> Iterator[Damage]:
    try:
        with safe_open(path, framework="np") as tensors:
            if not list(tensors.keys()):
                yield Damage(path, "holds no tensors")
    except UNREADABLE as error:
        yield Damage(path, _reason(error))


def summary_of(path: Path) -> dict[str, str]:
    """Counts and lengths of a set, by name, for people to read.

    `dropped` and its stages are there if prepare's list of dropped items lies beside the manifest.
    """
    manifest = manifest_of(path)
    clips = listed_clips(manifest)
    seconds = np.array([clip.num_frames / clip.fps for clip in clips])
    result = {
        "clips": f"{len(clips):,}",
        "sources": f"{len({clip.source for clip in clips}):,}",
        "hours": f"{seconds.sum() / 3600:.2f}",
        "seconds a clip": f"{seconds.min():.2f} to {seconds.max():.2f}, median "
        f"{np.median(seconds):.2f}",
        "resolution": f"{clips[0].resolution}",
        "fps": f"{clips[0].fps:g}",
    }
    listed = manifest.parent / DROPPED_NAME
    if listed.is_file():
        lines = listed.read_text(encoding="utf-8").splitlines()
        stages = Counter(json.loads(line)["stage"] for line in lines)
        result["dropped"] = f"{len(lines):,}"
        result |= {f"- at stage {stage}": f"{count:,}" for stage, count in stages.most_common()}
    return result


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "does not exist"
    return " ".join(str(error).split())
