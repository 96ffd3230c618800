"""The manifest: one line of JSON per prepared clip, its paths relative to the manifest."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from latentsync.files import publish

MANIFEST_NAME = "manifest.jsonl"
LATENTS_FOLDER = "latents"


@dataclass(frozen=True, slots=True)
class Clip:
    """One prepared clip; `start_frame` counts frames of the model's rate in the source video."""

    path: Path
    features_path: Path
    latents_path: Path | None
    num_frames: int
    source: str
    start_frame: int
    resolution: int
    fps: float

    @property
    def name(self) -> str:
        return self.path.stem

    def as_row(self, folder: Path) -> dict[str, str | int | float]:
        """A line of the manifest that stands in `folder`."""
        return {
            "clip": self.path.relative_to(folder).as_posix(),
            "features": self.features_path.relative_to(folder).as_posix(),
            "num_frames": self.num_frames,
            "source": self.source,
            "start_frame": self.start_frame,
            "resolution": self.resolution,
            "fps": self.fps,
        }

    @classmethod
    def from_row(cls, row: dict, folder: Path) -> Self:
        return cls(
            path=folder / row["clip"],
            features_path=folder / row["features"],
            latents_path=None,
            num_frames=int(row["num_frames"]),
            source=str(row["source"]),
            start_frame=int(row["start_frame"]),
            resolution=int(row["resolution"]),
            fps=float(row["fps"]),
        )


def read_manifest(path: Path | str) -> list[Clip]:
    """The clips of a manifest, or of the data set folder that holds one."""
    path = Path(path)
    if path.is_dir():
        path = path / MANIFEST_NAME
    if not path.is_file():
        raise FileNotFoundError(
            f"no manifest at {path}; make one with: python prepare.py input=... "
            f"output={path.parent}"
        )
    lines = path.read_text(encoding="utf-8").splitlines()
    clips = [_read_row(line, number, path) for number, line in enumerate(lines, start=1)]
    if not clips:
        raise ValueError(
            f"{path} lists no clip; {path.parent / 'dropped.jsonl'} says why each was dropped"
        )
    for value in ("resolution", "fps"):
        found = sorted({getattr(clip, value) for clip in clips})
        if len(found) > 1:
            raise ValueError(f"{path} mixes clips of {value} {found}; prepare them all alike")
    listed = (each for clip in clips for each in (clip.path, clip.features_path))
    missing = [each for each in listed if not each.is_file()]
    if missing:
        raise FileNotFoundError(
            f"{path} lists {missing[0]}, which does not exist"
            + (f" (nor do {len(missing) - 1} others)" if len(missing) > 1 else "")
            + "; bring it back or prepare this data set again"
        )
    return clips


def write_manifest(clips: Iterable[Clip], path: Path) -> None:
    rows = [json.dumps(clip.as_row(path.parent)) for clip in clips]
    with publish(path) as partial:
        partial.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")


def attach_latents(clips: Sequence[Clip], latents: Path | str | bool) -> list[Clip]:
    """The clips with `latents_path` set: `latents` names a folder or, True, the only one there."""
    parent = clips[0].path.parent.parent / LATENTS_FOLDER
    folder = _only_folder(parent) if latents is True else _named_folder(parent, str(latents))
    paths = [folder / f"{clip.name}.safetensors" for clip in clips]
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of {len(clips)} clips have no latents (first: {missing[0]}); go on "
            f"with: python prepare.py stage=latents output={parent.parent} vae=..."
        )
    return [replace(clip, latents_path=path) for clip, path in zip(clips, paths, strict=True)]


def _only_folder(parent: Path) -> Path:
    folders = sorted(path for path in parent.glob("*") if path.is_dir())
    if len(folders) != 1:
        names = [path.name for path in folders]
        raise ValueError(
            f"{parent} holds latents of {len(folders)} VAEs {names}: name one (with_latents=...), "
            f"or make them with: python prepare.py stage=latents output={parent.parent} vae=..."
        )
    return folders[0]


def _named_folder(parent: Path, name: str) -> Path:
    for folder in (parent / name, Path(name)):
        if folder.is_dir():
            return folder
    raise FileNotFoundError(f"no latents folder {name}, neither in {parent} nor as a path")


def _read_row(line: str, number: int, path: Path) -> Clip:
    try:
        return Clip.from_row(json.loads(line), path.parent)
    except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}, line {number} is not a clip ({error!r}): {line[:80]}") from error
