"""Loaders give the same batches however many processes make them."""

from pathlib import Path

import pytest
import torch

from latentsync.data.datamodule import ClipDataModule, ShuffledSampler

ARGUMENTS = {"num_frames": 4, "samples_per_clip": 4}


def loaders(data_dir: Path, **arguments) -> ClipDataModule:
    module = ClipDataModule(
        data_dir, data_dir, train=ARGUMENTS, val=ARGUMENTS, batch_size=4, **arguments
    )
    module.setup("fit")
    return module


def test_workers_change_nothing(data_dir: Path):
    alone, helped = loaders(data_dir), loaders(data_dir, num_workers=2)
    for loader in ("train_dataloader", "val_dataloader"):
        pairs = zip(getattr(alone, loader)(), getattr(helped, loader)(), strict=True)
        for one, two in pairs:
            assert one.keys() == two.keys()
            assert all(torch.equal(one[name], two[name]) for name in one)


def test_an_epoch_shows_every_index_once_and_epochs_differ():
    sampler = ShuffledSampler(50, seed=1)
    first = list(sampler)
    sampler.set_epoch(1)
    second = list(sampler)
    assert sorted(first) == sorted(second) == list(range(50))
    assert first != second
    again = ShuffledSampler(50, seed=1)
    again.set_epoch(1)
    assert list(again) == second


def test_validation_comes_in_order(data_dir: Path):
    (clip_indices, *_) = [batch["clip_index"] for batch in loaders(data_dir).val_dataloader()]
    assert clip_indices.tolist() == [0, 1, 2, 0]


def test_a_batch_larger_than_an_epoch_is_refused(data_dir: Path):
    module = ClipDataModule(data_dir, data_dir, train={"num_frames": 4}, batch_size=4)
    module.setup("fit")
    with pytest.raises(ValueError, match=r"batch_size=4 is more than the 3 items"):
        module.train_dataloader()
