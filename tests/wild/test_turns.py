"""Who speaks in real conversations, compared with labels: by LR-ASD and by mouth motion."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from wild_scores import share, turn_accuracy

from latentsync.faces import MeshDetector
from latentsync.faces.detectors.model_files import SHA256, default_cache
from latentsync.faces.tracking.survey import Survey
from latentsync.media.audio import SAMPLE_RATE, read_waveform
from latentsync.media.frame_reader import FrameReader, FrameTimes
from latentsync.media.video import probe
from latentsync.models.speaker_scorers import (
    SLOTS_PER_SECOND,
    ActiveSpeakerScorer,
    FilmSlots,
    MouthMotionScorer,
)
from latentsync.pipeline import LRASDScorer, SpeakerChoice
from latentsync.pipeline.analysis import analyze_video
from latentsync.pipeline.checks import Source
from latentsync.pipeline.speakers import find_turns, who_speaks
from latentsync.weights import load_official_lr_asd

WEIGHTS = Path(__file__).parents[3] / "shared/models/lr_asd/pretrain_AVA.model"
KINDS = [pytest.param("lr_asd", marks=pytest.mark.slow), "mouths"]
# Positions by eye: until a second of the clip, people whose centre is left of x pixels, in order.
PLACES: dict[str, list[tuple[float, list[tuple[float, str]]]]] = {
    "jd_conversation.mp4": [(99, [(350, "W"), (9999, "M")])],
    "jd_facetime.mp4": [(99, [(430, "W"), (9999, "V")])],
    "kb_bill2.mp4": [(99, [(320, "L"), (9999, "R")])],
    "kb_friends.mp4": [
        (2.2, [(60, "Ross"), (230, "Rachel"), (345, "Joey"), (9999, "Monica")]),
        (4.9, [(300, "Phoebe"), (500, "Ross"), (9999, "Rachel")]),
        (99, [(9999, "others")]),
    ],
}


@lru_cache(maxsize=8)
def analyzed(path: Path) -> tuple[Survey, FrameTimes]:
    if not all((default_cache() / name).is_file() for name in SHA256):
        pytest.skip("the face models are not fetched: python -m latentsync.faces.fetch")
    found = analyze_video(
        Source.of(path), MeshDetector(), "smooth", 256, cache=None, progress=False
    )
    return found.survey, found.times


def film_of(path: Path) -> tuple[FilmSlots, list[str]]:
    """The clip with people identified by eye, numbered in order of the accompanying names: identity
    is tested elsewhere."""
    survey, times = analyzed(path)
    reader = FrameReader(path, times)
    waveform = read_waveform(path, SAMPLE_RATE)
    film = FilmSlots.of(survey, times, waveform, reader.pictures)
    named = []
    for face in film.faces:
        middle = float(face.boxes[:, [0, 2]].mean())
        until = face.first / SLOTS_PER_SECOND
        places = next(each for seconds, each in PLACES[path.name] if until < seconds - 0.05)
        named.append(next(name for x, name in places if middle < x))
    names = sorted(set(named))
    faces = [
        replace(face, person=names.index(name))
        for face, name in zip(film.faces, named, strict=True)
    ]
    return replace(film, faces=faces), names


def accuracy(paths: Iterable[Path], labels: dict[str, dict], scorer: ActiveSpeakerScorer) -> dict:
    counts: Counter[str] = Counter()
    for path in paths:
        film, names = film_of(path)
        turns = find_turns(film, scorer)
        chosen: list[str | None] = []
        truth: list[str | None] = []
        num_faces = []
        for label in labels[path.name]["turns"]:
            first, end = (round(seconds * SLOTS_PER_SECOND) for seconds in label["seconds"])
            for slot in range(first, min(end, len(film))):
                middle = (slot + 0.5) / SLOTS_PER_SECOND
                here = {names[face.person] for face in film.faces if face.first <= slot < face.end}
                person = next((t.person for t in turns if t.start <= middle < t.end), None)
                if label["person"] is None or label["person"] in here:
                    chosen.append(None if person is None else names[person])
                    truth.append(label["person"])
                    num_faces.append(len(here))
        counts += turn_accuracy(chosen, truth, num_faces)
    slots = counts["right"] + counts["wrong"] + counts["nobody"]
    return {
        "right": share(counts["right"], slots),
        "wrong": share(counts["wrong"], slots),
        "off_screen": share(counts["off_screen_nobody"], counts["off_screen"]),
        "slots": slots,
    }


def lr_asd() -> LRASDScorer:
    if not WEIGHTS.is_file():
        pytest.skip(f"no weights of LR-ASD at {WEIGHTS}")
    return LRASDScorer(load_official_lr_asd(WEIGHTS))


@pytest.mark.slow
def test_lr_asd_says_who_speaks(labels: dict[str, dict], clips: dict[str, Path]) -> None:
    found = accuracy([clips[name] for name in PLACES], labels, lr_asd())
    assert found["slots"] > 1600
    assert found["right"] >= 0.96, found
    assert found["wrong"] <= 0.02, found
    assert found["off_screen"] >= 0.95, found


@pytest.mark.slow
def test_mouths_alone_say_who_speaks(labels: dict[str, dict], clips: dict[str, Path]) -> None:
    found = accuracy([clips[name] for name in PLACES], labels, MouthMotionScorer())
    assert found["right"] >= 0.85, found


@pytest.mark.parametrize("kind", KINDS)
def test_two_who_are_seen_all_along(
    kind: str, labels: dict[str, dict], clips: dict[str, Path]
) -> None:
    scorer = lr_asd() if kind == "lr_asd" else MouthMotionScorer()
    found = accuracy([clips["kb_bill2.mp4"]], labels, scorer)
    assert found["slots"] > 200
    assert found["right"] >= 0.96, found


@pytest.mark.parametrize("kind", KINDS)
def test_silence_tells_nobody(kind: str, clips: dict[str, Path]) -> None:
    path = clips["lp_s32.mp4"]
    scorer = lr_asd() if kind == "lr_asd" else None
    survey, times = analyzed(path)
    with pytest.raises(ValueError, match="cannot tell who speaks"):
        who_speaks(probe(path), survey, times, SpeakerChoice(scorer))


def test_slots_of_a_clip_cover_its_time(clips: dict[str, Path]) -> None:
    film, _ = film_of(clips["kb_bill2.mp4"])
    _, times = analyzed(clips["kb_bill2.mp4"])
    assert abs(len(film) / SLOTS_PER_SECOND - times.seconds) <= 0.5 / SLOTS_PER_SECOND
    assert (np.diff(film.numbers) > 0).all()
