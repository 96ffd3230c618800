"""A training that starts from a trained UNet."""

from functools import partial
from pathlib import Path

import pytest
import torch

from latentsync.models import LipSyncModel, UNet
from latentsync.training import DiffusionTask
from pipeline.inputs import build_tiny_model


def task_from(model: LipSyncModel, folder: Path) -> DiffusionTask:
    return DiffusionTask(
        model,
        losses={},
        loss_weights={},
        optimizer=partial(torch.optim.SGD, lr=0.1),
        schedule=lambda optimizer: None,
        init=folder,
    )


def test_the_unet_of_the_folder_is_taken_over(tmp_path: Path) -> None:
    trained = build_tiny_model()
    for value in trained.unet.parameters():
        value.data.add_(0.5)
    trained.save_pretrained(tmp_path / "trained")
    task = task_from(build_tiny_model(), tmp_path / "trained")
    for name, value in task.unet.state_dict().items():
        assert torch.equal(value, trained.unet.state_dict()[name]), name


def test_a_unet_of_another_shape_is_refused_with_both_names(tmp_path: Path) -> None:
    build_tiny_model().save_pretrained(tmp_path / "trained")
    other = build_tiny_model()
    other.unet = UNet(**{**other.unet.config, "block_out_channels": (32, 96)})
    with pytest.raises(ValueError, match=r"task\.init=.*trained holds a UNet of another shape"):
        task_from(other, tmp_path / "trained")
