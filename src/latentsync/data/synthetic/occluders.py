"""What is drawn before a synthetic face, with its exact alpha: a hand, a microphone, a beard.

Hand and microphone are raised to the mouth and lowered again, so that a clip shows the mouth both
covered and free. A beard grows on the head and leaves the lips free.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from scipy.ndimage import gaussian_filter, gaussian_filter1d

from latentsync.data.synthetic.render import (
    FACE_SHARE,
    HEAD_DROP,
    Lips,
    Motion,
    Portrait,
    at,
)
from latentsync.data.synthetic.speaker import (
    MOUTH_Y,
    TEXTURE_REACH,
    Canvas,
    head_outline,
    smooth_curve,
)

Frame = UInt8[np.ndarray, "h w 3"]
Sprite = tuple[UInt8[np.ndarray, "s s 3"], UInt8[np.ndarray, "s s"]]  # colours and alpha
AWAY = (0.55, 2.6)  # from the mouth to where hand and microphone rest, out of sight
# Seconds: the move up or down, the time before the mouth, the time out of sight.
MOVING, STAYING, RESTING = (0.3, 0.45), (0.5, 1.0), (0.5, 1.1)


@dataclass(frozen=True, slots=True)
class Layer:
    """What lies before one frame: its colours, and its alpha from 0 to 255."""

    rgb: UInt8[np.ndarray, "h w 3"]
    alpha: UInt8[np.ndarray, "h w"]

    def over(self, frame: Frame) -> Frame:
        """The frame with the layer before it."""
        share = self.alpha[..., None].astype(np.float32) / 255
        return np.round(frame + share * (self.rgb - frame.astype(np.float32))).astype(np.uint8)


def draw_occluder(
    kind: str, portrait: Portrait, mouth: Motion, motion: Motion, rng: np.random.Generator
) -> Iterator[Layer]:
    """One layer per frame of the clip with this mouth and motion; `kind` is one of `OCCLUDERS`."""
    check_kind(kind)
    return OCCLUDERS[kind](portrait, mouth, motion, rng)


def draw_hand(
    portrait: Portrait, mouth: Motion, motion: Motion, rng: np.random.Generator
) -> Iterator[Layer]:
    """The palm of the speaker's hand, fingers closed."""
    side = 1 if rng.random() < 0.5 else -1
    sprite = hand_sprite(portrait)
    return _held_before_mouth(sprite, portrait, motion, rng, turn=-0.75 * side, away=side)


def draw_microphone(
    portrait: Portrait, mouth: Motion, motion: Motion, rng: np.random.Generator
) -> Iterator[Layer]:
    """A microphone that hides the lower lip and the chin."""
    side = 1 if rng.random() < 0.5 else -1
    sprite = microphone_sprite(portrait)
    return _held_before_mouth(sprite, portrait, motion, rng, turn=-0.35 * side, away=side)


def draw_beard(
    portrait: Portrait, mouth: Motion, motion: Motion, rng: np.random.Generator
) -> Iterator[Layer]:
    """A full beard in the colour of the hair, which turns with the head and leaves the lips
    free."""
    canvas = _canvas(portrait, portrait.speaker.hair)
    fibres = gaussian_filter(rng.standard_normal(canvas.x.shape), (0.05 * canvas.unit, 0.7))
    fibres /= max(float(fibres.std()), 1e-6)
    canvas.shade(0.16 * fibres)
    face = canvas.cover(head_outline(portrait.speaker), soft=0.008)
    upper_edge = np.clip((canvas.y - 0.30 - 0.25 * np.abs(canvas.x) ** 4) / 0.12, 0, 1)
    dense = np.clip(1.3 + 0.15 * fibres, 0, 1) * upper_edge * face
    rgb = _to_bytes(canvas.rgb)
    for index in range(len(mouth["open"])):
        here, moved = at(mouth, index), at(motion, index)
        outer = Lips(portrait.speaker, here).outer()
        middle = outer.mean(axis=0)
        free = canvas.cover(middle + 1.12 * (outer - middle), soft=0.012)
        alpha = np.round(255 * dense * (1 - free)).astype(np.uint8)
        texture = portrait.moved(np.dstack([rgb, alpha]), here["open"], moved)
        yield Layer(texture[..., :3], texture[..., 3])


Drawer = Callable[[Portrait, Motion, Motion, np.random.Generator], Iterator[Layer]]
OCCLUDERS: dict[str, Drawer] = {
    "hand": draw_hand,
    "microphone": draw_microphone,
    "beard": draw_beard,
}


def check_kind(kind: str | None) -> None:
    """ValueError for an occluder that cannot be drawn; None is none."""
    if kind is not None and kind not in OCCLUDERS:
        raise ValueError(f"occluder={kind} must be one of {', '.join(OCCLUDERS)}")


def with_layers(
    frames: Iterable[Frame], layers: Iterable[Layer], alphas: list[UInt8[np.ndarray, "h w"]]
) -> Iterator[Frame]:
    """The frames with their layers before them; appends the alpha of each to `alphas`."""
    for frame, layer in zip(frames, layers, strict=True):
        alphas.append(layer.alpha.copy())
        yield layer.over(frame)


def hand_sprite(portrait: Portrait) -> Sprite:
    """A hand with its fingers up, its middle at the origin."""
    skin = portrait.speaker.skin
    canvas = _canvas(portrait, np.multiply(skin, (0.97, 0.92, 0.91)))
    palm = smooth_curve(
        [(-0.40, 0.05), (0.0, -0.02), (0.40, 0.08), (0.42, 0.45), (0.30, 0.85), (0.28, 2.6),
         (-0.26, 2.6), (-0.26, 0.85), (-0.42, 0.45)]
    )  # fmt: skip
    whole = canvas.cover(palm)
    canvas.shade(0.16 * canvas.blob(0, 0.3, 0.3, 0.3) - 0.10 * canvas.blob(0.1, 0.75, 0.5, 0.2))
    thumb = ((-0.36, 0.72), (-0.62, 0.12), 0.115)
    fingers = [
        ((-0.31, 0.10), (-0.36, -0.62), 0.100),
        ((-0.10, 0.05), (-0.11, -0.80), 0.105),
        ((0.11, 0.06), (0.13, -0.74), 0.102),
        ((0.31, 0.12), (0.37, -0.52), 0.090),
    ]
    for base, tip, half in (thumb, *fingers):
        cover = canvas.cover(_capsule(base, tip, half))
        around = cv2.GaussianBlur(cover, (0, 0), 0.03 * canvas.unit)
        canvas.shade(-0.28 * around * (1 - cover))
        canvas.shade(cover * (0.5 * around**2 - 0.42))
        whole = np.maximum(whole, cover)
    return _to_bytes(canvas.rgb), np.round(255 * whole).astype(np.uint8)


def microphone_sprite(portrait: Portrait) -> Sprite:
    """A microphone that points up, the middle of its head at the origin."""
    canvas = _canvas(portrait, (52.0, 52.0, 56.0))
    handle = smooth_curve(
        [(-0.17, 0.2), (0.17, 0.2), (0.13, 0.9), (0.12, 2.8), (-0.12, 2.8), (-0.13, 0.9)]
    )
    whole = canvas.cover(handle)
    canvas.shade(0.7 * canvas.blob(-0.05, 1.2, 0.05, 1.2))
    angles = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    head = 0.27 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    cover = canvas.cover(head)
    mesh = np.sin(canvas.x * 2 * np.pi / 0.06) * np.sin(canvas.y * 2 * np.pi / 0.06)
    canvas.paint(cover, (128, 130, 134))
    canvas.shade(cover * (0.35 * mesh + 0.6 * canvas.blob(-0.08, -0.09, 0.15, 0.15) - 0.2))
    ring = canvas.cover(np.array([(-0.2, 0.2), (0.2, 0.2), (0.19, 0.29), (-0.19, 0.29)]))
    canvas.paint(ring, (170, 168, 160))
    whole = np.maximum(np.maximum(whole, cover), ring)
    return _to_bytes(canvas.rgb), np.round(255 * whole).astype(np.uint8)


def _held_before_mouth(
    sprite: Sprite,
    portrait: Portrait,
    motion: Motion,
    rng: np.random.Generator,
    *,
    turn: float,
    away: int,
) -> Iterator[Layer]:
    """The sprite raised to the mouth and lowered to the side `away`, again and again."""
    num_frames = len(motion["x"])
    lowered = 1 - raised(num_frames, rng)
    sway = gaussian_filter1d(rng.standard_normal((num_frames, 3)), 6, axis=0)
    middle = np.array([0.05 * away, 0.16]) + rng.normal(0, 0.04, 2)
    rgb, alpha = sprite
    for index in range(num_frames):
        here = at(motion, index)
        x = here["x"] + middle[0] + lowered[index] * AWAY[0] * away + 0.08 * sway[index, 0]
        y = here["y"] + middle[1] + lowered[index] * AWAY[1] + 0.08 * sway[index, 1]
        angle = turn + 0.25 * sway[index, 2] + 0.4 * turn * lowered[index]
        matrix = _placed(portrait, x, y + HEAD_DROP + MOUTH_Y, angle)
        size = (portrait.size, portrait.size)
        yield Layer(
            cv2.warpAffine(rgb, matrix, size, borderMode=cv2.BORDER_REPLICATE),
            cv2.warpAffine(alpha, matrix, size),
        )


def raised(num_frames: int, rng: np.random.Generator, *, fps: float = 25.0) -> np.ndarray:
    """How far the hand is raised in every frame, 0 to 1: it starts and rests at 0."""
    knots, heights, now = [0.0], [0.0], 0.0
    while now * fps < num_frames:
        for seconds, height in ((RESTING, 0), (MOVING, 1), (STAYING, 1), (MOVING, 0)):
            now += rng.uniform(*seconds)
            knots.append(now)
            heights.append(float(height))
    straight = np.interp(np.arange(num_frames) / fps, knots, heights)
    return straight * straight * (3 - 2 * straight)


def _placed(portrait: Portrait, x: float, y: float, angle: float) -> Float[np.ndarray, "2 3"]:
    """Pixels of a sprite => pixels of the frame, with the sprite's origin at (x, y)."""
    scale = FACE_SHARE * portrait.size / portrait.unit
    turned = scale * np.array(
        [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]], dtype=np.float64
    )
    origin = np.full(2, TEXTURE_REACH * portrait.unit - 0.5)
    target = (np.array([x, y]) * FACE_SHARE + 0.5) * portrait.size - 0.5
    return np.column_stack([turned, target - turned @ origin])


def _capsule(
    base: tuple[float, float], tip: tuple[float, float], half: float
) -> Float[np.ndarray, "n 2"]:
    """The outline of a finger from `base` to `tip`."""
    along = np.subtract(tip, base)
    along /= np.linalg.norm(along)
    across = np.array([-along[1], along[0]])
    angles = np.linspace(0, np.pi, 17)[:, None]
    end = tip + 0.9 * half * (np.cos(angles) * across + np.sin(angles) * along)
    start = base - half * (np.cos(angles) * across + np.sin(angles) * along)
    return np.concatenate([end, start])


def _canvas(portrait: Portrait, colour: object) -> Canvas:
    red, green, blue = np.asarray(colour, dtype=float)
    return Canvas.blank(portrait.texture_size, (float(red), float(green), float(blue)))


def _to_bytes(rgb: np.ndarray) -> UInt8[np.ndarray, "h w 3"]:
    return np.clip(np.round(rgb), 0, 255).astype(np.uint8)
