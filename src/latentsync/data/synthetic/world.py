"""Synthetic speakers as ordinary files: a video with sound, the sound alone, and the ground
truth."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypedDict, Unpack

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from tqdm import tqdm

from latentsync.data.synthetic.espeak import read_aloud
from latentsync.data.synthetic.occluders import check_kind, draw_occluder, with_layers
from latentsync.data.synthetic.render import Portrait, at, head_motion, render
from latentsync.data.synthetic.speaker import Speaker
from latentsync.data.synthetic.speech import (
    Track,
    Voice,
    speak,
    truth_of,
    viseme_track,
)
from latentsync.files import publish
from latentsync.media.audio import write_wav
from latentsync.media.video import VideoWriter

FPS = 25.0
CRF = 14
SPEECH = ("syllables", "espeak")


class Kind(TypedDict, total=False):
    """What all clips of a world have; as in `render_clip`."""

    occluder: str | None
    speech: str


def render_clip(
    stem: Path | str,
    *,
    seed: int,
    seconds: float,
    size: int = 256,
    occluder: str | None = None,
    speech: str = "syllables",
) -> Path:
    """Write STEM.mp4, STEM.wav and STEM.truth.npz; the seed determines the speaker and the speech.

    `occluder` draws something before the same face: "hand", "microphone" or "beard". `speech`:
    "syllables" that the mouth's shape makes, or English read by "espeak", of which another version
    may make other sounds (`latentsync.data.synthetic.espeak`).

    The truth holds per frame, at 25 fps, the mouth's `open`, `width`, `round`, `teeth` and `tongue`
    in about [0, 1], and `points`, "f 3 2": left brow, right brow and nose in pixels; with an
    occluder also its `alpha`, "f h w", from 0 to 255.
    """
    _check_speech(speech)
    stem = Path(stem)
    video_path, wav_path, truth_path = (
        stem.with_name(stem.name + suffix) for suffix in (".mp4", ".wav", ".truth.npz")
    )
    speaker, track, sound, motion = _cast(seed, seconds, speech)
    mouth = truth_of(track, FPS)
    portrait = Portrait(speaker, size)
    frames = render(portrait, mouth, motion)
    alphas: list[UInt8[np.ndarray, "h w"]] = []
    if occluder is not None:
        # Random numbers of its own, so that face and voice are those of the seed.
        own = np.random.default_rng([seed, 1])
        layers = draw_occluder(occluder, portrait, mouth, motion, own)
        frames = with_layers(frames, layers, alphas)
    write_wav(wav_path, torch.from_numpy(sound))
    with VideoWriter(
        video_path, fps=FPS, width=size, height=size, crf=CRF, audio=wav_path
    ) as writer:
        for frame in frames:
            writer.write(frame)
    points = [portrait.points(at(motion, index)) for index in range(len(mouth["open"]))]
    arrays = {**mouth, "points": np.stack(points), "fps": FPS, "seed": seed}
    if alphas:
        arrays["alpha"] = np.stack(alphas)
    save = np.savez_compressed if alphas else np.savez
    with publish(truth_path) as path, path.open("wb") as file:
        save(file, **arrays)  # type: ignore[arg-type]  # numpy types allow_pickle, no arrays
    return video_path


def _check_speech(speech: str) -> None:
    if speech not in SPEECH:
        raise ValueError(f"speech={speech}: choose {' or '.join(SPEECH)}")


def _cast(
    seed: int, seconds: float, speech: str
) -> tuple[Speaker, Track, Float[np.ndarray, " t"], dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    speaker = Speaker.random(rng)
    voice = Voice(speaker.f0, speaker.tract)
    if speech == "espeak":
        track, sound = read_aloud(seconds, voice, rng)
    else:
        track = viseme_track(seconds, rng)
    motion = head_motion(len(truth_of(track, FPS)["open"]), FPS, rng)
    if speech != "espeak":
        sound = speak(track, voice, rng)
    return speaker, track, sound, motion


def read_truth(video_path: Path | str) -> dict[str, np.ndarray]:
    """The ground truth stored next to a synthetic video."""
    video_path = Path(video_path)
    path = video_path.with_name(video_path.stem + ".truth.npz")
    if not path.is_file():
        raise FileNotFoundError(
            f"{video_path} is no drawn video: there is no {path.name} beside it"
        )
    with np.load(path) as truth:
        return dict(truth)


def faces_of(sources: Iterable[Path | str]) -> str | None:
    """The kind of faces in source videos: drawn, recorded, or both; None if any file is missing."""
    kinds = set()
    for source in map(Path, sources):
        if not source.is_file():
            return None
        truth = source.with_name(source.stem + ".truth.npz")
        kinds.add("drawn" if truth.is_file() else "recorded")
    return " and ".join(sorted(kinds)) or None


def draw_world(
    output: Path | str,
    *,
    num_speakers: int,
    seconds: float,
    size: int = 256,
    seed: int = 0,
    num_workers: int = 1,
    progress: bool = True,
    **kind: Unpack[Kind],
) -> list[Path]:
    """Draw `num_speakers` clips, each of a different person; resumes if interrupted.

    Speaker i uses seed + i, so worlds share nobody if their seeds differ by at least the number of
    speakers. `occluder` and `speech` as in `render_clip`.
    """
    occluder, speech = kind.get("occluder"), kind.get("speech", SPEECH[0])
    check_kind(occluder)
    _check_speech(speech)
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    recipe: dict[str, float | str] = {"seconds": seconds, "size": size, "seed": seed}
    if occluder is not None:
        recipe["occluder"] = occluder
    if speech != SPEECH[0]:
        recipe["speech"] = speech
    _note_recipe(output, recipe)
    stems = [output / f"{index:05d}" for index in range(num_speakers)]
    # The truth is written last: if it exists, the clip is complete.
    open_stems = [
        (index, stem)
        for index, stem in enumerate(stems)
        if not stem.with_name(stem.name + ".truth.npz").is_file()
    ]
    with tqdm(
        total=num_speakers,
        initial=num_speakers - len(open_stems),
        desc="drawing speakers",
        disable=not progress,
    ) as bar:
        draw = partial(_draw_one, seconds=seconds, size=size, **kind)
        for _ in _drawn(open_stems, seed, draw, num_workers):
            bar.update()
    return [stem.with_suffix(".mp4") for stem in stems]


def _drawn(
    stems: list[tuple[int, Path]], seed: int, draw: Callable[[Path, int], Path], num_workers: int
) -> Iterator[Path]:
    arguments = [stem for _, stem in stems], [seed + index for index, _ in stems]
    if num_workers <= 1:
        yield from map(draw, *arguments)
        return
    with ProcessPoolExecutor(num_workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(draw, *arguments)


def _draw_one(stem: Path, seed: int, **options: Any) -> Path:
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    return render_clip(stem, seed=seed, **options)


def _note_recipe(output: Path, recipe: Mapping[str, float | str]) -> None:
    path = output / "recipe.json"
    if path.is_file():
        noted = json.loads(path.read_text())
        if noted != recipe:
            raise ValueError(
                f"{output} was drawn with {noted}, this call says {recipe}: name another output"
            )
        return
    with publish(path) as partial:
        partial.write_text(json.dumps(recipe) + "\n")
