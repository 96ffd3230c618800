"""Raw folders of drawn recordings, each with one planted defect and what must become of it."""

import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import av
import cv2
import numpy as np
import torch

from latentsync.data.synthetic import Speaker, truth_of, viseme_track
from latentsync.data.synthetic.occluders import draw_occluder, with_layers
from latentsync.data.synthetic.render import Portrait, head_motion, render
from latentsync.data.synthetic.speech import Voice, speak
from latentsync.media.audio import SAMPLE_RATE, write_wav
from latentsync.media.video import VideoWriter

SIZE, FPS, SECONDS = 256, 25, 3.0
NUM_FRAMES = round(SECONDS * FPS)
MAX_OFFSET = 8
SAMPLES = SAMPLE_RATE // FPS
NTSC = Fraction(30000, 1001)


@dataclass(frozen=True)
class Expected:
    """How many clips are kept at least and at most, and the stages and reasons of what is not.

    `offset`: frames by which the sound leads, to be found within one frame. `faces`: the colours of
    the persons' skin, of whom no clip may show two.
    """

    clips: tuple[int, int] = (1, 1)
    dropped: tuple[tuple[str, str], ...] = ()
    offset: int | None = None
    faces: tuple[tuple[float, ...], ...] = ()


KEPT = Expected(offset=0)


def gone(stage: str, reason: str) -> Expected:
    return Expected((0, 0), ((stage, reason),))


@dataclass(frozen=True)
class Film:
    frames: list[np.ndarray]
    sound: torch.Tensor | None
    fps: Fraction | int = FPS

    def save(self, path: Path, *, crf: int = 14) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        height, width = self.frames[0].shape[:2]
        with tempfile.TemporaryDirectory() as folder:
            audio = None
            if self.sound is not None:
                audio = Path(folder) / "sound.wav"
                write_wav(audio, self.sound)
            with VideoWriter(
                path, fps=self.fps, width=width, height=height, crf=crf, preset="fast", audio=audio
            ) as writer:
                for frame in self.frames:
                    writer.write(np.ascontiguousarray(frame))
        return path

    def seen(self, change: Callable[[np.ndarray, int], np.ndarray]) -> "Film":
        """With a change of every frame, which is given its number."""
        return replace(self, frames=[change(frame, at) for at, frame in enumerate(self.frames)])

    def heard(self, sound: torch.Tensor | None) -> "Film":
        return replace(self, sound=sound)


def skin_of(seed: int) -> tuple[float, ...]:
    return tuple(map(float, Speaker.random(np.random.default_rng(seed)).skin))


@lru_cache(maxsize=4)
def filmed(
    seed: int,
    *,
    fps: Fraction | int = FPS,
    seconds: float = SECONDS,
    occluder: str | None = None,
) -> Film:
    """A speaker drawn at this rate: whatever the rate, picture and sound are of one moment."""
    rng = np.random.default_rng(seed)
    speaker = Speaker.random(rng)
    track = viseme_track(seconds, rng)
    mouth = truth_of(track, float(fps))
    motion = head_motion(len(mouth["open"]), float(fps), rng)
    portrait = Portrait(speaker, SIZE)
    frames: Iterator[np.ndarray] = render(portrait, mouth, motion)
    if occluder is not None:
        own = np.random.default_rng([seed, 1])
        frames = with_layers(frames, draw_occluder(occluder, portrait, mouth, motion, own), [])
    sound = speak(track, Voice(speaker.f0, speaker.tract), rng)
    return Film(list(frames), torch.from_numpy(sound), fps)


def with_offset(seed: int, offset: int) -> Film:
    """The sound leads by `offset` frames."""
    film = filmed(seed, seconds=SECONDS + 2 * MAX_OFFSET / FPS)
    frames = film.frames[MAX_OFFSET : MAX_OFFSET + NUM_FRAMES]
    first = (MAX_OFFSET + offset) * SAMPLES
    assert film.sound is not None
    return Film(frames, film.sound[first : first + NUM_FRAMES * SAMPLES])


def joined(*films: Film) -> Film:
    """One after the other, with a cut between them."""
    sounds = [film.sound for film in films if film.sound is not None]
    return Film([frame for film in films for frame in film.frames], torch.cat(sounds))


def side_by_side(left: Film, right: Film) -> Film:
    pairs = zip(left.frames, right.frames, strict=True)
    return replace(left, frames=[np.hstack(pair) for pair in pairs])


def first(film: Film, seconds: float) -> Film:
    assert film.sound is not None
    count = round(seconds * film.fps)
    return replace(
        film, frames=film.frames[:count], sound=film.sound[: round(seconds * SAMPLE_RATE)]
    )


def blurred(film: Film, sigma: float) -> Film:
    return film.seen(lambda frame, _: cv2.GaussianBlur(frame, None, sigma))


def lit(film: Film, levels: int, at: range) -> Film:
    def flash(frame: np.ndarray, number: int) -> np.ndarray:
        return np.clip(frame.astype(int) + levels * (number in at), 0, 255).astype(np.uint8)

    return film.seen(flash)


def noisy(film: Film, sigma: float) -> Film:
    rng = np.random.default_rng(0)
    return film.seen(
        lambda frame, _: (frame + rng.normal(0, sigma, frame.shape)).clip(0, 255).astype(np.uint8)
    )


def still(film: Film) -> Film:
    return film.seen(lambda _frame, _number: film.frames[0])


def zoomed(film: Film) -> Film:
    """Slowly enlarged, as the pictures of a documentary are."""
    rows = np.array([SIZE / 2, SIZE / 2])

    def enlarge(frame: np.ndarray, number: int) -> np.ndarray:
        matrix = cv2.getRotationMatrix2D(rows.tolist(), 0, 1 + 0.1 * number / NUM_FRAMES)
        return cv2.warpAffine(frame, matrix, (SIZE, SIZE), borderMode=cv2.BORDER_REPLICATE)

    return film.seen(enlarge)


def noise(level: float) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return level * torch.randn(NUM_FRAMES * SAMPLES, generator=generator)


def no_face(kind: str) -> Film:
    rng = np.random.default_rng(1)
    if kind == "noise":
        frames = [rng.integers(0, 256, (SIZE, SIZE, 3)).astype(np.uint8) for _ in range(NUM_FRAMES)]
    else:
        backdrop = Portrait(Speaker.random(rng), SIZE).backdrop.astype(np.uint8)
        shift = 1 if kind == "panned" else 0
        frames = [np.roll(backdrop, shift * number, axis=1) for number in range(NUM_FRAMES)]
    return Film(frames, filmed(1).sound)


def turned(film: Film, degrees: int, path: Path) -> None:
    """Stored lying, with the rotation that shows it upright."""
    lying = film.seen(lambda frame, _: np.rot90(frame, -degrees // 90)).save(
        path.with_name("lying.mp4")
    )
    with av.open(str(lying)) as given, av.open(str(path), "w") as made:
        streams = {stream.index: made.add_stream_from_template(stream) for stream in given.streams}
        streams[given.streams.video[0].index].set_display_rotation(degrees)
        for packet in given.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream_index]
                made.mux(packet)
    lying.unlink()


def cut_short(film: Film, path: Path, share: float) -> None:
    """Only the first bytes of a file."""
    whole = film.save(path)
    whole.write_bytes(whole.read_bytes()[: int(share * whole.stat().st_size)])


Make = Callable[[Path], object]


@dataclass(frozen=True)
class Planted:
    """A recording, made by `make` at a path; `name` is its path in the raw folder."""

    name: str
    make: Make
    expected: Expected


def saved(film: Callable[[], Film], **options: int) -> Make:
    return lambda path: film().save(path, **options)


def handled() -> list[Planted]:
    """What must become clips in spite of everything."""
    rates = {"24": 24, "29.97": NTSC, "30": 30, "50": 50, "60": 60}
    names = ["Größe/Übung.mp4", "視頻 一.mp4", 'it\'s "so" & 100%.mp4', "🙂.mp4"]
    return [
        *(
            Planted(
                f"rates/{name}.mp4", saved(lambda at=fps, seed=seed: filmed(seed, fps=at)), KEPT
            )
            for seed, (name, fps) in enumerate(rates.items(), start=200)
        ),
        *(
            Planted(
                f"rotated/{degrees}.mp4",
                lambda path, at=degrees: turned(filmed(210 + at // 90), at, path),
                KEPT,
            )
            for degrees in (90, 180, 270)
        ),
        *(
            Planted(name, saved(lambda seed=seed: filmed(seed)), KEPT)
            for seed, name in enumerate([*names, os.fsdecode(b"caf\xe9.mp4")], start=220)
        ),
        *(
            Planted(f"{who}/{number:05d}.mp4", saved(lambda seed=seed: filmed(seed)), KEPT)
            for seed, (who, number) in enumerate(
                [("anna", 1), ("anna", 2), ("ben", 1), ("ben", 2)], start=230
            )
        ),
        Planted("flash/bright.mp4", saved(lambda: lit(filmed(240), 70, range(30, 32))), KEPT),
        Planted("flash/one.mp4", saved(lambda: lit(filmed(241), 90, range(40, 41))), KEPT),
        Planted("blur/little.mp4", saved(lambda: blurred(filmed(242), 1.0)), KEPT),
        *(
            Planted(
                f"offsets/{offset}.mp4",
                saved(lambda at=offset: with_offset(300 + at, at)),
                replace(KEPT, clips=(0, 1), offset=offset),
            )
            for offset in range(-MAX_OFFSET, MAX_OFFSET + 1)
        ),
    ]


def people() -> list[Planted]:
    """A dark and a pale person: none of the clips may show both. One who only listens may go."""
    short = ("segment", "a shot of 25 frames, 50 are needed")
    room = ("align", "no face in any of 75 frames")
    return [
        paired("two/side_by_side.mp4", side_by_side, (41, 34), Expected((0, 2))),
        paired(
            "two/one_leaves.mp4",
            lambda one, other: side_by_side(away(one, 51), other),
            (51, 53),
            Expected((0, 2)),
        ),
        paired("two/cut.mp4", joined, (31, 29), Expected((2, 2))),
        paired(
            "cuts/short_shot.mp4",
            lambda one, other: joined(one, first(other, 1)),
            (46, 44),
            Expected((1, 1), (short,)),
        ),
        paired(
            "cuts/only_short_shots.mp4",
            lambda one, other: joined(*(first(film, 1) for film in (one, other, one))),
            (28, 32),
            Expected((0, 0), (short,) * 3),
        ),
        paired(
            "cuts/to_a_room.mp4",
            lambda one, _: joined(one, no_face("room")),
            (55, 36),
            Expected((1, 1), (room,)),
        ),
    ]


def paired(
    name: str, join: Callable[[Film, Film], Film], seeds: tuple[int, int], expected: Expected
) -> Planted:
    """A recording of two persons, who are in no other one."""
    one, other = seeds
    return Planted(
        name,
        saved(lambda: join(filmed(one), filmed(other))),
        replace(expected, faces=(skin_of(one), skin_of(other))),
    )


def away(film: Film, seed: int) -> Film:
    """Somebody who has left after 2.2 s."""
    backdrop = Portrait(Speaker.random(np.random.default_rng(seed)), SIZE).backdrop
    return film.seen(lambda frame, number: frame if number < 55 else backdrop.astype(np.uint8))


def refused() -> list[Planted]:
    """What must not become a clip, or not all of it."""
    made: dict[str, tuple[Callable[[], Film], Expected]] = {
        "no_sound/a.mp4": (
            lambda: filmed(1).heard(None),
            gone("probe", "it has no audio stream"),
        ),
        "no_sound/b.mkv": (lambda: filmed(2).heard(None), gone("probe", "it has no audio stream")),
        "silent/zeros.mp4": (
            lambda: filmed(3).heard(torch.zeros(NUM_FRAMES * SAMPLES)),
            gone("sound", "loudest_db is -120"),
        ),
        "silent/hiss.mp4": (
            lambda: filmed(4).heard(noise(3e-4)),
            gone("sound", "loudest_db is -7"),
        ),
        "silent/clipped.mp4": (
            lambda: filmed(5).heard((filmed(5).sound * 60).clamp(-1, 1)),
            gone("sound", "clipping is"),
        ),
        "silent/ends.mp4": (
            lambda: filmed(6).heard(filmed(6).sound[: 60 * SAMPLES]),
            Expected(dropped=(("resample", "picture beyond the end of the sound"),), offset=0),
        ),
        "no_face/room.mp4": (lambda: no_face("room"), gone("align", "no face in any of 75")),
        "no_face/panned.mp4": (lambda: no_face("panned"), gone("align", "no face in any of 75")),
        "no_face/noise.mp4": (lambda: no_face("noise"), gone("align", "no face in any of")),
        "blur/much.mp4": (lambda: blurred(filmed(16), 5.0), gone("quality", "blur is 0.")),
        "blur/more.mp4": (lambda: blurred(filmed(7), 6.0), gone("quality", "blur is 0.")),
        "still/exact.mp4": (lambda: still(filmed(9)), gone("quality", "motion is 0")),
        "still/noisy.mp4": (lambda: noisy(still(filmed(10)), 5), gone("quality", "motion is 0")),
        "still/zoomed.mp4": (lambda: zoomed(still(filmed(11))), gone("quality", "motion is 0")),
        "short.mp4": (lambda: first(filmed(12), 1), gone("probe", "1.00 s are less than the 2")),
    }
    return [
        *(Planted(name, saved(film), expected) for name, (film, expected) in made.items()),
        Planted(
            "broken/end_missing.mp4",
            lambda path: cut_short(filmed(13), path, 0.7),
            gone("resample", "breaks off"),
        ),
        Planted(
            "broken/cut_off.mkv",
            lambda path: cut_short(filmed(14), path, 0.9),
            gone("resample", "breaks off"),
        ),
        Planted("broken/empty.mp4", Path.touch, gone("probe", "empty (0 bytes)")),
        Planted(
            "broken/text.mp4",
            lambda path: path.write_text("no video\n" * 99),
            gone("probe", "cannot be opened"),
        ),
    ]


def copies() -> list[Planted]:
    """Recordings that are there already, as anna/00001.mp4."""
    original = 230

    def small() -> Film:
        return filmed(original).seen(
            lambda frame, _: cv2.resize(frame, (128, 128), interpolation=cv2.INTER_AREA)
        )

    twice = gone("dedupe", "same as clips/00001-")
    return [
        Planted("copies/same.mp4", saved(lambda: filmed(original)), twice),
        Planted("copies/coarse.mp4", saved(lambda: filmed(original), crf=32), twice),
        Planted("copies/small.mp4", saved(small), twice),
        Planted(
            "copies/quiet.mkv",
            saved(lambda: filmed(original).heard(0.5 * filmed(original).sound)),
            twice,
        ),
    ]


def covered() -> list[Planted]:
    """A hand or a microphone before the mouth, again and again."""
    return [
        Planted(f"covered/{kind}_{seed}.mp4", saved(partial_film(seed, kind)), Expected((0, 1)))
        for seed, kind in ((30, "hand"), (33, "hand"), (32, "microphone"))
    ]


def partial_film(seed: int, occluder: str) -> Callable[[], Film]:
    return lambda: filmed(seed, occluder=occluder)


def catalogue() -> list[Planted]:
    """All of them."""
    return [*handled(), *people(), *refused(), *copies(), *covered()]


def plant(planted: list[Planted], raw: Path) -> Path:
    """Write the recordings under a folder, which is made."""
    for each in planted:
        path = raw / each.name
        path.parent.mkdir(parents=True, exist_ok=True)
        each.make(path)
    return raw
