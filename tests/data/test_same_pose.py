"""References in which the head is turned as in the window."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from latentsync.data import Clip, ClipDataset, Items
from latentsync.data.windows import choose_reference_start

LENGTH = 4


def chosen(turns: np.ndarray, start: int, rng: np.random.Generator, **more) -> set[int]:
    many = (
        choose_reference_start(len(turns), LENGTH, start=start, rng=rng, turns=turns, **more)
        for _ in range(500)
    )
    return set(many)


def test_they_are_the_quarter_that_is_turned_most_alike(rng):
    """A head that turns by one degree per frame: the most similar windows are the nearest allowed
    ones."""
    turns = np.arange(24.0)
    # Starts 4 to 20 share no frame with the window at 0; the nearest 5 of these 17 are 4 to 8.
    assert chosen(turns, 0, rng) == {4, 5, 6, 7, 8}
    # A gap takes precedence.
    assert chosen(turns, 0, rng, gap=(10, 24)) == {10, 11, 12}


def test_a_head_that_turns_back_is_alike_again(rng):
    turns = np.repeat([0.0, 40.0, 0.0], 8)
    assert chosen(turns, 1, rng) == {16, 17, 18, 19, 20}


def test_what_nobody_knows_is_passed_over_and_without_anything_known_all_may_be(rng):
    turns = np.arange(24.0)
    turns[5] = np.nan  # in the windows at 4 and 5; 2 and 3 share frames with that at 0
    assert chosen(turns, 0, rng) == {6, 7, 8, 9}
    nobody_knows = np.full(24, np.nan)
    assert chosen(nobody_knows, 0, rng) == set(range(4, 21))


def test_a_set_that_does_not_say_is_refused(clips: list[Clip]):
    with pytest.raises(ValueError, match=r"features.*safetensors does not say: prepare"):
        ClipDataset(clips, Items(same_pose=True))


def test_items_follow_what_the_features_say(clips: list[Clip], tmp_path: Path):
    clip = clips[2]
    turns = torch.zeros(clip.num_frames)
    turns[: clip.num_frames // 2] = 45.0
    path = tmp_path / "turned.safetensors"
    save_file({**load_file(clip.features_path), "turn": turns}, path)
    turned = Clip(clip.path, path, None, clip.num_frames, clip.source, 0, clip.resolution, clip.fps)
    dataset = ClipDataset([turned], Items(num_frames=LENGTH, samples_per_clip=40, same_pose=True))
    half = clip.num_frames // 2
    for index in range(len(dataset)):
        item = dataset[index]
        start = int(item["start"])
        if half - LENGTH < start < half:
            continue  # it turns within the window
        # Pictures of the coded videos encode their frame number.
        assert (frame_of(item["reference"]) < half) == (start < half)


def frame_of(pixels: torch.Tensor) -> int:
    from data.test_dataset import frame_numbers

    return int(frame_numbers(pixels)[0])
