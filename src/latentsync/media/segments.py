"""The parts of a long video on disk: naming, metadata, discovery, removal."""

import json
import logging
from dataclasses import dataclass
from pathlib import Path

logger = logging.getLogger(__name__)

SETTINGS = "settings.json"


@dataclass(frozen=True, slots=True)
class Part:
    """A complete file with `num_entries` frames of the output, starting at index `first`.

    `start` and `end` are ticks of the output; `num_bytes` reveals a file truncated by a power cut.
    """

    first: int
    num_entries: int
    start: int
    end: int
    num_bytes: int

    @property
    def name(self) -> str:
        return part_name(self.first)


def part_name(first: int) -> str:
    return f"part-{first:08d}.mp4"


def remove_parts(folder: Path) -> None:
    """Remove everything a parts writer left in its folder."""
    remove_frames(folder)
    (folder / SETTINGS).unlink(missing_ok=True)


def remove_frames(folder: Path) -> None:
    """Remove the parts, but keep the settings of their run."""
    for path in part_files(folder):
        path.unlink(missing_ok=True)


def tidy_parts(folder: Path) -> None:
    """Remove partial files of a killed writer, and everything if there is no complete part."""
    for path in folder.glob(".*.partial*"):
        path.unlink()
    if not any(folder.glob("part-*.json")):
        remove_parts(folder)


def part_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("part-*.*"))


def whole_parts(folder: Path) -> list[Part]:
    """The consecutive parts from frame 0 on; all other part files are removed."""
    parts: list[Part] = []
    kept: set[str] = set()
    for path in sorted(folder.glob("part-*.json")):
        part = _read_part(path)
        following = (parts[-1].first + parts[-1].num_entries, parts[-1].end) if parts else (0, 0)
        if part is None or (part.first, part.start) != following:
            break
        parts.append(part)
        kept |= {path.name, part.name}
    for path in part_files(folder):
        if path.name not in kept:
            path.unlink()
    if parts:
        logger.info(
            "%s holds %d frames of an earlier run", folder, sum(p.num_entries for p in parts)
        )
    return parts


def _read_part(path: Path) -> Part | None:
    """None if its video is incomplete."""
    noted = read_json(path)
    if noted is None:
        return None
    part = Part(**noted)
    video = path.with_name(part.name)
    return part if video.exists() and video.stat().st_size == part.num_bytes else None


def read_json(path: Path) -> dict | None:
    """None for a truncated file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError:
        return None
