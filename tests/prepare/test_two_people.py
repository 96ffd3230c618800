"""Two people in one shot: each has clips of their own, and no second counts twice."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from coded import LOUD, RESOLUTION, coded_sound
from latentsync.faces import Face, FaceDetector
from latentsync.media.audio import write_wav
from latentsync.media.video import VideoWriter, open_clip
from latentsync.prepare import LocalExecutor, Recipe, prepare_clips
from latentsync.prepare.accounts import accounts_of

HEIGHT, WIDTH, NUM_FRAMES = 128, 256, 120
POINTS = np.array([[30.0, 50.0], [58.7, 50.0], [44.35, 64.0]])  # brows and nose, on the left
TO_THE_RIGHT = np.array([120.0, 0.0])
RED, GREEN = (200, 40, 40), (40, 200, 40)


class Coloured(FaceDetector):
    """Whoever is red on the left, and whoever is green on the right, who is smaller."""

    def __call__(self, frame: np.ndarray) -> list[Face]:
        red = Face(np.array([14.0, 10, 80, 110]), POINTS, 1.0, "three")
        green = Face(np.array([140.0, 20, 190, 100]), POINTS + TO_THE_RIGHT, 1.0, "three")
        return [face for face in (green, red) if self.refine(frame, face)]

    def refine(self, frame: np.ndarray, face: Face) -> Face | None:
        x, y = face.points.mean(axis=0).astype(int)
        levels = frame[y, x].astype(int)
        strong = 0 if face.box[0] < 100 else 1
        return face if levels[strong] > levels[1 - strong] + 60 else None


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """Red leaves after 80 frames; green comes after 40."""
    path = tmp_path / "raw" / "two.mp4"
    path.parent.mkdir()
    sound = tmp_path / "sound.wav"
    write_wav(sound, coded_sound(NUM_FRAMES, LOUD))
    with VideoWriter(path, fps=25, width=WIDTH, height=HEIGHT, audio=sound, crf=4) as writer:
        for number in range(NUM_FRAMES):
            frame = np.full((HEIGHT, WIDTH, 3), 100, np.uint8)
            if number < 80:
                frame[40:80, 26:64] = RED
            if number >= 40:
                frame[40:80, 146:184] = GREEN
            writer.write(frame)
    return path.parent


@pytest.fixture
def recipe() -> Recipe:
    return Recipe(
        make_detector=Coloured, resolution=RESOLUTION, occlusion=None, identity=None, cut_ratio=50.0
    )


def test_each_of_two_has_clips(film: Path, recipe: Recipe, tmp_path: Path) -> None:
    outcomes = prepare_clips(film, tmp_path / "set", stages=recipe.stages())
    first, second = outcomes[0].clips
    assert second.name == f"{first.name}_1"
    assert (first.start_frame, first.num_frames) == (0, 80)
    # Somebody who comes is found within five frames.
    assert 40 <= second.start_frame <= 45
    assert second.start_frame + second.num_frames == NUM_FRAMES
    for clip, strong in ((first, 0), (second, 1)):
        levels = open_clip(clip.path).frames(range(clip.num_frames)).astype(int)
        middle = levels[:, 20:40, 20:40].mean(axis=(1, 2))
        assert (middle[:, strong] > middle[:, 1 - strong] + 60).all()
    # Seconds of two clips count once.
    (account,) = accounts_of(outcomes)
    assert (account.total, account.kept, account.missing) == pytest.approx((4.8, 4.8, 0))
    assert (tmp_path / "set" / "dropped.jsonl").read_text() == ""


def test_one_can_be_followed(film: Path, recipe: Recipe, tmp_path: Path) -> None:
    stages = replace(recipe, max_people=1).stages()
    (outcome,) = prepare_clips(film, tmp_path / "set", stages=stages)
    assert [(clip.start_frame, clip.num_frames) for clip in outcome.clips] == [(0, 80)]
    # Green alone is there for too short a time.
    (line,) = (tmp_path / "set" / "dropped.jsonl").read_text().splitlines()
    dropped = json.loads(line)
    assert (dropped["start_seconds"], dropped["end_seconds"]) == (3.2, 4.8)


def test_processes_make_the_same_files(film: Path, recipe: Recipe, tmp_path: Path) -> None:
    stages, made = recipe.stages(), []
    for name, executor in (("one", None), ("pool", LocalExecutor(num_workers=2))):
        prepare_clips(film, tmp_path / name, stages=stages, executor=executor)
        files = sorted((tmp_path / name).glob("*/*.*"))
        made.append({path.name: path.read_bytes() for path in files})
    assert made[0] == made[1]
    assert len(made[0]) == 4


def test_nobody_is_no_number_of_people(recipe: Recipe) -> None:
    with pytest.raises(ValueError, match="max_people=0: 1 or more people are followed"):
        replace(recipe, max_people=0).stages()
