"""A whole tiny model with random weights, and two chunks for it."""

import pytest
import torch

from latentsync.models import LipSyncModel, MelAudioEncoder
from models.tiny import NUM_FRAMES, SIDE, build_model


@pytest.fixture
def model() -> LipSyncModel:
    return build_model(MelAudioEncoder())


@pytest.fixture
def faces(generator) -> torch.Tensor:
    return torch.rand(1, 2 * NUM_FRAMES, 3, SIDE, SIDE, generator=generator) * 2 - 1


@pytest.fixture
def audio(generator) -> torch.Tensor:
    return torch.randn(1, 2 * NUM_FRAMES, 8, 80, generator=generator)
