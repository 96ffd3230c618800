"""A synthetic person: random traits, and the layers that stay fixed while they speak.

Face coordinates: the unit is half the face's width, x points right and y down, and the origin is
between eyes and nose tip, such that in the official three-point template (brows at -0.40, nose at
0.05) the eyes are at -0.19, the mouth at 0.56 and the chin at 1.06.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from scipy.ndimage import gaussian_filter

Colour = tuple[float, float, float]
BROW_Y, EYE_Y, NOSE_Y, MOUTH_Y, CHIN_Y = -0.40, -0.19, 0.19, 0.56, 1.06
EYE_X, BROW_X = 0.40, 0.44
TEXTURE_REACH = 1.75  # the texture shows [-reach, reach] of both axes


@dataclass(frozen=True, slots=True)
class Speaker:
    """All traits of a person; lengths in face coordinates, colours RGB in [0, 255]."""

    skin: Colour
    hair: Colour
    lips: Colour
    iris: Colour
    shirt: Colour
    wall: Colour
    jaw: float
    face_length: float
    mouth_width: float
    lip_fullness: float
    eye_size: float
    brow_thickness: float
    nose_width: float
    hair_length: float
    hairline: float
    beard: float
    light: float
    f0: float
    tract: float
    texture_seed: int

    @classmethod
    def random(cls, rng: np.random.Generator) -> "Speaker":
        """A random person."""
        tone = rng.random()
        skin = _mix((250, 218, 192), (98, 62, 44), tone) + rng.normal(0, 5, 3)
        hair = np.array(HAIRS[int(rng.integers(len(HAIRS)))]) + rng.normal(0, 6, 3)
        redness = rng.uniform(0.3, 0.85)
        lips = _mix(skin * (0.86, 0.66, 0.64), (186, 62, 70), redness * (1 - 0.45 * tone))
        male = rng.random() < 0.5
        return cls(
            skin=_colour(skin),
            hair=_colour(hair),
            lips=_colour(lips),
            iris=IRISES[int(rng.integers(len(IRISES)))],
            shirt=_colour(_mix(rng.uniform(20, 230, 3), rng.uniform(40, 200), 0.45)),
            wall=_colour(_mix(rng.uniform(60, 225, 3), rng.uniform(110, 215), 0.6)),
            jaw=rng.uniform(0.62, 0.80) + 0.05 * male,
            face_length=rng.uniform(0.96, 1.05),
            mouth_width=rng.uniform(0.33, 0.41),
            lip_fullness=rng.uniform(0.75, 1.25),
            eye_size=rng.uniform(0.9, 1.12),
            brow_thickness=rng.uniform(0.035, 0.06) + 0.012 * male,
            nose_width=rng.uniform(0.17, 0.24),
            hair_length=rng.uniform(0.0, 0.4) if male else rng.uniform(0.3, 1.0),
            hairline=rng.uniform(-0.92, -0.74),
            beard=rng.uniform(0.15, 0.8) if male and rng.random() < 0.35 else 0.0,
            light=rng.uniform(-1, 1),
            f0=rng.uniform(85, 150) if male else rng.uniform(150, 255),
            tract=rng.uniform(0.88, 1.02) if male else rng.uniform(1.0, 1.18),
            texture_seed=int(rng.integers(2**31)),
        )


HAIRS = (
    (28, 22, 20), (52, 36, 26), (84, 56, 36), (120, 84, 52), (196, 158, 104), (146, 68, 36),
    (158, 156, 154), (64, 44, 34), (20, 18, 20),
)  # fmt: skip
IRISES: tuple[Colour, ...] = (
    (86, 56, 34), (60, 40, 28), (84, 116, 150), (96, 124, 88), (120, 96, 52), (58, 84, 120),
)  # fmt: skip


def _mix(first: object, second: object, share: float) -> np.ndarray:
    return np.asarray(first, dtype=float) * (1 - share) + np.asarray(second, dtype=float) * share


def _colour(value: np.ndarray) -> Colour:
    red, green, blue = np.clip(value, 6, 250)
    return float(red), float(green), float(blue)


class Canvas:
    """An image in face coordinates; shapes are smooth, anti-aliased polygons."""

    def __init__(self, rgb: np.ndarray, *, unit: float, left: float, top: float) -> None:
        self.rgb = rgb
        self.unit, self.left, self.top = unit, left, top
        height, width = rgb.shape[:2]
        columns = ((np.arange(width) + 0.5) / unit + left).astype(np.float32)
        rows = ((np.arange(height) + 0.5) / unit + top).astype(np.float32)
        self.x, self.y = np.meshgrid(columns, rows)

    @classmethod
    def blank(cls, size: int, colour: Colour) -> "Canvas":
        """A texture of a single colour."""
        rgb = np.empty((size, size, 3), dtype=np.float32)
        rgb[:] = colour
        return cls(rgb, unit=size / (2 * TEXTURE_REACH), left=-TEXTURE_REACH, top=-TEXTURE_REACH)

    def cover(self, points: Float[np.ndarray, "n 2"], *, soft: float = 0.0) -> np.ndarray:
        """Coverage of each pixel by a closed curve; `soft` blurs it."""
        mask = np.zeros(self.rgb.shape[:2], dtype=np.uint8)
        places = (np.asarray(points) - (self.left, self.top)) * self.unit - 0.5
        cv2.fillPoly(mask, [np.round(places * 64).astype(np.int32)], 255, cv2.LINE_AA, 6)
        share = mask.astype(np.float32) / 255
        if soft:
            share = cv2.GaussianBlur(share, (0, 0), soft * self.unit)
        return share

    def paint(self, share: np.ndarray, colour: object) -> None:
        """Blend in a colour (or an image) with alpha `share`."""
        self.rgb += share[..., None] * (np.asarray(colour, dtype=np.float32) - self.rgb)

    def shade(self, amount: np.ndarray) -> None:
        """Multiply brightness by 1 + amount; dark red is preserved longest, as in skin."""
        self.rgb *= np.maximum(0, 1 + amount[..., None] * (0.85, 1.0, 1.08)).astype(np.float32)

    def blob(self, x: float | np.ndarray, y: float, width: float, height: float) -> np.ndarray:
        """A 2D Gaussian with peak value 1."""
        return np.exp(-(((self.x - x) / width) ** 2) - ((self.y - y) / height) ** 2)


def smooth_curve(points: object, num: int = 8) -> Float[np.ndarray, "n 2"]:
    """A closed Catmull-Rom curve through the points."""
    knots = np.asarray(points, dtype=np.float64)
    before, after, far = (np.roll(knots, shift, axis=0) for shift in (1, -1, -2))
    t = np.linspace(0, 1, num, endpoint=False)[:, None, None]
    curve = 0.5 * (
        2 * knots
        + (after - before) * t
        + (2 * before - 5 * knots + 4 * after - far) * t**2
        + (3 * knots - before - 3 * after + far) * t**3
    )
    return curve.transpose(1, 0, 2).reshape(-1, 2)


def mirrored(right: object) -> np.ndarray:
    """A closed outline from its right half, given from top to bottom."""
    half = np.asarray(right, dtype=float)
    left = half[::-1] * (-1, 1)
    return np.concatenate([half, left[np.abs(left[:, 0]) > 1e-6]])


def head_outline(speaker: Speaker) -> Float[np.ndarray, "n 2"]:
    chin = CHIN_Y * speaker.face_length
    jaw = speaker.jaw
    return smooth_curve(
        mirrored(
            [
                (0.0, -1.22), (0.52, -1.12), (0.84, -0.75), (0.93, -0.25), (0.90, 0.20),
                (0.26 + 0.73 * jaw, 0.55), (0.04 + 0.78 * jaw, 0.82), (0.31, chin - 0.06),
                (0.0, chin),
            ]
        )
    )  # fmt: skip


def draw_backdrop(speaker: Speaker, size: int) -> UInt8[np.ndarray, "s s 3"]:
    """Wall, shoulders and neck, which do not move."""
    rng = np.random.default_rng(speaker.texture_seed)
    canvas = Canvas.blank(size, speaker.wall)
    canvas.shade(0.25 * speaker.light * canvas.x / 2 - 0.12 * (canvas.y + 0.5))
    for _ in range(4):
        left, width = rng.uniform(-1.8, 1.5), rng.uniform(0.1, 0.8)
        band = ((canvas.x > left) & (canvas.x < left + width)).astype(np.float32)
        canvas.shade(gaussian_filter(band, 0.05 * canvas.unit) * rng.uniform(-0.12, 0.12))
    shoulders = smooth_curve(
        mirrored([(0.0, 1.22), (0.5, 1.25), (1.15, 1.42), (1.65, 1.62), (1.95, 2.6), (0, 2.6)])
    )
    canvas.paint(canvas.cover(shoulders, soft=0.01), speaker.shirt)
    neck = smooth_curve(mirrored([(0, 0.5), (0.52, 0.5), (0.5, 1.1), (0.62, 1.36), (0.0, 1.62)]))
    cover = canvas.cover(neck, soft=0.012)
    canvas.paint(cover, np.multiply(speaker.skin, (0.82, 0.78, 0.76)))
    canvas.shade(-0.38 * cover * canvas.blob(0, 1.0, 0.9, 0.28))
    canvas.shade(0.10 * speaker.light * canvas.x * 0.6)
    return _to_bytes(canvas.rgb)


def draw_head(speaker: Speaker, size: int) -> UInt8[np.ndarray, "s s 4"]:
    """The head without eyes and mouth, as RGB and alpha."""
    rng = np.random.default_rng(speaker.texture_seed + 1)
    canvas = Canvas.blank(size, speaker.hair)
    outline = canvas.cover(head_outline(speaker), soft=0.008)
    behind = _hair_behind(canvas, speaker)
    alpha = np.maximum(outline, behind)
    ears = sum(canvas.blob(side * 0.94, 0.0, 0.10, 0.22) > 0.45 for side in (-1, 1))
    ears = gaussian_filter(np.asarray(ears, dtype=np.float32), 0.01 * canvas.unit)
    if speaker.hair_length < 0.55:
        alpha = np.maximum(alpha, ears)
        canvas.paint(ears, np.multiply(speaker.skin, (0.92, 0.84, 0.82)))
    canvas.paint(outline, speaker.skin)
    _model_skin(canvas, speaker, outline)
    _draw_nose(canvas, speaker)
    _draw_beard(canvas, speaker, outline)
    _draw_brows(canvas, speaker, rng)
    front = _hair_front(canvas, speaker)
    canvas.paint(front, speaker.hair)
    hair = np.maximum(front, np.clip(behind - outline, 0, 1))
    strands = gaussian_filter(rng.standard_normal(canvas.x.shape), (0.06 * canvas.unit, 0.8))
    strands /= max(float(strands.std()), 1e-6)
    sheen = 0.35 * canvas.blob(0.45 * speaker.light, -1.0, 0.5, 0.18)
    canvas.shade(hair * (0.13 * strands + sheen - 0.1))
    grain = gaussian_filter(rng.standard_normal(canvas.x.shape), 1.2)
    canvas.shade(0.012 * outline * grain / max(float(grain.std()), 1e-6))
    return np.dstack([_to_bytes(canvas.rgb), np.round(alpha * 255).astype(np.uint8)])


def _model_skin(canvas: Canvas, speaker: Speaker, face: np.ndarray) -> None:
    """Shade the face: side light, eye sockets, cheeks, shadows under lip and chin."""
    x, y = canvas.x, canvas.y
    side = speaker.light
    round_off = np.clip(1 - np.sqrt(np.clip(1 - (x / 1.02) ** 2, 0, 1)), 0, 1)
    canvas.shade(face * (-0.30 * round_off + 0.13 * side * x - 0.06 * y))
    canvas.shade(face * 0.08 * canvas.blob(0.1 * side, -0.75, 0.6, 0.3))
    for eye in (-1, 1):
        canvas.shade(-0.17 * face * canvas.blob(eye * EYE_X, EYE_Y - 0.06, 0.24, 0.13))
        canvas.shade(-0.05 * face * canvas.blob(eye * EYE_X, EYE_Y + 0.13, 0.22, 0.05))
        canvas.shade(0.07 * face * canvas.blob(eye * 0.52, 0.16, 0.22, 0.14))
        blush = 0.16 * face * canvas.blob(eye * 0.56, 0.24, 0.24, 0.18)
        canvas.paint(blush, np.multiply(speaker.skin, (1.0, 0.72, 0.70)))
        # Nasolabial fold.
        canvas.shade(-0.08 * face * canvas.blob(eye * (0.31 + 0.16 * (y - 0.35)), 0.42, 0.04, 0.13))
    canvas.shade(-0.16 * face * canvas.blob(0, MOUTH_Y + 0.20, 0.22, 0.05))
    canvas.shade(0.06 * face * canvas.blob(0, CHIN_Y - 0.16, 0.22, 0.10))
    canvas.shade(-0.24 * face * np.clip((y - 0.92 * CHIN_Y) / 0.3, 0, 1))


def _draw_nose(canvas: Canvas, speaker: Speaker) -> None:
    side = speaker.light if abs(speaker.light) > 0.25 else 0.25
    width = speaker.nose_width
    canvas.shade(0.14 * canvas.blob(0.02 * side, 0.0, 0.06, 0.24))
    canvas.shade(-0.20 * canvas.blob(-0.13 * np.sign(side), 0.02, 0.06, 0.22))
    canvas.shade(0.16 * canvas.blob(0.02 * side, NOSE_Y - 0.02, 0.09, 0.07))
    canvas.shade(-0.30 * canvas.blob(0, NOSE_Y + 0.12, width * 0.95, 0.035))
    for wing in (-1, 1):
        canvas.shade(-0.24 * canvas.blob(wing * width * 1.02, NOSE_Y + 0.05, 0.035, 0.07))
        nostril = canvas.blob(wing * width * 0.48, NOSE_Y + 0.085, 0.058, 0.026)
        canvas.paint(np.clip(1.6 * nostril - 0.35, 0, 0.85), np.multiply(speaker.skin, 0.30))
    canvas.shade(-0.07 * canvas.blob(0, 0.38, 0.035, 0.08))


def _draw_beard(canvas: Canvas, speaker: Speaker, face: np.ndarray) -> None:
    if speaker.beard == 0:
        return
    jaw = np.clip((canvas.y - 0.32) / 0.25, 0, 1) * face
    lips = canvas.blob(0, MOUTH_Y, speaker.mouth_width * 1.05, 0.13) ** 2
    cheeks = np.clip(1.15 - canvas.blob(0, 0.30, 0.62, 0.22), 0, 1)
    canvas.paint(speaker.beard * 0.75 * jaw * cheeks * (1 - lips), speaker.hair)


def _draw_brows(canvas: Canvas, speaker: Speaker, rng: np.random.Generator) -> None:
    arch = rng.uniform(0.02, 0.07)
    thick = speaker.brow_thickness
    for side in (-1, 1):
        inner, outer = 0.19, 0.70
        top = [(inner, -0.41), (0.40, BROW_Y - arch), (0.56, BROW_Y - arch + 0.01), (outer, -0.33)]
        bottom = [(0.56, BROW_Y - arch + 0.02 + thick), (0.40, BROW_Y - arch + 1.6 * thick),
                  (inner + 0.01, -0.41 + 1.4 * thick)]  # fmt: skip
        brow = smooth_curve(np.array(top + bottom) * (side, 1))
        dark = _mix(speaker.hair, np.multiply(speaker.skin, 0.35), 0.35)
        canvas.paint(0.88 * canvas.cover(brow, soft=0.012), dark)


def _hair_front(canvas: Canvas, speaker: Speaker) -> np.ndarray:
    line = speaker.hairline
    part = 0.25 * np.sign(speaker.light + 0.01)
    temple = -0.35 + 0.5 * speaker.hair_length
    outline = [
        (0.0, -1.40), (0.60, -1.30), (1.00, -0.85), (1.02, temple + 0.05), (0.92, temple),
        (0.84, -0.52), (0.52, line + 0.08), (part, line - 0.10), (-0.52, line + 0.06),
        (-0.84, -0.52), (-0.92, temple), (-1.02, temple + 0.05), (-1.00, -0.85), (-0.60, -1.30),
    ]  # fmt: skip
    return canvas.cover(smooth_curve(outline), soft=0.014)


def _hair_behind(canvas: Canvas, speaker: Speaker) -> np.ndarray:
    reach = -0.2 + 1.75 * speaker.hair_length
    width = 1.03 + 0.12 * speaker.hair_length
    outline = mirrored(
        [(0.0, -1.42), (0.66, -1.30), (width, -0.8),
         (width + 0.04, 0.4 * reach), (width - 0.08, reach), (0.0, reach)]
    )  # fmt: skip
    return canvas.cover(smooth_curve(outline), soft=0.016)


def _to_bytes(rgb: np.ndarray) -> UInt8[np.ndarray, "h w 3"]:
    return np.clip(np.round(rgb), 0, 255).astype(np.uint8)
