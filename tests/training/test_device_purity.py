"""A training step stays on its device: fake CUDA tensors refuse to meet any of the CPU."""

from collections.abc import Iterator
from functools import partial
from unittest.mock import patch

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.optim.lr_scheduler import ConstantLR

from latentsync.losses import MaskedReconLoss, ReconLoss, SyncLoss
from latentsync.losses.perceptual import PerceptualLoss
from latentsync.models import (
    Frozen,
    LatentCodec,
    LipSyncModel,
    MelAudioEncoder,
    ModelFormat,
    StableSyncNet,
    UNet,
)
from latentsync.training import AutoencoderTask, DiffusionTask

SIDE, NUM_FRAMES = 32, 4
TRAINED = {
    "optimizer": partial(torch.optim.SGD, lr=1e-3),
    "schedule": partial(ConstantLR, factor=1.0),
}


@pytest.fixture(autouse=True)
def on_fake_cuda() -> Iterator[None]:
    with (
        FakeTensorMode(allow_non_fake_inputs=True),
        # What is built here is where it belongs, and fake weights cannot be moved.
        patch.object(Frozen, "to", lambda frozen, *args, **named: frozen),
    ):
        yield


def make_vae() -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * 3,
        up_block_types=["UpDecoderBlock2D"] * 3,
        block_out_channels=[4, 4, 8],
        norm_num_groups=2,
        mid_block_add_attention=False,
    )


def make_syncnet() -> StableSyncNet:
    shared = {"attn_blocks": [0, 0, 0], "dropout": 0.0}
    return StableSyncNet(
        num_frames=NUM_FRAMES,
        resolution=SIDE,
        lower_half=True,
        audio_encoder={
            "in_channels": 1, "block_out_channels": [2, 4, 4],
            "downsample_factors": [[8, 1], [5, 4], [2, 3]], **shared,
        },
        visual_encoder={
            "in_channels": 3 * NUM_FRAMES, "block_out_channels": [2, 4, 4],
            "downsample_factors": [[4, 8], [4, 4], 1], **shared,
        },
    )  # fmt: skip


def perceptual_loss() -> PerceptualLoss:
    loss = PerceptualLoss(None, random_backbone=True)
    # lpips makes these two by torch.Tensor(), which knows no device; `Frozen.to` would move them.
    layer = loss.net.net.scaling_layer
    layer.shift, layer.scale = torch.zeros(1, 3, 1, 1), torch.ones(1, 3, 1, 1)
    return loss


def make_task(**switches: object) -> DiffusionTask:
    with unset_fake_temporarily():
        scheduler = DDIMScheduler(clip_sample=False)
    with torch.device("cuda"):
        unet = UNet(
            block_out_channels=[8, 16],
            attention_levels=[False, True],
            layers_per_block=1,
            norm_num_groups=4,
            cross_attention_dim=80,
            num_attention_heads=2,
            motion_num_attention_heads=2,
            motion="all",
        )
        model = LipSyncModel(
            unet=unet,
            codec=LatentCodec(make_vae()),
            audio_encoder=MelAudioEncoder(),
            scheduler=scheduler,
            model_format=ModelFormat(resolution=SIDE, num_frames=NUM_FRAMES),
        )
        losses = {
            "recon": ReconLoss(snr_gamma=5.0),
            "masked": MaskedReconLoss(),
            "sync": SyncLoss(make_syncnet()),
            "perceptual": perceptual_loss(),
        }
    return DiffusionTask(
        model, losses=losses, loss_weights=dict.fromkeys(losses, 1.0), **TRAINED, **switches
    )


def make_batch() -> dict[str, Tensor]:
    with torch.device("cuda"):
        return {
            "pixels": torch.randn(2, NUM_FRAMES, 3, SIDE, SIDE),
            "reference": torch.randn(2, NUM_FRAMES, 3, SIDE, SIDE),
            "mask": torch.ones(2, NUM_FRAMES, 1, SIDE, SIDE),
            "audio": torch.randn(2, NUM_FRAMES, 8, 80),
            "mel": torch.randn(2, 1, 80, 13),
        }


@pytest.mark.parametrize(
    "switches", [{}, {"sample_latents": True}, {"gradient_checkpointing": True}], ids=str
)
def test_a_step_of_the_unet_with_every_loss(switches: dict[str, object]):
    task = make_task(**switches)
    with patch.object(task, "log_dict") as told, patch.object(task, "log"):
        loss = task.training_step(make_batch(), 0)
    (values,) = told.call_args.args
    assert loss.device.type == "cuda"
    assert {value.device.type for value in values.values()} == {"cuda"}
    assert set(values) == {"train/recon", "train/masked", "train/sync", "train/perceptual"}


@pytest.mark.parametrize("decoder_only", [False, True])
def test_a_step_of_the_vae(decoder_only: bool):
    with torch.device("cuda"):
        task = AutoencoderTask(make_vae(), decoder_only=decoder_only, **TRAINED)
    with patch.object(task, "log_dict"):
        assert task.training_step(make_batch(), 0).device.type == "cuda"
