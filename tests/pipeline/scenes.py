"""A synthetic film of 20 s with typical difficulties, and the ground truth of each frame.

Two people, three cuts, a second of black, a second of the back of a head, about 30 frames per
second at uneven times. Seconds: 0-6 the first person (3-4 from behind), 6-10 both side by side,
10-15 the second (12-13 black), 15-20 the first again. The person heard is the one who speaks: the
first one at first, side by side and at the end, the second one in between.
"""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int64, UInt8

from latentsync.data.synthetic.render import FACE_SHARE, HEAD_DROP, Portrait, at, head_motion
from latentsync.data.synthetic.speaker import Speaker
from latentsync.data.synthetic.speech import TRACK_RATE, Track, Voice, speak, viseme_track
from media.sources import write_media

SECONDS = 20
WIDTH, HEIGHT = 384, 192
SIDE = 192  # of the square in which a person is drawn
SEEDS = (900011, 900016)
CUTS = (6.0, 10.0, 15.0)
BLACK, BEHIND = (12.0, 13.0), (3.0, 4.0)
# By shot: the left edge of each person's square, None if they are absent.
PLACES: tuple[tuple[int | None, int | None], ...] = ((96, None), (0, 192), (None, 120), (64, None))
HEARD = (0, 0, 1, 0)
SOUND_RATE = 16000


@dataclass(frozen=True, slots=True)
class Scene:
    """The film and its ground truth; `n` frames, two people.

    `starts` and `end` are milliseconds. `cuts` are the first frames of all shots but the first.
    `faces` states whose face is visible; if it is, `points` are left brow, right brow and nose in
    pixels, and `openings` the mouth's, in about [0, 1]: both are NaN otherwise. `behind` and
    `black` are the frames with a head seen from behind, and without a picture. `heard` is the
    person whose voice is in the film.
    """

    video: Path
    starts: Int64[np.ndarray, " n"]
    end: int
    cuts: tuple[int, ...]
    faces: Bool[np.ndarray, "n 2"]
    points: Float[np.ndarray, "n 2 3 2"]
    openings: Float[np.ndarray, "n 2"]
    behind: Bool[np.ndarray, " n"]
    black: Bool[np.ndarray, " n"]
    heard: Int64[np.ndarray, " n"]

    @property
    def num_frames(self) -> int:
        return len(self.starts)


class Person:
    """Somebody who speaks for the whole film, seen from the front or from behind."""

    def __init__(self, seed: int, seconds: Float[np.ndarray, " n"]) -> None:
        rng = np.random.default_rng(seed)
        self.portrait = Portrait(Speaker.random(rng), SIDE)
        self.track: Track = viseme_track(SECONDS, rng)
        self.motion = head_motion(len(seconds), len(seconds) / SECONDS, rng)
        times = np.arange(len(self.track["open"])) / TRACK_RATE
        self.mouth = {
            name: np.interp(seconds, times, self.track[name]).astype(np.float32)
            for name in ("open", "width", "round", "teeth", "tongue")
        }
        voice = Voice(self.portrait.speaker.f0, self.portrait.speaker.tract)
        self.sound = speak(self.track, voice, rng)
        self.back = self.from_behind(rng)

    def from_behind(self, rng: np.random.Generator) -> UInt8[np.ndarray, "s s 3"]:
        """The head's outline filled with hair, which hides the whole face."""
        shape = (SIDE, SIDE)
        cover = cv2.resize(self.portrait.head[..., 3], shape, interpolation=cv2.INTER_AREA) / 255
        down = np.array([[1.0, 0, 0], [0, 1.0, HEAD_DROP * FACE_SHARE * SIDE]])
        cover = cv2.warpAffine(cover.astype(np.float32), down, shape)[..., None]
        strands = cv2.GaussianBlur(rng.normal(0, 60, shape), (0, 0), sigmaX=0.7, sigmaY=9)
        hair = np.clip(np.asarray(self.portrait.speaker.hair) + strands[..., None], 0, 255)
        backdrop = self.portrait.backdrop
        return np.round(backdrop + cover * (hair - backdrop)).astype(np.uint8)

    def frame(self, index: int) -> UInt8[np.ndarray, "s s 3"]:
        return self.portrait.frame(at(self.mouth, index), at(self.motion, index))

    def points(self, index: int) -> Float[np.ndarray, "3 2"]:
        return self.portrait.points(at(self.motion, index))


def draw_scene(folder: Path) -> Scene:
    """Write FOLDER/scene.mp4 (H.264, AAC), always the same film, and return its ground truth."""
    starts = uneven_starts(np.random.default_rng(5))
    seconds = starts / 1000
    shot = np.searchsorted(CUTS, seconds, side="right")
    people = [Person(seed, seconds) for seed in SEEDS]
    black, behind = (((low <= seconds) & (seconds < high)) for low, high in (BLACK, BEHIND))
    there = np.array([[left is not None for left in PLACES[number]] for number in shot])
    faces = there & ~black[:, None] & ~behind[:, None]
    points = np.full((len(starts), 2, 3, 2), np.nan)
    openings = np.full((len(starts), 2), np.nan)
    pictures = []
    for index, number in enumerate(shot):
        pictures.append(picture(people, index, PLACES[number], black[index], behind[index]))
        for who in np.flatnonzero(faces[index]):
            corner = (PLACES[number][who], 0)
            points[index, who] = people[who].points(index) + corner
            openings[index, who] = people[who].mouth["open"][index]
    times = [Fraction(int(start), 1000) for start in starts]
    video = write_media(
        folder / "scene.mp4",
        pictures,
        times=lambda index: times[index],
        sound=mixed([person.sound for person in people])[None],
        rate=SOUND_RATE,
        prepare=quick,
    )
    return Scene(
        video=video,
        starts=starts,
        end=SECONDS * 1000,
        cuts=tuple(int(cut) for cut in np.searchsorted(seconds, CUTS)),
        faces=faces,
        points=points,
        openings=openings,
        behind=behind,
        black=black,
        heard=np.array(HEARD)[shot],
    )


def uneven_starts(rng: np.random.Generator) -> Int64[np.ndarray, " n"]:
    """Milliseconds at which 600 frames start: each is shown for 20 to 50 ms."""
    holds = rng.integers(20, 48, 30 * SECONDS)
    starts = np.concatenate([[0], np.cumsum(holds)[:-1]])
    # The last frame is shown for the length of a frame as well.
    return np.round(starts * ((SECONDS * 1000 - 33) / starts[-1])).astype(np.int64)


def picture(
    people: list[Person],
    index: int,
    places: tuple[int | None, int | None],
    is_black: bool,
    is_behind: bool,
) -> UInt8[np.ndarray, "h w 3"]:
    """One frame: the squares of all people present, with edges extended to the frame's."""
    if is_black:
        return np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
    filled = np.zeros((HEIGHT, 0, 3), dtype=np.uint8)
    for person, left in zip(people, places, strict=True):
        if left is None:
            continue
        square = person.back if is_behind else person.frame(index)
        gap = left - filled.shape[1]
        filled = np.hstack([filled, cv2.copyMakeBorder(square, 0, 0, gap, 0, cv2.BORDER_REPLICATE)])
    return cv2.copyMakeBorder(filled, 0, 0, 0, WIDTH - filled.shape[1], cv2.BORDER_REPLICATE)


def mixed(sounds: list[np.ndarray]) -> Float[np.ndarray, " t"]:
    """The voice of the person heard in each shot."""
    edges = [0, *(round(cut * SOUND_RATE) for cut in CUTS), SECONDS * SOUND_RATE]
    parts = [
        sounds[who][first:end] for who, first, end in zip(HEARD, edges, edges[1:], strict=False)
    ]
    return np.concatenate(parts)


def quick(stream: object) -> None:
    stream.options = {"preset": "ultrafast", "crf": "16"}
