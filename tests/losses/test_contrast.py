import math

import pytest
import torch
from torch.nn import functional

from latentsync.losses import InfoNCE, cosine_bce


def unit(num: int, generator: torch.Generator) -> torch.Tensor:
    return functional.normalize(torch.randn(num, 16, generator=generator), dim=1)


def test_bce_of_cosines_of_one_and_zero():
    axes = torch.eye(2, 16)
    assert cosine_bce(axes, axes, torch.ones(2)).item() == 0
    assert cosine_bce(axes, axes.flip(0), torch.zeros(2)).item() == 0
    # The library clamps the logarithm to -100: the loss of an orthogonal pair labelled as in sync.
    assert cosine_bce(axes, axes.flip(0), torch.ones(2)).item() == 100


def test_bce_of_a_cosine_of_one_half_is_ln_2():
    vision = torch.tensor([[1.0, 0.0]])
    audio = torch.tensor([[0.5, math.sqrt(0.75)]])
    assert cosine_bce(vision, audio, torch.ones(1)).item() == pytest.approx(math.log(2), abs=1e-6)


def test_bce_bears_a_cosine_outside_its_interval(generator):
    vision = unit(4, generator).requires_grad_()
    loss = cosine_bce(vision, -vision.detach(), torch.ones(4))
    loss.backward()
    assert torch.isfinite(vision.grad).all()


def test_info_nce_of_equal_embeddings_is_ln_of_their_number():
    same = torch.zeros(8, 16)
    same[:, 0] = 1
    none_near = torch.zeros(8, 8, dtype=torch.bool)
    assert InfoNCE()(same, same, none_near).item() == pytest.approx(math.log(8), abs=1e-5)


def test_info_nce_leaves_near_pairs_out(generator):
    vision = torch.zeros(8, 16)
    vision[:, 0] = 1
    pairs = torch.arange(8) // 2
    near = pairs[:, None] == pairs[None, :]
    # Each window is compared with itself and six of other pairs.
    assert InfoNCE()(vision, vision, near).item() == pytest.approx(math.log(7), abs=1e-5)


def test_info_nce_is_lower_for_matching_than_for_shuffled_sound(generator):
    vision = unit(8, generator)
    none_near = torch.zeros(8, 8, dtype=torch.bool)
    loss = InfoNCE()
    assert loss(vision, vision, none_near) < 0.1 < loss(vision, vision.roll(1, 0), none_near)


def test_info_nce_counts_negatives_of_the_same_clip_as_often_as_told():
    # Eight equal windows, two per clip: itself, one of its clip weighted five times, six of others.
    same = torch.zeros(8, 16)
    same[:, 0] = 1
    none_near = torch.zeros(8, 8, dtype=torch.bool)
    clips = torch.arange(8) // 2
    one_clip = clips[:, None] == clips[None, :]
    loss = InfoNCE(same_clip_weight=5.0)
    value = loss(same, same, none_near, one_clip).item()
    assert value == pytest.approx(math.log(1 + 5 + 6), abs=1e-5)
    # By default, and where clips are not given, all negatives have the same weight.
    assert InfoNCE()(same, same, none_near, one_clip).item() == pytest.approx(math.log(8), abs=1e-5)
    assert loss(same, same, none_near).item() == pytest.approx(math.log(8), abs=1e-5)


def test_a_weight_of_nothing_is_refused():
    with pytest.raises(ValueError, match="more than 0, got 0"):
        InfoNCE(same_clip_weight=0)
