"""A clip never crosses a cut, and every frame of a recording is kept or dropped with a reason."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from coded import LOUD, SIZE, coded_sound
from latentsync.data import read_manifest
from latentsync.data.synthetic import render_clip
from latentsync.media.audio import write_wav
from latentsync.media.video import VideoWriter, open_clip, read_frames
from latentsync.prepare import Cut, Dropped, Recipe, prepare_clips
from latentsync.prepare.stage import Resampled, Source

FPS = 25
LENGTHS = [130, 30, 60]  # frames of three speakers, one after the other


@pytest.fixture(scope="module")
def film_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording that cuts from one speaker to another."""
    folder = tmp_path_factory.mktemp("film")
    (folder / "raw").mkdir()
    sound = folder / "sound.wav"
    write_wav(sound, coded_sound(sum(LENGTHS), LOUD))
    with VideoWriter(
        folder / "raw" / "film.mp4", fps=FPS, width=SIZE, height=SIZE, audio=sound
    ) as writer:
        for seed, length in enumerate(LENGTHS):
            speaker = render_clip(folder / str(seed), seed=seed, seconds=length / FPS, size=SIZE)
            frames = list(read_frames(speaker))
            assert len(frames) == length
            for frame in frames:
                writer.write(frame)
    return folder / "raw"


def dropped_rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "dropped.jsonl").read_text().splitlines()]


def speaker_of(face: np.ndarray, examples: dict[int, np.ndarray]) -> int:
    distances = {seed: np.abs(face - example).mean() for seed, example in examples.items()}
    return min(distances, key=lambda seed: distances[seed])


def test_segments_end_at_cuts_and_are_equal_within_a_shot(
    film_dir: Path, recipe: Recipe, tmp_path: Path
) -> None:
    stages = replace(recipe, max_seconds=4.0).stages()
    prepare_clips(film_dir, tmp_path / "set", stages=stages)
    clips = read_manifest(tmp_path / "set")
    assert [(clip.start_frame, clip.num_frames) for clip in clips] == [(0, 65), (65, 65), (160, 60)]
    assert len({clip.name for clip in clips}) == 3
    shown = [open_clip(clip.path).frames(range(clip.num_frames)).astype(float) for clip in clips]
    examples = {0: shown[0][0], 2: shown[2][0]}
    for faces, seed in zip(shown, [0, 0, 2], strict=True):
        assert {speaker_of(face, examples) for face in faces} == {seed}
    (row,) = dropped_rows(tmp_path / "set")
    assert (row["source"], row["stage"]) == ("film.mp4", "segment")
    assert row["reason"] == "a shot of 30 frames, 50 are needed"
    assert (row["start_frame"], row["start_seconds"], row["end_seconds"]) == (130, 5.2, 6.4)
    kept = sum(clip.num_frames for clip in clips)
    lost = round(FPS * (row["end_seconds"] - row["start_seconds"]))
    assert kept + lost == sum(LENGTHS)


def test_a_recording_without_frames_is_dropped_not_forgotten() -> None:
    source = Source(Path("a.mp4"), "a.mp4", "a", Path())
    empty = Resampled(source, 100, lambda: iter(()), torch.zeros(100 * 640))
    (dropped,) = Cut(fps=25.0, min_seconds=2.0, cut_ratio=1.8).run(empty)
    assert isinstance(dropped, Dropped)
    assert dropped.reason == "the picture ends before the time that the file's header says"
    assert (dropped.start_seconds, dropped.end_seconds) == (0, 4)


def test_a_ratio_of_nothing_is_refused(recipe: Recipe) -> None:
    with pytest.raises(ValueError, match="cut_ratio=0 must be positive"):
        replace(recipe, cut_ratio=0.0).stages()
