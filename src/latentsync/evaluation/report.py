"""Files of an evaluation: JSON, a contact sheet of faces, a side-by-side video."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

from latentsync.evaluation.model import Spoken
from latentsync.faces import load_mask
from latentsync.files import publish
from latentsync.media.video import VideoWriter

CELL = 128
SHEET_CLIPS = 10
STRIP_CLIPS = 5

Faces = UInt8[np.ndarray, "f r r 3"]


def write_text(path: Path, text: str) -> None:
    with publish(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_metrics(path: Path, metrics: Mapping[str, object]) -> None:
    """Write JSON; as it has no NaN, missing figures are null."""
    write_text(path, json.dumps(_without_nan(metrics), indent=2, allow_nan=False) + "\n")


def append_line(path: Path, row: Mapping[str, object], *, first: bool) -> None:
    """Append a line of JSON, on disk when this returns; `first` truncates the file."""
    with path.open("w" if first else "a", encoding="utf-8") as file:
        file.write(json.dumps(_without_nan(row), allow_nan=False) + "\n")


def _without_nan(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def sheet(shown: Sequence[Spoken], *, mask: str, chunk: int) -> UInt8[np.ndarray, "h w 3"]:
    """One column per clip, at one moment each.

    From the top: truth, masked, reference, own voice, another's voice, the face it belongs to.
    """
    columns = []
    for index, spoken in enumerate(shown):
        length = len(spoken.swapped)
        # A different moment per column, else all mouths would be at the start of a word.
        frame = min(chunk + (7 * index) % max(length - chunk, 1), length - 1)
        face = spoken.example.faces[frame]
        keep = load_mask(mask, len(face))[..., None]
        masked = (face * keep + 127.5 * (1 - keep)).astype(np.uint8)
        pictures = [
            face,
            masked,
            spoken.example.faces[max(frame - chunk, 0)],
            spoken.own[min(frame, len(spoken.own) - 1)],
            spoken.swapped[frame],
            spoken.driver.faces[frame],
        ]
        columns.append(np.vstack([_cell(picture) for picture in pictures]))
    return np.hstack(columns)


def write_sheet(path: Path, picture: UInt8[np.ndarray, "h w 3"]) -> None:
    with publish(path) as partial:
        if not cv2.imwrite(str(partial), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)):
            raise OSError(f"the contact sheet {path} could not be written")


def write_strip(path: Path, shown: Sequence[Spoken], *, fps: float) -> None:
    """A side-by-side video; from the top: the face, dubbed by another, that other face.

    The audio is the first column's.
    """
    shown = shown[:STRIP_CLIPS]
    num_frames = min(len(spoken.swapped) for spoken in shown)
    with VideoWriter(
        path,
        fps=fps,
        width=CELL * len(shown),
        height=CELL * 3,
        audio=shown[0].driver.voice.path,
        audio_seconds=num_frames / fps,
    ) as writer:
        for index in range(num_frames):
            columns = [
                np.vstack(
                    [
                        _cell(faces[index])
                        for faces in (spoken.example.faces, spoken.swapped, spoken.driver.faces)
                    ]
                )
                for spoken in shown
            ]
            writer.write(np.hstack(columns))


def _cell(face: UInt8[np.ndarray, "r r 3"]) -> UInt8[np.ndarray, "cell cell 3"]:
    return cv2.resize(face, (CELL, CELL), interpolation=cv2.INTER_AREA)
