"""Whether a prepared data set is whole, and what it holds."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from latentsync.data.clips import MANIFEST_NAME, Clip, read_rows
from latentsync.media.clip_reader import open_clip

DROPPED_NAME = "dropped.jsonl"


@dataclass(frozen=True, slots=True)
class Damage:
    """A file of a data set that cannot be used, and why."""

    path: Path
    reason: str


def read_local(path: Path) -> list[Clip]:
    """The clips of a manifest, or of the folder that contains one; files need not be there.

    FileNotFoundError without a manifest, ValueError for a line that is no clip.
    """
    path = path / MANIFEST_NAME if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(
            f"no manifest at {path}; make one with: python prepare.py input=..."
        )
    return read_rows(path.read_text(encoding="utf-8"), str(path), path.parent)


def damages_of(clip: Clip) -> Iterator[Damage]:
    """What is wrong with a clip's files: missing, unreadable, or of another length.

    The first and the last frame are decoded, of the features only the header is read.
    """
    try:
        reader = open_clip(clip.path)
        if len(reader) != clip.num_frames:
            yield Damage(clip.path, f"{len(reader)} frames, the manifest says {clip.num_frames}")
        else:
            reader.frames([0, len(reader) - 1])
    except (OSError, ValueError) as error:
        yield Damage(clip.path, _reason(error))
    try:
        with safe_open(clip.features_path, framework="np") as tensors:
            if not list(tensors.keys()):
                yield Damage(clip.features_path, "holds no features")
    except (OSError, SafetensorError) as error:
        yield Damage(clip.features_path, _reason(error))


def summary_of(path: Path) -> dict[str, str]:
    """Counts and lengths of a set, by name, for people to read.

    `dropped` and its stages are there if prepare's list of dropped items lies beside the manifest.
    """
    clips = read_local(path)
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
    listed = (path if path.is_dir() else path.parent) / DROPPED_NAME
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
