"""What an evaluation leaves to look at: a table, a sheet of faces, a strip that moves."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8
from rich.table import Table

from latentsync.cli.evaluation import Spoken
from latentsync.faces import load_mask
from latentsync.media.files import publish
from latentsync.media.video import VideoWriter

# Name in metrics.json -> heading and format.
COLUMNS = {
    "r_open": ("r open", "{:.3f}"),
    "r_width": ("width", "{:.3f}"),
    "r_round": ("round", "{:.3f}"),
    "r_teeth": ("teeth", "{:.3f}"),
    "r_open_mesh": ("r open (mesh)", "{:.3f}"),
    "leak": ("leak", "{:+.3f}"),
    "sync": ("sync", "{:.3f}"),
    "offset_near": ("|offset|<=1", "{:.0%}"),
    "in_over_off": ("P(in>off)", "{:.3f}"),
    "psnr_inside": ("PSNR in", "{:.1f}"),
    "psnr_outside": ("PSNR out", "{:.1f}"),
    "ssim_inside": ("SSIM in", "{:.3f}"),
    "ssim_outside": ("SSIM out", "{:.3f}"),
    "flicker": ("flicker", "{:.2f}"),
    "border": ("border", "{:.2f}"),
    "closed_in_silence": ("closed", "{:.0%}"),
}
CELL = 128
SHEET_CLIPS = 10
STRIP_CLIPS = 5

Faces = UInt8[np.ndarray, "f r r 3"]


def cells(summary: Mapping[str, float], names: Sequence[str]) -> list[str]:
    """One row's figures as text; a figure that does not exist is a dash."""
    texts = []
    for name in names:
        value = summary.get(name, math.nan)
        texts.append("-" if math.isnan(value) else COLUMNS[name][1].format(value))
    return texts


def measured(rows: Mapping[str, Mapping[str, float]]) -> list[str]:
    """The columns that any row has."""
    return [name for name in COLUMNS if any(name in row for row in rows.values())]


def rich_table(rows: Mapping[str, Mapping[str, float]], title: str) -> Table:
    names = measured(rows)
    table = Table("", *(COLUMNS[name][0] for name in names), title=title)
    for row, summary in rows.items():
        table.add_row(row, *cells(summary, names))
    return table


def markdown_table(rows: Mapping[str, Mapping[str, float]]) -> str:
    names = measured(rows)
    lines = [["", *(COLUMNS[name][0] for name in names)], ["---"] * (len(names) + 1)]
    lines += [[row, *cells(summary, names)] for row, summary in rows.items()]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def write_text(path: Path, text: str) -> None:
    with publish(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_metrics(path: Path, metrics: Mapping[str, object]) -> None:
    """JSON has no NaN: a figure that does not exist is null."""
    write_text(path, json.dumps(_without_nan(metrics), indent=2, allow_nan=False) + "\n")


def _without_nan(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def sheet(shown: Sequence[Spoken], *, mask: str, chunk: int) -> UInt8[np.ndarray, "h w 3"]:
    """One column a clip, at one moment each.

    From the top: truth, masked, reference, own voice, another's voice, the face it belongs to.
    """
    columns = []
    for index, spoken in enumerate(shown):
        length = len(spoken.swapped)
        # Another moment in every column, or all mouths would be at the start of a word.
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
    """Side by side in motion; from the top: the face, speaking as another, that other face.

    The sound is the first column's.
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
