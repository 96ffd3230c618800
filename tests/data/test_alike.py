"""References from frames that look alike outside the mask."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from latentsync.data import Clip, ClipDataset, Items, read_manifest
from latentsync.data.alike import appearance, most_alike
from latentsync.data.stores import save_tensors

POSES = 5
ITEMS = Items(
    num_frames=4, stride=2, with_latents=True, with_pixels=False, with_mel=False, with_audio=False,
    reference_gap=[10, 1000], reference_alike=3, samples_per_clip=40,
)  # fmt: skip


@pytest.fixture
def posed(data_dir: Path, tmp_path: Path) -> list[Clip]:
    """Clips whose masked latents tell the pose, the frame's number modulo POSES, and whose latents
    tell clip and frame; the first two are of one source, the second 1000 frames after the first."""
    folder = tmp_path / "a set"
    shutil.copytree(data_dir, folder)
    clips = []
    for number, clip in enumerate(read_manifest(folder)):
        frames = torch.arange(clip.num_frames)
        tensors = {
            "latents": (1000.0 * number + frames)[:, None, None, None].expand(-1, 4, 8, 8),
            "masked_latents": (frames % POSES)[:, None, None, None].expand(-1, 4, 8, 8),
        }
        path = folder / "latents" / "coded" / f"{clip.name}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_tensors(
            {name: value.contiguous().float() for name, value in tensors.items()},
            path,
            {"mask": "mask", "vae": "coded"},
        )
        same = number < 2
        clips.append(
            replace(
                clip,
                source="two.mp4" if same else "one.mp4",
                start_frame=1000 if number == 1 else 0,
            )
        )
    return clips


def places(item: dict[str, torch.Tensor], name: str) -> list[tuple[int, int]]:
    """Clip and frame of each of an item's latents."""
    return [divmod(int(value), 1000) for value in item[name][:, 0, 0, 0]]


def test_a_reference_has_the_pose_of_its_frame_and_is_far_away_in_the_same_source(posed):
    dataset = ClipDataset(posed, ITEMS)
    seen = set()
    for index in range(len(dataset)):
        item = dataset[index]
        pairs = zip(places(item, "latents"), places(item, "reference_latents"), strict=True)
        for (clip, frame), (other, there) in pairs:
            assert clip == index % 3
            assert frame % POSES == there % POSES
            assert (other < 2) == (clip < 2)
            assert other != clip or abs(frame - there) >= 10
            seen.add((clip, other))
    assert seen == {(0, 0), (0, 1), (1, 0), (1, 1), (2, 2)}


def test_an_index_is_one_item_and_others_have_other_references(posed):
    first, second = ClipDataset(posed, ITEMS), ClipDataset(posed, ITEMS)
    names = ("latents", "reference_latents")
    drawn = set()
    for index in (5, 2, 11, 8):
        one, two = first[index], second[index]
        assert all(torch.equal(one[name], two[name]) for name in names)
        drawn.add(tuple(places(one, "reference_latents")))
    assert len(drawn) == 4


def test_windows_may_begin_anywhere(posed):
    """A window of the middle has no room for a reference of its own clip 40 frames away."""
    dataset = ClipDataset(posed[:1], replace(ITEMS, reference_gap=[30, 1000]))
    starts = {int(dataset[index]["start"]) for index in range(len(dataset))}
    assert starts & set(range(20, 30))


def test_most_alike_is_the_nearest_in_looks_and_far_in_time(rng):
    looks = torch.from_numpy(rng.normal(size=(1500, 6))).float()
    times = torch.from_numpy(rng.integers(0, 4000, size=1500))
    found = most_alike(looks, times, count=4, gap=(50, 3000))
    for row in (0, 700, 1023, 1024, 1499):
        away = (times - times[row]).abs()
        distance = (looks - looks[row]).norm(dim=1).double()
        distance[(away < 50) | (away > 3000)] = np.inf
        assert found[row].tolist() == distance.argsort()[:4].tolist()


def test_frames_without_enough_others_have_fewer_or_are_refused(posed):
    looks, times = torch.arange(5.0)[:, None], torch.arange(5)
    assert most_alike(looks, times, count=3, gap=(3, 9)).tolist() == [
        [3, 4, -1], [4, -1, -1], [-1, -1, -1], [0, -1, -1], [1, 0, -1]
    ]  # fmt: skip
    with pytest.raises(ValueError, match=r"one.mp4: no frame is 80 to 90 frames away .*: change"):
        ClipDataset(posed[2:], replace(ITEMS, reference_gap=[80, 90]))[0]


def test_a_clip_whose_latents_cannot_be_read_is_nobodys_reference(posed, caplog):
    broken = posed[1].path.parent.parent / "latents" / "coded" / f"{posed[1].name}.safetensors"
    broken.write_bytes(broken.read_bytes()[:2000])
    dataset = ClipDataset(posed, ITEMS)
    items = [dataset[index] for index in range(30)]
    assert {clip for item in items for clip, _ in places(item, "reference_latents")} == {0, 2}
    assert caplog.text.count("skipped a clip") == 1


def test_a_source_of_which_nothing_can_be_compared_is_passed_over(posed):
    """Its window can be read, the whole clip cannot: the latents of its end are missing."""
    path = posed[2].path.parent.parent / "latents" / "coded" / f"{posed[2].name}.safetensors"
    kept = {name: values[:-1].clone() for name, values in load_file(path).items()}
    save_tensors(kept, path, {"mask": "mask", "vae": "coded"})
    dataset = ClipDataset(posed[1:], ITEMS)
    items = [dataset[index] for index in range(20)]
    assert {clip for item in items for clip, _ in places(item, "latents")} == {1}
    with pytest.raises(ValueError, match="not all of its latents are there"):
        ClipDataset(posed[2:], ITEMS)[0]


def test_looks_are_those_of_the_masked_faces():
    masked = torch.zeros(2, 4, 32, 32)
    masked[1, :, 20, 20] = 1.0
    one, other = appearance(masked)
    assert float((one - other).norm()) > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reference_alike": 0}, "1 frame or more, got 0"),
        ({"with_pixels": True}, "with_pixels=false"),
        ({"with_latents": False}, "with_latents=true"),
        ({"reference_gap": None}, "reference_gap="),
        ({"same_pose": True}, "same_pose both choose"),
    ],
)
def test_items_that_cannot_be_compared_are_refused(change: dict[str, object], message: str):
    with pytest.raises(ValueError, match=message):
        replace(ITEMS, **change)
