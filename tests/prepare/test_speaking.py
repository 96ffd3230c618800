"""How much of what is heard a face speaks: its own voice, another's, nobody's."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from latentsync.data.synthetic import Speaker, truth_of, viseme_track
from latentsync.data.synthetic.speech import Voice, speak
from latentsync.media.audio import SAMPLE_RATE
from latentsync.media.frame import Picture
from latentsync.models.speaker_scorers import (
    SIDE,
    crop_squares,
    cut_square,
    film_of_faces,
    whole_box,
)
from latentsync.prepare import AlignedSegment, MeasureSpeaking
from latentsync.prepare.stage import Source
from latentsync.prepare.sync import shifted

FPS, SIZE = 25, 64
OPEN = 0.35  # the gap of a drawn mouth that is wide open, over the distance of the eyes


def spoken(seed: int, seconds: float = 6.0) -> AlignedSegment:
    """A drawn speaker's mouth and voice; the pictures are of one level each."""
    rng = np.random.default_rng(seed)
    speaker = Speaker.random(rng)
    track = viseme_track(seconds, rng)
    openings = OPEN * truth_of(track)["open"].astype(float)
    faces = [np.full((SIZE, SIZE, 3), number % 256, np.uint8) for number in range(len(openings))]
    sound = torch.from_numpy(speak(track, Voice(speaker.f0, speaker.tract), rng))
    source = Source(Path("a.mp4"), "a.mp4", "a", Path())
    turns = np.zeros(len(faces))
    return AlignedSegment(source, 0, 0, faces, turns, sound, openings=openings)


def speaking(aligned: AlignedSegment) -> float | None:
    (made,) = MeasureSpeaking(fps=FPS).run(aligned)
    share = made.measures["speaking"]
    assert not isinstance(share, str)
    return share


@pytest.mark.parametrize("seed", range(4))
def test_a_speaker_speaks_what_is_heard_and_a_listener_does_not(seed: int) -> None:
    clip = spoken(seed)
    assert speaking(clip) > 0.9
    rng = np.random.default_rng(seed)
    listening = 0.002 * rng.standard_normal(len(clip.faces)) + 0.02
    assert speaking(replace(clip, openings=listening)) < 0.1


def test_what_cannot_be_told_is_none() -> None:
    clip = spoken(0)
    unknown = np.full(len(clip.faces), np.nan)
    assert speaking(replace(clip, openings=None)) is None
    assert speaking(replace(clip, openings=unknown)) is None
    assert speaking(replace(clip, waveform=torch.zeros(len(clip.waveform)))) is None


@pytest.mark.parametrize(("seconds", "is_known"), [(0.6, False), (2.4, True)])
def test_a_word_tells_nothing(seconds: float, is_known: bool) -> None:
    clip = spoken(0)
    energy = clip.waveform.square().cumsum(0)
    length = round(seconds * SAMPLE_RATE)
    first = int((energy[length:] - energy[:-length]).argmax())
    quiet = torch.zeros_like(clip.waveform)
    quiet[first : first + length] = clip.waveform[first : first + length]
    assert (speaking(replace(clip, waveform=quiet)) is not None) == is_known


def test_the_network_sees_the_whole_aligned_face(rng: np.random.Generator) -> None:
    face = cv2.resize(rng.integers(0, 256, (8, 8, 3), np.uint8), (SIZE, SIZE))
    (square,) = crop_squares(whole_box(SIZE)[None])
    assert square == pytest.approx(SIZE / 2)
    expected = cv2.resize(cv2.cvtColor(face, cv2.COLOR_RGB2GRAY), (SIDE, SIDE))
    assert (cut_square(Picture.of(face), square) == expected).all()


@pytest.mark.parametrize("fps", [25.0, 50.0, 20.0])
def test_slots_show_the_frame_in_their_middle(fps: float) -> None:
    clip = spoken(0)
    film = film_of_faces(clip.faces, clip.waveform, fps=fps, openings=clip.openings)
    assert len(film) == round(len(clip.faces) / fps * 25)
    middles = (np.arange(len(film)) + 0.5) / 25
    assert (np.abs(film.numbers + 0.5 - middles * fps) <= 0.5 + 1e-9).all()
    shown = [picture.rgb()[0, 0, 0] for picture in film.read(film.numbers[:60].tolist())]
    assert shown == [number % 256 for number in film.numbers[:60]]


def test_a_corrected_offset_moves_the_mouth_with_its_picture() -> None:
    clip = spoken(1)
    moved = shifted(clip, 3, fps=FPS)
    assert (moved.openings == clip.openings[3:]).all()
