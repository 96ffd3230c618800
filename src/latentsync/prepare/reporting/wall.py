"""Clips and dropped parts as small pictures: first, middle and last frame, and how loud it is."""

import base64
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from latentsync.data.clips import Clip
from latentsync.files import printable, publish
from latentsync.media.audio import SAMPLE_RATE, read_waveform
from latentsync.media.container import UNREADABLE, ignore
from latentsync.media.silence import BLOCK_SECONDS, levels_db
from latentsync.media.video import glance_at_frames, open_clip, read_frames
from latentsync.prepare.reporting.funnel import Bounds

SIDE = 96
JPEG_QUALITY = 80
NUM_SHOWN = 3
NUM_POINTS = 64
SOUND_WIDTH, SOUND_HEIGHT = 300, 24
QUIETEST_DB = -60.0
# Of a source that goes on for longer, the sound is not read for a picture.
MAX_SOUND_SECONDS = 900.0
# Between keyframes of a recording there are 10 s and more.
FAR_SECONDS, PASS_FPS = 10.0, 25


@dataclass(frozen=True, slots=True)
class Look:
    """`picture` is a JPEG in base64, None if none could be read; `sound` the outline of its level
    as an SVG path."""

    picture: str | None
    sound: str
    level: str


class Looks:
    """Those of a set, kept in a file between its pages: a page with other limits reads no video."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._before: dict[str, dict] = {}
        self._now: dict[str, Look] = {}
        self._levels: dict[Path, Float[np.ndarray, " n"]] = {}
        with suppress(FileNotFoundError, ValueError):
            self._before = json.loads(path.read_text(encoding="utf-8"))

    def of_clip(self, clip: Clip) -> Look:
        """A prepared clip, from its own file."""
        return self._look(clip.path, "", lambda: look_of_clip(clip))

    def of_part(self, path: Path, bounds: Bounds) -> Look:
        """A part of a recording that became no clip, from the recording."""
        name = f" {bounds[0]:.3f} {bounds[1]:.3f}"
        return self._look(path, name, lambda: self._look_of_part(path, bounds))

    def _look_of_part(self, path: Path, bounds: Bounds) -> Look:
        if path not in self._levels:
            self._levels[path] = _levels(path)
        start, end = (round(bound / BLOCK_SECONDS) for bound in bounds)
        heard = self._levels[path] if bounds[1] <= MAX_SOUND_SECONDS else np.zeros(0)
        return _look(_frames(path, bounds), heard[start:end])

    def save(self) -> None:
        """Keep those that were asked for."""
        with publish(self.path) as partial:
            looks = {name: asdict(look) for name, look in self._now.items()}
            partial.write_text(json.dumps(looks), encoding="utf-8")

    def _look(self, path: Path, part: str, make: Callable[[], Look]) -> Look:
        try:
            status = path.stat()
        except OSError:
            return Look(None, "", "sound not read")
        name = f"{printable(path)} {status.st_size} {status.st_mtime_ns}{part}"
        before = self._before.get(name)
        self._now[name] = make() if before is None else Look(**before)
        return self._now[name]


def look_of_clip(clip: Clip) -> Look:
    shown = np.linspace(0, clip.num_frames - 1, NUM_SHOWN).round().astype(int)
    try:
        frames = list(open_clip(clip.path).frames(shown))
        waveform = read_waveform(clip.path, on_damage=ignore, on_cut=ignore)
        levels = levels_db(waveform, SAMPLE_RATE)
    except UNREADABLE:
        frames, levels = [], np.zeros(0)
    return _look(frames, levels)


def _look(frames: Sequence[UInt8[np.ndarray, "h w 3"]], levels: Float[np.ndarray, " n"]) -> Look:
    picture = base64.b64encode(strip(frames)).decode("ascii") if frames else None
    if not len(levels):
        return Look(picture, "", "sound not read")
    loudest = float(levels.max())
    level = f"up to {loudest:.0f} dB" if loudest > QUIETEST_DB else "silent"
    return Look(picture, outline(levels), level)


def strip(frames: Sequence[UInt8[np.ndarray, "h w 3"]]) -> bytes:
    """The frames side by side, the middle square of each, as a JPEG."""
    cells = []
    for frame in frames:
        height, width = frame.shape[:2]
        side = min(height, width)
        top, first = (height - side) // 2, (width - side) // 2
        square = frame[top : top + side, first : first + side]
        cells.append(cv2.resize(square, (SIDE, SIDE), interpolation=cv2.INTER_AREA))
    written, jpeg = cv2.imencode(
        ".jpg", np.concatenate(cells, axis=1)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    )
    assert written
    return jpeg.tobytes()


def outline(levels: Float[np.ndarray, " n"]) -> str:
    """The level over time as the outline of an area: the loudest of each of NUM_POINTS spans."""
    spans = np.array_split(levels, min(NUM_POINTS, len(levels)))
    loudness = np.array([1 - span.max() / QUIETEST_DB for span in spans]).clip(0, 1)
    places = (np.arange(len(spans)) + 0.5) / len(spans) * SOUND_WIDTH
    points = [
        f"{x:.1f} {SOUND_HEIGHT * (1 - each):.1f}" for x, each in zip(places, loudness, strict=True)
    ]
    return f"M0 {SOUND_HEIGHT}L{'L'.join(points)}L{SOUND_WIDTH} {SOUND_HEIGHT}Z"


def _frames(path: Path, bounds: Bounds) -> list[UInt8[np.ndarray, "h w 3"]]:
    """The first, middle and last frame of a part; fewer where the file breaks off."""
    start, end = bounds
    last = max(end - 0.08, start)
    if end - start < FAR_SECONDS:
        return _in_one_pass(path, start, last)
    frames = []
    for at in (start, (start + last) / 2, last):
        try:
            frames += list(read_frames(path, start_seconds=at, num_frames=1))
        except UNREADABLE:
            break
    return frames


def _in_one_pass(path: Path, start: float, last: float) -> list[UInt8[np.ndarray, "h w 3"]]:
    """Three frames that are so near that decoding on takes less than seeking."""
    wanted = np.linspace(0, round((last - start) * PASS_FPS), NUM_SHOWN).round().astype(int)
    frames: list[UInt8[np.ndarray, "h w 3"]] = []
    with suppress(*UNREADABLE):
        passing = glance_at_frames(path, fps=PASS_FPS, start_seconds=start)
        for number, frame in enumerate(passing):
            frames += [frame.rgb()] * int((wanted == number).sum())
            if number == wanted[-1]:
                break
    return frames


def _levels(path: Path) -> Float[np.ndarray, " n"]:
    """Of a recording's sound, in dB of full scale, of every block."""
    try:
        waveform = read_waveform(
            path, on_damage=ignore, on_cut=ignore, max_seconds=MAX_SOUND_SECONDS
        )
    except UNREADABLE:
        return np.zeros(0)
    return levels_db(waveform, SAMPLE_RATE)
