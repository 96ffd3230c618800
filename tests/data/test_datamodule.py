"""Loaders return the same batches regardless of the number of processes."""

from pathlib import Path

import pytest
import torch
from lightning import Trainer

from coded import frame_numbers
from latentsync.data import ClipDataset, Items, read_manifest
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


def test_the_first_items_alone_can_be_shown_in_every_epoch(data_dir: Path):
    data = ClipDataModule(
        data_dir, data_dir, batch_size=1, train={"samples_per_clip": 9, "max_items": 1}
    )
    data.setup("fit")
    loader = data.train_dataloader()
    epochs = []
    for epoch in range(3):
        loader.sampler.set_epoch(epoch)
        epochs.append([batch["clip_index"].item() for batch in loader])
    assert epochs == [[0]] * 3


def test_a_batch_larger_than_an_epoch_is_refused(data_dir: Path):
    module = ClipDataModule(data_dir, data_dir, train={"num_frames": 4}, batch_size=4)
    module.setup("fit")
    with pytest.raises(ValueError, match=r"batch_size=4 is more than the 3 items"):
        module.train_dataloader()


def places(batches) -> list[tuple[list[int], list[int]]]:
    return [(batch["clip_index"].tolist(), batch["start"].tolist()) for batch in batches]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_loader_goes_on_where_its_state_says(data_dir: Path, num_workers: int):
    loader = loaders(data_dir, num_workers=num_workers).train_dataloader()
    loader.sampler.set_epoch(5)
    batches = iter(loader)
    begun = [next(batches)]
    state = loader.state_dict()
    begun += list(batches)

    later = loaders(data_dir).train_dataloader()
    later.load_state_dict(state)
    assert state == {
        "epoch": 5, "batches": 1, "num_items": 12, "global_batch": 4, "data_seed": 0,
    }  # fmt: skip
    assert places(later) == places(begun[1:])
    # Followed by whole epochs.
    assert len(list(later)) == len(later) == 3
    assert later.state_dict()["epoch"] == 6
    assert later.state_dict()["batches"] == 0


def test_a_position_in_other_batches_is_refused_with_both(data_dir: Path):
    state = loaders(data_dir).train_dataloader().state_dict()
    module = ClipDataModule(data_dir, data_dir, train=ARGUMENTS, val=ARGUMENTS, batch_size=3)
    module.setup("fit")
    with pytest.raises(ValueError, match=r"'global_batch': 4.*'global_batch': 3"):
        module.train_dataloader().load_state_dict(state)


def test_the_ranks_shares_make_up_the_batches_of_one():
    whole = list(ShuffledSampler(26, seed=3))
    shares = [list(ShuffledSampler(26, seed=3, rank=rank, num_ranks=4)) for rank in range(4)]
    assert [list(turn) for turn in zip(*shares, strict=True)] == [
        whole[first : first + 4] for first in range(0, 24, 4)
    ]


def test_packed_batches_become_the_same_as_items_that_were_never_packed(data_dir: Path):
    """What a loader returns and Lightning passes to a step equals the plain items exactly."""
    module = loaders(data_dir)
    packed = next(iter(module.val_dataloader()))
    plain = ClipDataset(read_manifest(data_dir), Items(**ARGUMENTS, seed=0))
    wanted = plain.collate([plain[index] for index in range(4)])
    assert packed["pixels"].dtype == packed["reference"].dtype == torch.uint8
    assert "mask" not in packed
    batch = module.on_after_batch_transfer(packed, 0)
    assert batch.keys() == wanted.keys()
    assert all(torch.equal(batch[name], wanted[name]) for name in wanted)
    # A single mask is stored for the whole batch.
    assert batch["mask"].untyped_storage().nbytes() == 64 * 64 * 4


def test_windows_beside_each_other_have_a_mask_each(data_dir: Path):
    arguments = {"num_frames": 4, "windows_per_clip": 3, "with_reference": False}
    module = ClipDataModule(data_dir, data_dir, val=arguments, batch_size=2)
    module.setup("validate")
    batch = module.unpack(next(iter(module.val_dataloader())))
    assert batch["mask"].shape == (6, 4, 1, 64, 64)


@pytest.mark.parametrize("precision", ["64-true", "bf16-true", "32-true"])
def test_frames_get_the_precision_of_the_weights(data_dir: Path, precision: str):
    """Lightning converts a batch before its frames are unpacked."""
    module = loaders(data_dir)
    module.trainer = Trainer(precision=precision, accelerator="cpu", logger=False)
    module.trainer.validating = True
    packed = next(iter(module.val_dataloader()))
    batch = module.on_after_batch_transfer(packed, 0)
    wanted = {"64-true": torch.float64, "bf16-true": torch.bfloat16, "32-true": torch.float32}
    assert {batch[name].dtype for name in ("pixels", "reference", "mask")} == {wanted[precision]}


@pytest.mark.parametrize("reader", ["pyav", "decord"])
def test_every_reader_survives_the_fork_of_workers(data_dir: Path, reader: str):
    """Read in this process first, as in the check before training, then in two workers."""
    if reader == "decord":
        pytest.importorskip("decord", reason="the extra `train` is not installed")
    made = {}
    for num_workers in (0, 2):
        data = ClipDataModule(
            data_dir, data_dir, batch_size=3, num_workers=num_workers,
            train={"samples_per_clip": 4, "num_frames": 4, "reader": reader},
        )  # fmt: skip
        data.setup("fit")
        assert len(data.train_set[0]["pixels"]) == 4
        made[num_workers] = [data.unpack(batch)["pixels"] for batch in data.train_dataloader()]
    assert len(made[0]) == len(made[2]) == 4
    for here, there in zip(made[0], made[2], strict=True):
        assert torch.equal(here, there)
    first = made[0][0][0]
    numbers = frame_numbers(first)
    assert numbers == list(range(numbers[0], numbers[0] + 4))


def test_what_both_say_counts_where_train_and_val_are_silent(data_dir):
    module = ClipDataModule(
        data_dir, data_dir, both={"num_frames": 4, "with_audio": False}, val={"num_frames": 6}
    )
    module.setup("fit")
    assert (module.train_set.items.num_frames, module.val_set.items.num_frames) == (4, 6)
    assert "audio" not in module.train_set[0]
    assert "audio" not in module.val_set[0]
