"""Windows of clips whose frames and sound encode their own number."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from coded import LOUD, frame_numbers
from latentsync.batch import Batch
from latentsync.data import Clip, ClipDataset, Items
from latentsync.data.synthetic import read_truth
from latentsync.data.windows import choose_reference_start, choose_starts

MANY = 200


@pytest.mark.parametrize("in_memory", [False, True])
@pytest.mark.parametrize("stride", [1, 3])
def test_a_window_holds_the_frames_it_says(clips: list[Clip], in_memory: bool, stride: int):
    dataset = ClipDataset(
        clips,
        Items(num_frames=8, stride=stride, with_mel=False, in_memory=in_memory, samples_per_clip=4),
    )
    for index in range(len(dataset)):
        item = dataset[index]
        first = int(item["start"])
        assert item["clip_index"] == index % 3
        assert frame_numbers(item["pixels"]) == [first + stride * step for step in range(8)]
        assert first + 7 * stride < clips[index % 3].num_frames


def test_the_reference_never_shares_a_frame(clips: list[Clip]):
    dataset = ClipDataset(clips, Items(in_memory=True, samples_per_clip=MANY))
    for index in range(MANY):
        item = dataset[index]
        assert not set(frame_numbers(item["pixels"])) & set(frame_numbers(item["reference"]))
        reference = frame_numbers(item["reference"])
        assert reference == list(range(reference[0], reference[0] + 16))


def test_starts_are_uniform_and_reach_both_ends(rng):
    starts = [
        choose_starts(48, 16, count=1, with_reference=True, rng=rng)[0] for _ in range(20_000)
    ]
    counts = torch.bincount(torch.tensor(starts), minlength=33).double()
    expected = 20_000 / 33
    assert len(counts) == 33
    # Chi-square with 32 degrees of freedom: mean 32, standard deviation 8.
    assert float(((counts - expected) ** 2 / expected).sum()) < 32 + 5 * 8


@pytest.mark.parametrize("num_available", [32, 33, 40, 47])
def test_every_start_chosen_leaves_room_for_a_reference(num_available: int, rng):
    for _ in range(200):
        (start,) = choose_starts(num_available, 16, count=1, with_reference=True, rng=rng)
        reference = choose_reference_start(num_available, 16, start=start, rng=rng)
        assert 0 <= start <= num_available - 16
        assert 0 <= reference <= num_available - 16
        assert abs(start - reference) >= 16


@pytest.mark.parametrize("gap", [(0, 0), (1, 12), (24, 40)])
def test_a_gap_says_how_far_away_the_reference_is(gap: tuple[int, int], rng):
    distances = []
    for _ in range(300):
        (start,) = choose_starts(60, 16, count=1, with_reference=True, rng=rng, gap=gap)
        reference = choose_reference_start(60, 16, start=start, rng=rng, gap=gap)
        assert 0 <= reference <= 60 - 16
        distances.append(abs(start - reference))
    assert set(distances) == set(range(gap[0], gap[1] + 1))


def test_a_gap_of_none_shows_the_window_itself(clips: list[Clip]):
    item = ClipDataset(clips, Items(reference_gap=[0, 0], in_memory=True))[1]
    assert torch.equal(item["reference"], item["pixels"])
    with pytest.raises(ValueError, match=r"got \[5, 4\]"):
        ClipDataset(clips, Items(reference_gap=[5, 4]))


def test_windows_of_one_clip_are_distinct(clips: list[Clip]):
    dataset = ClipDataset(clips, Items(windows_per_clip=4, with_reference=False, in_memory=True))
    item = dataset[1]
    assert len(set(item["start"].tolist())) == 4
    for start, pixels in zip(item["start"].tolist(), item["pixels"], strict=True):
        assert frame_numbers(pixels)[0] == start


def test_an_index_and_a_seed_are_one_item(clips: list[Clip]):
    first, second = (ClipDataset(clips, Items(samples_per_clip=10, seed=3)) for _ in range(2))
    other = ClipDataset(clips, Items(samples_per_clip=10, seed=4))
    order = [7, 0, 29, 7]
    for index in order:
        one, two = first[index], second[index]
        assert one.keys() == two.keys()
        assert all(torch.equal(one[name], two[name]) for name in one)
    starts = [[int(dataset[index]["start"]) for index in range(30)] for dataset in (first, other)]
    assert starts[0] != starts[1]


def test_a_batch_has_the_names_and_layout_of_batch(clips: list[Clip]):
    dataset = ClipDataset(clips, Items(num_frames=16))
    batch = dataset.collate([dataset[0], dataset[1]])
    assert set(batch) <= set(Batch.__annotations__)
    shapes = {name: tuple(value.shape) for name, value in batch.items()}
    assert shapes == {
        "pixels": (2, 16, 3, 64, 64),
        "reference": (2, 16, 3, 64, 64),
        "mask": (2, 16, 1, 64, 64),
        "audio": (2, 16, 20, 80),
        "mel": (2, 1, 80, 52),
        "clip_index": (2,),
        "start": (2,),
        "skipped": (2,),
    }
    assert batch["pixels"].dtype == torch.float32


def test_windows_stand_beside_each_other_in_a_batch(clips: list[Clip]):
    dataset = ClipDataset(clips, Items(windows_per_clip=3, with_reference=False))
    batch = dataset.collate([dataset[0], dataset[2]])
    assert batch["clip_index"].tolist() == [0, 0, 0, 2, 2, 2]
    assert batch["pixels"].shape == (6, 16, 3, 64, 64)
    assert batch["mel"].shape == (6, 1, 80, 52)


def test_what_is_not_asked_for_is_not_there(clips: list[Clip]):
    dataset = ClipDataset(
        clips, Items(with_pixels=False, with_reference=False, with_mel=False, with_audio=False)
    )
    assert set(dataset[0]) == {"mask", "clip_index", "start", "skipped"}


def test_sound_and_pictures_are_of_the_same_moment(clips: list[Clip]):
    """Each frame's audio states and mel columns are loud exactly where the tone is."""
    dataset = ClipDataset(clips, Items(audio_before=0, audio_after=2, samples_per_clip=MANY))
    seen = 0
    for index in range(0, MANY, 4):
        item = dataset[index]
        start = int(item["start"])
        shown = torch.tensor([start + step in LOUD for step in range(16)])
        # A frame is exactly two states of 20 ms; a spectrum extends 25 ms to both sides.
        inside = torch.tensor(
            [all(n in LOUD for n in (start + s - 1, start + s, start + s + 1)) for s in range(16)]
        )
        outside = torch.tensor(
            [not any(start + s + d in LOUD for d in (-1, 0, 1)) for s in range(16)]
        )
        loudest = item["audio"].amax(dim=(1, 2))
        assert (loudest[inside] > 0).all()
        assert (loudest[outside] == -1).all()
        # Columns are 12.5 ms apart, starting at the first frame.
        columns = item["mel"][0].amax(dim=0)
        owner = (torch.arange(52) * 25 / 80 + start).int()
        assert (columns[[int(n) - 1 in LOUD and int(n) + 1 in LOUD for n in owner]] > 0).all()
        assert (
            columns[[not {int(n) - 1, int(n), int(n) + 1} & set(LOUD) for n in owner]] == -4
        ).all()
        seen += int(shown.any())
    assert seen > 5


def test_shrinking_averages(clips: list[Clip]):
    whole = ClipDataset(clips, Items(seed=1))[0]["pixels"]
    small = ClipDataset(clips, Items(seed=1, resolution=32))[0]["pixels"]
    averaged = torch.nn.functional.avg_pool2d(whole, 2)
    torch.testing.assert_close(small, averaged, atol=1.01 / 127.5, rtol=0)


def test_growing_is_refused_with_both_sizes(clips: list[Clip]):
    with pytest.raises(ValueError, match=r"64 pixels, resolution=128"):
        ClipDataset(clips, Items(resolution=128))


def test_clips_too_short_for_window_and_reference_are_named(clips: list[Clip]):
    with pytest.raises(ValueError, match=r"1 of 3 clips have fewer than the 64 frames"):
        ClipDataset(clips, Items(num_frames=32))


def test_mel_with_gaps_between_frames_is_refused(clips: list[Clip]):
    with pytest.raises(ValueError, match="stride is 2"):
        ClipDataset(clips, Items(stride=2))


def test_truth_is_the_source_s_at_the_frames_shown(talking_clip: Path, clips: list[Clip]):
    truth = read_truth(talking_clip)
    clip = replace(clips[0], source=str(talking_clip), start_frame=5)
    dataset = ClipDataset([clip], Items(with_truth=True, samples_per_clip=5))
    for index in range(5):
        item = dataset[index]
        rows = 5 + int(item["start"]) + torch.arange(16).numpy()
        for column, name in enumerate(("open", "width", "round", "teeth")):
            torch.testing.assert_close(
                item["truth"][:, column], torch.as_tensor(truth[name][rows]).float()
            )
