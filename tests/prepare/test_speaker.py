"""Recordings that cannot teach one speaker are refused, with what is wrong and the remedy."""

from pathlib import Path

import numpy as np
import pytest
import torch

from latentsync.faces import Face, FaceDetector
from latentsync.media.audio import SAMPLE_RATE, write_wav
from latentsync.media.video import VideoWriter
from latentsync.prepare import Demands, Part
from latentsync.prepare.speaker import check_persons, check_sound, persons_in, speech_seconds
from latentsync.prepare.stage import Dropped, Resampled, Source

SIZE = 128


def film(path: Path, waveform: torch.Tensor | None, seconds: float = 2.0) -> Path:
    audio = None
    if waveform is not None:
        audio = path.with_suffix(".wav")
        write_wav(audio, waveform)
    with VideoWriter(path, fps=25, width=SIZE, height=SIZE, audio=audio) as writer:
        for _ in range(int(seconds * 25)):
            writer.write(np.full((SIZE, SIZE, 3), 90, np.uint8))
    return path


def noise(seconds: float, level: float) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return level * torch.randn(int(seconds * SAMPLE_RATE), generator=generator)


def test_dead_sound_and_none_are_refused(tmp_path: Path):
    with pytest.raises(ValueError, match=r"dead\.mp4 is dead \(-\d+ dB"):
        check_sound(film(tmp_path / "dead.mp4", noise(2, 1e-4)), Demands(min_seconds=1))
    with pytest.raises(ValueError, match=r"mute\.mp4 has no sound"):
        check_sound(film(tmp_path / "mute.mp4", None), Demands(min_seconds=1))


def test_too_little_speech_is_refused(tmp_path: Path):
    video = film(tmp_path / "short.mp4", noise(2, 0.1))
    check_sound(video, Demands(min_seconds=1.9))
    with pytest.raises(ValueError, match=r"holds 2\.\d s of speech, 15 s are needed"):
        check_sound(video, Demands())


def test_long_pauses_are_no_speech_and_short_ones_are():
    loud = noise(3, 0.1)
    for pause, expected in ((0.5, 6.5), (3.0, 6.0)):
        waveform = torch.cat([loud, torch.zeros(int(pause * SAMPLE_RATE)), loud])
        assert speech_seconds(waveform) == pytest.approx(expected, abs=0.1)


class Heads(FaceDetector):
    """Faces in the left and right half of a frame wherever it is not black there."""

    def __call__(self, frame: np.ndarray) -> list[Face]:
        half = frame.shape[1] // 2
        return [head(left, half) for left in (0, half) if frame[:, left : left + half].any()]


def head(left: int, width: int) -> Face:
    at = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6]]) * width + [left, 0]
    box = np.array([left, 0, left + width, width], float)
    return Face(box=box, points=at, score=1.0, scheme="three")


def frame_of(left: tuple[int, int, int], right: tuple[int, int, int]) -> np.ndarray:
    frame = np.zeros((SIZE, 2 * SIZE, 3), np.uint8)
    frame[:, :SIZE], frame[:, SIZE:] = left, right
    return frame


BLACK, ANNA, BEN = (0, 0, 0), (200, 60, 40), (30, 70, 220)


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        ([frame_of(ANNA, BLACK)] * 6, 1),
        ([frame_of(ANNA, ANNA)] * 6, 2),  # side by side: nobody is in two places
        ([frame_of(ANNA, BLACK)] * 6 + [frame_of(BEN, BLACK)] * 6, 2),  # one after another
        ([frame_of(ANNA, BLACK)] * 6 + [frame_of(BEN, BLACK)], 1),  # somebody who passes by
    ],
)
def test_people_are_counted(frames: list[np.ndarray], expected: int):
    assert persons_in(frames, Heads()) == expected


def test_two_people_are_refused(tmp_path: Path):
    with VideoWriter(tmp_path / "two.mp4", fps=25, width=2 * SIZE, height=SIZE) as writer:
        for _ in range(50):
            writer.write(frame_of(ANNA, BEN))
    with pytest.raises(ValueError, match=r"two\.mp4 shows 2 people, a model is adapted to 1: cut"):
        check_persons(tmp_path / "two.mp4", Heads(), Demands())
    check_persons(tmp_path / "two.mp4", Heads(), Demands(max_persons=None))


def test_two_parts_are_the_whole_and_share_nothing(tmp_path: Path):
    numbered = [np.full((2, 2, 3), number, np.uint8) for number in range(10)]
    waveform = torch.arange(10 * 640).float()
    source = Source(tmp_path / "a.mp4", "a.mp4", "a", tmp_path)
    whole = Resampled(source, 10, lambda: iter(numbered), waveform)
    kept: list[Resampled] = []
    for start, end in ((0.0, 0.8), (0.8, 1.0)):
        items = list(Part(fps=25, start=start, end=end).run(whole))
        kept += [item for item in items if isinstance(item, Resampled)]
        assert sum(isinstance(item, Dropped) for item in items) == 1
    shown = [[int(frame[0, 0, 0]) for frame in part.frames()] for part in kept]
    assert shown == [[0, 1, 2, 3, 4, 5, 6, 7], [8, 9]]
    assert torch.equal(torch.cat([part.waveform for part in kept]), waveform)
    assert [part.start_frame for part in kept] == [0, 8]
    with pytest.raises(ValueError, match="from one share of a recording to a later one"):
        Part(fps=25, start=0.8, end=0.8)
