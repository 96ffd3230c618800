"""Frames of a synthetic speaker: draw eyes and mouth per frame, then move the head."""

from collections.abc import Iterator

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from scipy.ndimage import gaussian_filter1d

from latentsync.data.synthetic.speaker import (
    BROW_X,
    BROW_Y,
    CHIN_Y,
    EYE_X,
    EYE_Y,
    MOUTH_Y,
    TEXTURE_REACH,
    Canvas,
    Speaker,
    draw_backdrop,
    draw_head,
    smooth_curve,
)

FACE_SHARE = 0.285  # half the face's width as a fraction of the frame's side
NOSE_POINT = (0.0, 0.06)  # the mean of bridge, tip and nostrils, which the template aligns
Motion = dict[str, Float[np.ndarray, " f"]]
Mouth = dict[str, float]


class Portrait:
    """One person, ready to be drawn with any mouth shape and head pose."""

    def __init__(self, speaker: Speaker, size: int) -> None:
        self.speaker = speaker
        self.size = size
        self.texture_size = round(size * 1.4)
        self.unit = self.texture_size / (2 * TEXTURE_REACH)
        self.backdrop = cv2.resize(
            draw_backdrop(speaker, self.texture_size), (size, size), interpolation=cv2.INTER_AREA
        ).astype(np.float32)
        self.head = draw_head(speaker, self.texture_size)
        self.mouth_window = self._window(-0.66, 0.66, 0.26, 1.04)
        self.eye_window = self._window(-0.72, 0.72, -0.42, 0.04)
        self.mouth_canvas = self._canvas(self.mouth_window)
        self.eye_canvas = self._canvas(self.eye_window)
        axis = ((np.arange(size) + 0.5) / size - 0.5) / FACE_SHARE
        self.x, self.y = np.meshgrid(axis.astype(np.float32), axis.astype(np.float32))

    def frame(self, mouth: Mouth, motion: Mouth) -> UInt8[np.ndarray, "h w 3"]:
        """One RGB frame, given mouth shapes and head motion by name."""
        head = self.head.copy()
        for window, canvas, draw in (
            (self.mouth_window, self.mouth_canvas, draw_mouth),
            (self.eye_window, self.eye_canvas, draw_eyes),
        ):
            canvas.rgb = self.head[window][..., :3].astype(np.float32)
            draw(canvas, self.speaker, {**mouth, **motion})
            head[window][..., :3] = np.clip(np.round(canvas.rgb), 0, 255)
        moved = self.moved(head, mouth["open"], motion)
        alpha = moved[..., 3:].astype(np.float32) / 255
        picture = self.backdrop + alpha * (moved[..., :3] - self.backdrop)
        return np.round(picture).astype(np.uint8)

    def moved(
        self, texture: UInt8[np.ndarray, "s s c"], opening: float, motion: Mouth
    ) -> UInt8[np.ndarray, "h w c"]:
        """What a texture in face coordinates looks like on the moved head."""
        x, y = (
            ((axis + TEXTURE_REACH) * self.unit - 0.5).astype(np.float32)
            for axis in self._source(opening, motion)
        )
        return cv2.remap(texture, x, y, cv2.INTER_LINEAR)

    def _source(self, opening: float, motion: Mouth) -> tuple[np.ndarray, np.ndarray]:
        """For every pixel of the frame, the face coordinates to sample from."""
        cos, sin = (
            np.cos(motion["roll"]) / motion["scale"],
            np.sin(motion["roll"]) / motion["scale"],
        )
        x, y = self.x - motion["x"], self.y - motion["y"] - HEAD_DROP
        x, y = cos * x + sin * y, cos * y - sin * x
        depth = depth_of(x, y)
        x, y = x - motion["yaw"] * depth, y - motion["pitch"] * depth
        return x, y - jaw_drop(opening) * jaw_share(y)

    def points(self, motion: Mouth) -> Float[np.ndarray, "3 2"]:
        """Left brow, right brow and nose in frame pixels."""
        places = np.array([(-BROW_X, BROW_Y), (BROW_X, BROW_Y), NOSE_POINT])
        turned = places.copy()
        for _ in range(4):
            depth = depth_of(turned[:, 0], turned[:, 1])[:, None]
            turned = places + depth * (motion["yaw"], motion["pitch"])
        cos, sin = np.cos(motion["roll"]), np.sin(motion["roll"])
        turned = motion["scale"] * turned @ np.array([(cos, sin), (-sin, cos)])
        turned += (motion["x"], motion["y"] + HEAD_DROP)
        return ((turned * FACE_SHARE + 0.5) * self.size - 0.5).astype(np.float32)

    def _window(self, left: float, right: float, top: float, bottom: float) -> tuple[slice, slice]:
        edges = [round((edge + TEXTURE_REACH) * self.unit) for edge in (left, right, top, bottom)]
        return slice(edges[2], edges[3]), slice(edges[0], edges[1])

    def _canvas(self, window: tuple[slice, slice]) -> Canvas:
        rows, columns = window
        return Canvas(
            self.head[window][..., :3].astype(np.float32),
            unit=self.unit,
            left=columns.start / self.unit - TEXTURE_REACH,
            top=rows.start / self.unit - TEXTURE_REACH,
        )


HEAD_DROP = 0.10  # the head is a little below the middle of the frame


def depth_of(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Depth of a point of the face on an ellipsoid, so that turning moves the nose most."""
    return np.sqrt(np.clip(1 - (x / 1.25) ** 2 - (y / 1.7) ** 2, 0, 1))


def jaw_drop(opening: float) -> float:
    return 0.15 * opening


def jaw_share(y: np.ndarray) -> np.ndarray:
    """Fraction of the jaw's motion by height: 0 above the mouth, rising to 1 at the chin."""
    share = np.clip((y - MOUTH_Y) / (CHIN_Y - MOUTH_Y), 0, 1)
    return share * share * (3 - 2 * share)


class Lips:
    """Where the lips are for one mouth shape, in face coordinates."""

    def __init__(self, speaker: Speaker, mouth: Mouth) -> None:
        self.gap = gap = 0.27 * mouth["open"] * (1 - 0.15 * mouth["round"])
        self.half = speaker.mouth_width * (0.76 + 0.46 * mouth["width"] - 0.30 * mouth["round"])
        self.rim = 0.90 * self.half
        self.upper = MOUTH_Y - 0.28 * gap - 0.004
        self.lower = MOUTH_Y + 0.72 * gap + 0.004
        full = speaker.lip_fullness * (1 + 0.25 * mouth["round"] - 0.18 * mouth["width"])
        self.top, self.bottom = 0.088 * full, 0.105 * full  # thickness of the lips
        self.corner = MOUTH_Y + 0.10 * gap - 0.02 * (mouth["width"] - 0.45)

    def outer(self) -> Float[np.ndarray, "n 2"]:
        half, upper, lower = self.half, self.upper, self.lower
        return smooth_curve(
            [(-half, self.corner), (-0.62 * half, upper - 0.62 * self.top),
             (-0.24 * half, upper - self.top), (0, upper - 0.80 * self.top),
             (0.24 * half, upper - self.top), (0.62 * half, upper - 0.62 * self.top),
             (half, self.corner), (0.55 * half, lower + 0.80 * self.bottom),
             (0, lower + self.bottom), (-0.55 * half, lower + 0.80 * self.bottom)]
        )  # fmt: skip

    def inner(self) -> Float[np.ndarray, "n 2"]:
        rim, gap, upper, lower = self.rim, self.gap, self.upper, self.lower
        return smooth_curve(
            [(-rim, self.corner), (-0.5 * rim, upper + 0.10 * gap), (0, upper),
             (0.5 * rim, upper + 0.10 * gap), (rim, self.corner), (0.52 * rim, lower - 0.14 * gap),
             (0, lower), (-0.52 * rim, lower - 0.14 * gap)]
        )  # fmt: skip


def draw_mouth(canvas: Canvas, speaker: Speaker, mouth: Mouth) -> None:
    """Draw lips, cavity, teeth and tongue."""
    shape = Lips(speaker, mouth)
    half, bottom_lip, rim, gap = shape.half, shape.bottom, shape.rim, shape.gap
    upper, lower = shape.upper, shape.lower
    lips = canvas.cover(shape.outer(), soft=0.008)
    canvas.shade(-0.20 * canvas.blob(0, lower + bottom_lip + 0.055, 0.75 * half, 0.045))
    canvas.paint(0.94 * lips, speaker.lips)
    below = np.clip((canvas.y - MOUTH_Y) / 0.02 + 0.5, 0, 1)
    canvas.shade(lips * (-0.20 * (1 - below) + 0.03 * below))
    shine = canvas.blob(0, lower + 0.42 * bottom_lip, 0.45 * half, 0.26 * bottom_lip)
    canvas.paint(0.30 * lips * shine, (255, 235, 228))
    edge = canvas.blob(0, lower + bottom_lip, half, 0.35 * bottom_lip)
    canvas.shade(-0.10 * lips * edge)
    hole = canvas.cover(shape.inner(), soft=0.005)
    canvas.paint(hole, np.multiply((62, 18, 20), 1.0))
    _draw_tongue(canvas, hole, lower, rim, gap, mouth["tongue"])
    _draw_teeth(canvas, hole, upper, rim, gap, mouth["teeth"])
    canvas.shade(-0.35 * hole * np.clip(1 - (canvas.y - upper) / 0.03, 0, 1))


def _draw_tongue(
    canvas: Canvas, hole: np.ndarray, lower: float, rim: float, gap: float, tongue: float
) -> None:
    rise = 0.25 + 0.45 * tongue
    hill = canvas.blob(0, lower + 0.02, 0.62 * rim, rise * gap + 0.02)
    canvas.paint(hole * np.clip(1.5 * hill - 0.25, 0, 0.9), (178, 74, 78))


def _draw_teeth(
    canvas: Canvas, hole: np.ndarray, upper: float, rim: float, gap: float, teeth: float
) -> None:
    bite = upper + 0.012 + min(0.115 * teeth, 0.85 * gap + 0.01)
    edge = bite - 0.10 * (canvas.x / rim) ** 2 * teeth
    row = np.clip((edge - canvas.y) * canvas.unit + 0.5, 0, 1)
    sides = np.clip(1.15 - (canvas.x / rim) ** 2, 0, 1)
    share = hole * row * min(1.0, 2.5 * teeth)
    gaps = 0.10 * (np.cos(canvas.x * 2 * np.pi / 0.085) > 0.93)
    canvas.paint(share, np.array((243, 238, 228)) * (0.55 + 0.45 * sides - gaps)[..., None])


def draw_eyes(canvas: Canvas, speaker: Speaker, motion: Mouth) -> None:
    """Draw eyes with gaze and blinks."""
    size = speaker.eye_size
    width = 0.175 * size
    lid = 0.088 * size * (1 - motion["blink"]) + 0.004
    for side in (-1, 1):
        centre = side * EYE_X
        almond = smooth_curve(
            [(centre - width, EYE_Y + 0.012 * -side), (centre - 0.5 * width, EYE_Y - 0.82 * lid),
             (centre, EYE_Y - lid), (centre + 0.5 * width, EYE_Y - 0.82 * lid),
             (centre + width, EYE_Y + 0.012 * side), (centre + 0.45 * width, EYE_Y + 0.5 * lid),
             (centre - 0.45 * width, EYE_Y + 0.5 * lid)]
        )  # fmt: skip
        opened = canvas.cover(almond, soft=0.004)
        canvas.paint(opened, (236, 232, 228))
        canvas.shade(-0.30 * opened * np.clip((EYE_Y - 0.3 * lid - canvas.y) / 0.04, 0, 1))
        x, y = centre + 0.05 * motion["gaze_x"], EYE_Y - 0.014 + 0.02 * motion["gaze_y"]
        radius = np.sqrt((canvas.x - x) ** 2 + (canvas.y - y) ** 2)
        edge = 1.2 * canvas.unit
        iris = np.clip((0.083 * size - radius) * edge + 0.5, 0, 1)
        pupil = np.clip((0.036 * size - radius) * edge + 0.5, 0, 1)
        canvas.paint(opened * iris, speaker.iris)
        canvas.shade(-0.4 * opened * iris * np.clip(radius / 0.08 - 0.55, 0, 1))
        canvas.paint(opened * pupil, (14, 12, 12))
        glint = np.sqrt((canvas.x - x - 0.028) ** 2 + (canvas.y - y + 0.03) ** 2)
        canvas.paint(0.9 * opened * np.clip((0.02 - glint) * edge + 0.5, 0, 1), (255, 255, 255))
        arc = almond[: 4 * 8 + 1]
        lash = np.concatenate([arc, arc[::-1] - (0, 0.024)])
        canvas.paint(0.85 * canvas.cover(lash, soft=0.004), np.multiply(speaker.skin, 0.22))
        crease = np.concatenate([arc - (0, 0.055), arc[::-1] - (0, 0.067)])
        canvas.paint(0.35 * canvas.cover(crease, soft=0.006), np.multiply(speaker.skin, 0.55))


def head_motion(num_frames: int, fps: float, rng: np.random.Generator) -> Motion:
    """Slow, smooth random motion of the head, with blinks and glances."""

    def wander(amount: float, seconds: float) -> np.ndarray:
        sigma = seconds * fps
        path = gaussian_filter1d(rng.standard_normal(num_frames + int(6 * sigma)), sigma)
        path = path[int(3 * sigma) :][:num_frames]
        return (amount * path * np.sqrt(2 * sigma * np.sqrt(np.pi))).astype(np.float32)

    blink = np.zeros(num_frames, dtype=np.float32)
    moment = rng.uniform(0.5, 3) * fps
    while moment < num_frames:
        blink += np.exp(-(((np.arange(num_frames) - moment) / (0.07 * fps)) ** 2))
        moment += rng.uniform(1.5, 5) * fps
    return {
        "x": rng.normal(0, 0.04) + wander(0.035, 0.7),
        "y": rng.normal(0, 0.03) + wander(0.025, 0.7),
        "roll": rng.normal(0, 0.03) + wander(0.035, 0.8),
        "scale": rng.uniform(0.94, 1.04) + wander(0.012, 0.9),
        "yaw": rng.normal(0, 0.05) + wander(0.07, 0.7),
        "pitch": rng.normal(0, 0.03) + wander(0.04, 0.6),
        "gaze_x": wander(0.8, 0.3),
        "gaze_y": wander(0.6, 0.3),
        "blink": np.clip(blink, 0, 0.96),
    }


def render(
    portrait: Portrait, mouth: Motion, motion: Motion
) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    """The frames of a clip; `mouth` and `motion` map names to one value per frame."""
    for index in range(len(mouth["open"])):
        yield portrait.frame(at(mouth, index), at(motion, index))


def at(traces: Motion, index: int) -> Mouth:
    """The values of all traces at one frame."""
    return {name: float(trace[index]) for name, trace in traces.items()}
