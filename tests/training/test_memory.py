"""Peaks of steps that can be added up by hand, with fake and with real tensors."""

from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker
from training_step import begin, cast_to, step, total_bytes

KILO = 1024


@pytest.mark.parametrize("fake", [True, False])
def test_what_is_dropped_counts_no_more(fake: bool):
    with FakeTensorMode() if fake else nullcontext(), MemTracker() as tracker:
        kept = torch.empty(KILO)
        # A view is free, and so is writing in place.
        kept.view(32, 32)[:4].add_(1)
        first = torch.empty(3 * KILO)
        del first
        second = torch.empty(2 * KILO)
        del second
        assert total_bytes(tracker, "current") == 4 * KILO
    assert total_bytes(tracker) == 4 * 4 * KILO


@pytest.mark.parametrize("fake", [True, False])
def test_a_step_holds_weights_gradients_moments_and_activations(fake: bool):
    """One bias-free layer of n x n and a batch of one row: everything but the weights is small."""
    side = 256
    square = 4 * side * side
    with FakeTensorMode() if fake else nullcontext(), MemTracker() as tracker:
        net = nn.Linear(side, side, bias=False)
        optimizer = torch.optim.AdamW(net.parameters(), foreach=False)
        begin(optimizer)
        # Weights, the last gradient, two moments; the counter and the row are nothing beside them.
        assert total_bytes(tracker, "current") == pytest.approx(4 * square, rel=0.001)
        row = torch.ones(1, side)
        step(lambda: net(row).square().mean(), optimizer, precision="32-true")
        assert total_bytes(tracker, "current") == pytest.approx(4 * square, rel=0.02)
    # The optimizer holds its denominator besides.
    assert 5 * square <= total_bytes(tracker) <= 6.1 * square


def test_a_precision_that_is_none_names_those_that_are():
    with pytest.raises(ValueError, match=r"bf16-mixed.*got 'fp8'"):
        cast_to(nn.Linear(1, 1), "fp8")
