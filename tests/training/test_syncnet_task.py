import math
from functools import partial

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional
from torch.optim import SGD
from torch.optim.lr_scheduler import ConstantLR

from latentsync.losses import InfoNCE
from latentsync.models import StableSyncNet
from latentsync.training import Pairs, SyncNetTask
from latentsync.training.tasks.syncnet import (
    balanced_bce,
    embed_in_parts,
    frames_after,
    near_in_time,
    official_bce,
    same_clip,
)

SIDE, NUM_FRAMES, NUM_WINDOWS = 16, 4, 8


def batch_of(clips: list[int], starts: list[int]) -> dict[str, torch.Tensor]:
    return {"clip_index": torch.tensor(clips), "start": torch.tensor(starts)}


def small_net() -> StableSyncNet:
    """Four frames of 16 pixels, mel of 13 columns, 4 channels."""
    shared = {"attn_blocks": [0, 0, 0], "dropout": 0.1}
    return StableSyncNet(
        {"in_channels": 1, "block_out_channels": [4, 4, 8], **shared,
         "downsample_factors": [[5, 1], [4, 3], [4, 4]]},
        {"in_channels": 12, "block_out_channels": [4, 4, 8], **shared,
         "downsample_factors": [[1, 2], [2, 2], [4, 4]]},
        num_frames=NUM_FRAMES, resolution=SIDE,
    )  # fmt: skip


def make_task(**arguments) -> SyncNetTask:
    torch.manual_seed(0)
    return SyncNetTask(
        small_net(), optimizer=partial(SGD, lr=0.1),
        schedule=partial(ConstantLR, factor=1.0), bce_from_step=10, **arguments,
    )  # fmt: skip


def windows(generator: torch.Generator | None) -> dict[str, torch.Tensor]:
    """Two windows of each of four clips, 12 frames apart."""
    return {
        "pixels": torch.rand(NUM_WINDOWS, NUM_FRAMES, 3, SIDE, SIDE, generator=generator) * 2 - 1,
        "mel": torch.randn(NUM_WINDOWS, 1, 80, 13, generator=generator),
        **batch_of([0, 0, 1, 1, 2, 2, 3, 3], [0, 12] * 4),
    }


def test_near_windows_are_of_one_clip_and_less_than_the_offset_apart():
    near = near_in_time(batch_of([0, 0, 0, 1], [10, 13, 14, 10]), min_offset_frames=4)
    expected = torch.tensor(
        [[1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 1]], dtype=torch.bool
    )
    assert torch.equal(near, expected)


@pytest.mark.parametrize(
    ("clips", "starts", "num_negatives"),
    [
        ([0, 0], [10, 11], 0),  # 40 ms: indistinguishable
        ([0, 0], [10, 12], 1),  # the hardest negative
        ([0, 1], [10, 10], 1),  # another clip, at any time
        ([0, 0, 0, 1], [10, 11, 12, 11], None),
    ],
)
def test_negatives_are_other_clips_and_the_same_clip_two_frames_away(
    clips: list[int], starts: list[int], num_negatives: int | None
):
    # If all windows are equal, the loss of each is the logarithm of its number of candidates.
    alike = torch.zeros(len(clips), 8)
    alike[:, 0] = 1
    batch = batch_of(clips, starts)
    near = near_in_time(batch, min_offset_frames=2)
    # The last case: first and third window see each other and the other clip, the second only it.
    costs = [3, 2, 3, 4] if num_negatives is None else [1 + num_negatives]
    expected = sum(map(math.log, costs)) / len(costs)
    value = InfoNCE()(alike, alike, near, same_clip(batch)).item()
    assert value == pytest.approx(expected, abs=1e-5)


def test_the_official_loss_never_calls_a_near_pair_off():
    # Windows 0 and 1 are one frame apart and look the same; window 2 is far. If 0 and 1 were a
    # negative pair, their cosine of one would cost a clamped logarithm of 100.
    vision = functional.one_hot(torch.tensor([0, 0, 1]), 8).float()
    near = near_in_time(batch_of([0, 0, 0], [10, 11, 40]), min_offset_frames=4)
    assert balanced_bce(vision, vision, near).item() == 0


def test_guessing_one_half_costs_ln_2():
    # Every picture and every sound have a cosine of 1/2: the plateau that users report.
    vision = torch.tensor([[1.0, 0.0]]).repeat(4, 1)
    audio = torch.tensor([[0.5, math.sqrt(0.75)]]).repeat(4, 1)
    near = near_in_time(batch_of([0, 1, 2, 3], [0, 0, 0, 0]), min_offset_frames=4)
    assert balanced_bce(vision, audio, near).item() == pytest.approx(math.log(2), abs=1e-6)


def gradients(task: SyncNetTask, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    task.zero_grad()
    values = task.losses(*task.embed(batch), batch)
    (values["info_nce"] + values["bce"]).backward()
    return {name: value.grad.clone() for name, value in task.named_parameters()}


def test_gradient_caching_gives_the_gradient_of_the_whole_batch(generator):
    batch = windows(generator)
    batch |= {"pixels": batch["pixels"].double(), "mel": batch["mel"].double()}
    task = make_task().double().eval()
    whole = gradients(task, batch)
    task.windows_at_once = 3
    sizes = []
    task.syncnet.visual_encoder.conv_in.register_forward_hook(
        lambda module, inputs, output: sizes.append(len(output))
    )
    cached = gradients(task, batch)
    # Forward, and once more for the backward pass.
    assert sizes[:3] == [3, 3, 2]
    assert sorted(sizes) == [2, 2, 3, 3, 3, 3]
    assert max(value.abs().max() for value in whole.values()) > 1e-3
    for name, value in whole.items():
        torch.testing.assert_close(cached[name], value, atol=1e-6, rtol=1e-6, msg=name)


def test_a_part_is_dropped_out_alike_both_times(generator):
    # Otherwise the gradient would be that of another network than the loss. Here the loss is linear
    # in the last weight, so weight * gradient is the loss itself.
    batch, net = windows(generator), small_net().train()
    scale = torch.ones((), requires_grad=True)
    torch.manual_seed(0)
    vision, _ = embed_in_parts(
        net, torch.randn(8, 12, 8, SIDE, generator=generator), batch["mel"], 3
    )
    loss = (vision * scale).sum()
    gradient, on_net = torch.autograd.grad(loss, [scale, net.visual_encoder.norm_out.bias])
    assert gradient.item() == pytest.approx(loss.item(), rel=1e-5)
    assert torch.isfinite(on_net).all()


def test_an_offset_head_that_says_nothing_is_wrong_by_the_offset():
    task = make_task(offset_weight=0.5, max_offset_frames=12)
    head = task.offset_head
    torch.nn.init.zeros_(head.out.weight)
    torch.nn.init.zeros_(head.out.bias)
    # Of one clip: 0-5 and 0-0, 5-5, ...; 0-20 and 5-20 are too far apart, 0-1 of another clip does
    # not count. Smooth within one frame: an error of 5 costs 4.5. Four own pairs cost nothing.
    batch = batch_of([0, 0, 0, 1], [0, 5, 20, 1])
    rows = functional.normalize(torch.rand(4, 8), dim=1)
    error = head.error(rows, rows, frames_after(batch), same_clip(batch))
    assert error.item() == pytest.approx(2 * 4.5 / 6)


def test_an_offset_head_learns_whether_the_sound_is_late_or_early():
    torch.manual_seed(0)
    head = make_task(offset_weight=1.0, max_offset_frames=12).offset_head
    places = torch.arange(0, 12, 2)
    batch = {"clip_index": torch.zeros(6, dtype=torch.long), "start": places}
    rows = functional.one_hot(torch.arange(6), 8).float()
    optimizer = torch.optim.Adam(head.parameters(), lr=3e-2)
    for _ in range(300):
        optimizer.zero_grad()
        head.error(rows, rows, frames_after(batch), same_clip(batch)).backward()
        optimizer.step()
    told = head(rows, rows).round()
    assert told[0].tolist() == [0, 2, 4, 6, 8, 10]
    assert torch.equal(told, -told.T)


def test_the_offset_counts_as_much_as_told_and_only_with_a_head(generator):
    batch = windows(generator)
    task = make_task(offset_weight=0.5).eval()
    values = task.losses(*task.embed(batch), batch)
    assert torch.equal(task.chosen(values), values["info_nce"] + 0.5 * values["offset_error"])
    assert "offset_error" not in make_task().losses(*task.embed(batch), batch)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"pairs": {"min_offset_frames": 0}}, "min_offset_frames must be 1 or more, got 0"),
        ({"windows_at_once": 0}, "windows_at_once must be 1 or more, or null, got 0"),
        ({"offset_weight": 0.1, "max_offset_frames": 0}, "max_offset_frames must be 1 or more"),
    ],
)
def test_values_without_a_meaning_are_refused(arguments: dict, sentence: str):
    with pytest.raises(ValueError, match=sentence):
        make_task(**{**arguments, "pairs": Pairs(**arguments.get("pairs", {}))})


@pytest.mark.parametrize("windows_at_once", [None, 3])
def test_the_step_stays_on_its_device(windows_at_once: int | None):
    # Fake CUDA tensors cannot be mixed with CPU ones.
    with FakeTensorMode(), torch.device("cuda"):
        task = make_task(offset_weight=0.1, windows_at_once=windows_at_once).train()
        values = task.losses(*task.embed(windows(None)), windows(None))
        loss = task.chosen(values)
    assert {value.device.type for value in [*values.values(), loss]} == {"cuda"}
    assert sorted(values) == ["bce", "info_nce", "offset_error"]


def test_official_pairs_are_a_clip_s_own_sound_or_that_of_its_other_window() -> None:
    batch = {"clip_index": torch.tensor([4, 4, 7, 7]), "start": torch.tensor([0, 1, 30, 5])}
    vision = torch.eye(4)
    assert official_bce(vision, torch.eye(4), batch).item() == 0  # both predictions are correct
    swapped = torch.eye(4)[[1, 0, 3, 2]]
    assert official_bce(vision, swapped, batch).item() == 100  # both are wrong; torch's limit
    torch.manual_seed(0)
    in_sync_only = torch.eye(4)[[0, 0, 2, 2]]  # correct for pairs in sync
    losses = [official_bce(vision, in_sync_only, batch).item() for _ in range(200)]
    assert set(losses) == {0, 50, 100}
    assert 40 < sum(losses) / 200 < 60
    with pytest.raises(ValueError, match="windows_per_clip=2"):
        official_bce(vision, vision, {**batch, "clip_index": torch.tensor([0, 1, 2, 3])})
