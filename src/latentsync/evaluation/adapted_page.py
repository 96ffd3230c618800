"""The report of an adaptation as one HTML file beside its videos."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from latentsync.files import publish
from latentsync.pages import render

STRIP_COLUMNS = 8
CELL = 144
JPEG_QUALITY = 85
WIDTH, HEIGHT = 1200, 200

Faces = UInt8[np.ndarray, "f r r 3"]
Opening = Float[np.ndarray, " f"]
HEAD = (
    "", "r(opening)", "from", "to (95 %)", "chance", "late, frames", "r(width)",
    "r, filmed", "spread", "PSNR, dB", "sharpness", "flicker",
)  # fmt: skip
FORMS = (*["{:.2f}"] * 4, "{:.0f}", "{:.2f}", "{:.2f}", "{:.3f}", "{:.1f}", "{:.2f}", "{:.2f}")


@dataclass(frozen=True, slots=True)
class AdaptedPage:
    """Figures of every kind of result in the order of HEAD, and of the first held-out clip the
    faces, and openings as pairs of what was wanted and what came; `doubt` says what is not
    valid."""

    video: str
    doubt: str | None
    rows: Mapping[str, Sequence[float]]
    strips: Mapping[str, Faces]
    openings: Mapping[str, tuple[Opening, Opening]]

    def write(self, path: Path, *, videos: Mapping[str, str]) -> None:
        """Write the page; `videos` are files beside it, by their captions."""
        values = {
            "video": self.video,
            "doubt": self.doubt,
            "head": HEAD,
            "rows": [[name, *map(shown, FORMS, row)] for name, row in self.rows.items()],
            "strips": [(name, strip(faces)) for name, faces in self.strips.items()],
            "plots": [
                (name, line(wanted), line(result))
                for name, (wanted, result) in self.openings.items()
            ],
            "videos": videos,
            "width": WIDTH,
            "height": HEIGHT,
        }
        with publish(path) as partial:
            page = render("latentsync.evaluation", "adapted.html", values)
            partial.write_text(page, encoding="utf-8")


def shown(form: str, value: float) -> str:
    return form.format(value) if np.isfinite(value) else "-"


def strip(faces: Faces) -> str:
    """Faces spread over a clip, in a row, as a base64 JPEG."""
    chosen = np.linspace(0, len(faces) - 1, min(STRIP_COLUMNS, len(faces))).round().astype(int)
    cells = [
        cv2.resize(faces[index], (CELL, CELL), interpolation=cv2.INTER_AREA) for index in chosen
    ]
    row = np.ascontiguousarray(np.concatenate(cells, axis=1)[..., ::-1])
    _, coded = cv2.imencode(".jpg", row, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return base64.b64encode(coded.tobytes()).decode("ascii")


def line(opening: Opening, most: float = 0.35) -> str:
    """An SVG path, with gaps where no mouth is seen; `most` is the opening at the upper edge."""
    x = (np.arange(len(opening)) + 0.5) / max(len(opening), 1) * WIDTH
    y = HEIGHT * (1 - (opening / most).clip(0, 1))
    path, pen = [], "M"
    for left, down in zip(x.tolist(), y.tolist(), strict=True):
        is_seen = np.isfinite(down)
        path.append(f"{pen}{left:.1f} {down:.1f}" if is_seen else "")
        pen = "L" if is_seen else "M"
    return "".join(path)
