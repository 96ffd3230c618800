"""Training on several prepared sets: shares as asked, no clip left out, two roads to one item."""

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from coded import LOUD, RESOLUTION, make_detector, write_coded_video
from latentsync.data import ClipDataset, Items, read_manifest
from latentsync.data.datamodule import ClipDataModule
from latentsync.data.mixing import mixed_order
from latentsync.prepare import Recipe, prepare_clips

ITEMS = {"num_frames": 4, "samples_per_clip": 2}


@pytest.fixture(scope="module")
def other_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second set of one clip."""
    raw_dir = tmp_path_factory.mktemp("other raw")
    write_coded_video(raw_dir / "other.mp4", 60, loud=LOUD)
    output_dir = tmp_path_factory.mktemp("sets") / "other"
    recipe = Recipe(make_detector=make_detector, resolution=RESOLUTION, occlusion=None)
    prepare_clips(raw_dir, output_dir, stages=recipe.stages())
    return output_dir


def mixed(manifests: list[Path], weights: list[float] | None = None) -> ClipDataModule:
    data = ClipDataModule(
        manifests, manifests[0], weights=weights, train=ITEMS, val=ITEMS, batch_size=2
    )
    data.setup("fit")
    return data


@pytest.mark.parametrize(
    ("sizes", "weights"),
    [([10, 10], [0.7, 0.3]), ([1000, 7], [1, 1]), ([3, 50, 20], [5, 3, 2]), ([4], [2.0])],
)
def test_shares_of_an_epoch_are_those_asked_for(sizes: list[int], weights: list[float]) -> None:
    order = mixed_order(sizes, weights)
    assert order is not None
    shown = Counter(order.tolist())
    assert sorted(shown) == list(range(sum(sizes)))  # every clip, and no other
    bounds = np.cumsum([0, *sizes])
    for first, last, weight in zip(bounds, bounds[1:], weights, strict=False):
        times = [shown[clip] for clip in range(first, last)]
        assert sum(times) / len(order) == pytest.approx(weight / sum(weights), abs=1 / len(order))
        assert max(times) - min(times) <= 1
    assert min(shown.values()) == 1


def test_sets_alternate_evenly() -> None:
    order = mixed_order([50, 50], [3, 1])
    assert order is not None
    for start in range(0, len(order) - 8, 8):
        assert np.count_nonzero(order[start : start + 8] < 50) == pytest.approx(6, abs=1)


def test_without_weights_an_epoch_is_the_clips_of_both(data_dir: Path, other_dir: Path) -> None:
    train = mixed([data_dir, other_dir]).train_set
    assert train is not None
    clips = [
        clip
        for folder in (data_dir, other_dir)
        for clip in read_manifest(folder, with_measures=False)
    ]
    assert train.clips == clips
    assert len(train) == 8
    alone = ClipDataset(clips[:3], Items(**ITEMS, packed=True))
    for name, value in alone[1].items():
        assert torch.equal(train[1][name], value)


def test_with_weights_a_loader_shows_each_set_its_share(data_dir: Path, other_dir: Path) -> None:
    data = mixed([data_dir, other_dir], [1, 1])
    shown = torch.cat([batch["clip_index"] for batch in data.train_dataloader()]).tolist()
    assert Counter(shown) == {0: 2, 1: 2, 2: 2, 3: 6}
    windows = {int(data.train_set[index]["start"]) for index in range(12)}  # type: ignore[index]
    assert len(windows) > 3  # a clip that comes again shows other frames


def test_latents_of_each_set_are_its_own(data_dir: Path, other_dir: Path, tmp_path: Path) -> None:
    sets = [shutil.copytree(each, tmp_path / each.name) for each in (data_dir, other_dir)]
    for each in sets:
        for clip in read_manifest(each):
            folder = each / "latents" / "one"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{clip.name}.safetensors").touch()
    (sets[1] / "latents" / "one" / f"{read_manifest(sets[1])[0].name}.safetensors").unlink()
    items = {"num_frames": 4, "with_latents": True, "with_pixels": False}
    data = ClipDataModule([*sets], sets[0], train=items)
    with pytest.raises(FileNotFoundError, match=f"1 of 1 clips have no latents.*{sets[1].name}"):
        data.setup("fit")


@pytest.mark.parametrize(
    ("weights", "told"),
    [
        ([1.0], r"weights=\[1.0\] for 2 training sets"),
        ([1.0, 0.0], "must be positive"),
        ([1.0, float("nan")], "must be positive"),
    ],
)
def test_weights_that_do_not_fit(
    data_dir: Path, other_dir: Path, weights: list[float], told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        mixed([data_dir, other_dir], weights)


def test_a_set_listed_twice_and_no_set(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").symlink_to(data_dir)
    monkeypatch.chdir(data_dir.parent)
    for again in (data_dir, data_dir / "manifest.jsonl", Path(data_dir.name), tmp_path / "link"):
        with pytest.raises(ValueError, match=r"both list .*list a clip once"):
            mixed([data_dir, again])
    data = ClipDataModule([], data_dir)
    with pytest.raises(ValueError, match="lists no data set"):
        data.setup("fit")


def test_two_manifests_of_one_folder(data_dir: Path) -> None:
    rows = (data_dir / "manifest.jsonl").read_text().splitlines(keepends=True)
    (data_dir / "first.jsonl").write_text(rows[0])
    (data_dir / "others.jsonl").write_text("".join(rows[1:]))
    train = mixed([data_dir / "first.jsonl", data_dir / "others.jsonl"]).train_set
    assert train is not None
    assert train.clips == read_manifest(data_dir, with_measures=False)


def test_sets_of_two_resolutions(data_dir: Path, tmp_path: Path) -> None:
    raw_dir = tmp_path / "raw"
    raw_dir.mkdir()
    write_coded_video(raw_dir / "a.mp4", 60, loud=LOUD)
    recipe = Recipe(make_detector=make_detector, resolution=2 * RESOLUTION, occlusion=None)
    prepare_clips(raw_dir, tmp_path / "set", stages=recipe.stages())
    with pytest.raises(ValueError, match=r"differ in resolution.*prepare them all alike"):
        mixed([data_dir, tmp_path / "set"])
