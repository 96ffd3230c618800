"""A training step stays on its device: fake CUDA tensors cannot be mixed with CPU ones."""

from collections.abc import Iterator
from functools import partial
from unittest.mock import patch

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny, DDIMScheduler
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.optim.lr_scheduler import ConstantLR
from transformers import VideoMAEConfig, VideoMAEModel

from latentsync.diffusion import DDPM
from latentsync.losses import MaskedReconLoss, ReconLoss, SyncLoss
from latentsync.losses.perceptual import PerceptualLoss
from latentsync.losses.trepa import TrepaLoss
from latentsync.losses.video_mae import VideoBackbone
from latentsync.models import (
    Frozen,
    LatentCodec,
    LipSyncModel,
    MelAudioEncoder,
    ModelFormat,
    StableSyncNet,
    UNet,
)
from latentsync.models.codec import PreviewCodec
from latentsync.training import AutoencoderTask, DiffusionTask, SyncNetTask

SIDE, NUM_FRAMES = 32, 4
TRAINED = {
    "optimizer": partial(torch.optim.SGD, lr=1e-3),
    "schedule": partial(ConstantLR, factor=1.0),
}


@pytest.fixture(autouse=True)
def on_fake_cuda() -> Iterator[None]:
    with (
        FakeTensorMode(allow_non_fake_inputs=True),
        # What is built here is already in place, and fake weights cannot be moved.
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
    # lpips creates these two with torch.Tensor(), which ignores the device; `Frozen.to` would move
    # them.
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
            process=DDPM(scheduler),
            model_format=ModelFormat(resolution=SIDE, num_frames=NUM_FRAMES),
        )
        losses = {
            "recon": ReconLoss(snr_gamma=5.0),
            "masked": MaskedReconLoss(),
            "sync": SyncLoss(make_syncnet()),
            "perceptual": perceptual_loss(),
            "trepa": trepa_loss(),
        }
    weighted = {name: {"weight": 1.0, "loss": loss} for name, loss in losses.items()}
    return DiffusionTask(model, losses=weighted, **TRAINED, **switches)


def trepa_loss() -> TrepaLoss:
    config = VideoMAEConfig(
        image_size=SIDE, patch_size=16, num_frames=NUM_FRAMES, tubelet_size=2, hidden_size=16,
        num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
    )  # fmt: skip
    with unset_fake_temporarily(), torch.device("cpu"):
        table = VideoMAEModel(config).embeddings.position_embeddings
    net = VideoMAEModel(config)
    net.embeddings.position_embeddings = table  # numpy's, on the CPU, as the library creates it
    return TrepaLoss(VideoBackbone(net))


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
    names = ("recon", "masked", "sync", "perceptual", "trepa")
    assert set(values) == {f"train/{name}" for name in names}


def test_a_step_on_latents_that_a_tiny_vae_decodes():
    task = make_task()
    with torch.device("cuda"):
        task.tiny = PreviewCodec(
            AutoencoderTiny(
                encoder_block_out_channels=(4, 4, 4), decoder_block_out_channels=(4, 4, 4),
                num_encoder_blocks=(1, 1, 1), num_decoder_blocks=(1, 1, 1),
            )
        )  # fmt: skip
        batch = make_batch()
        for name in ("latents", "masked_latents", "reference_latents"):
            batch[name] = torch.randn(2, NUM_FRAMES, 4, SIDE // 4, SIDE // 4)
    for name in ("pixels", "reference"):
        del batch[name]
    with patch.object(task, "log_dict"), patch.object(task, "log"):
        assert task.training_step(batch, 0).device.type == "cuda"


@pytest.mark.parametrize(
    "switches",
    [{}, {"windows_at_once": 2}, {"offset_weight": 0.1}],
    ids=str,
)
@pytest.mark.parametrize("bce_from_step", [0, 10])
def test_a_step_of_syncnet(switches: dict[str, object], bce_from_step: int):
    with torch.device("cuda"):
        task = SyncNetTask(make_syncnet(), bce_from_step=bce_from_step, **TRAINED, **switches)
        batch = {
            "pixels": torch.randn(4, NUM_FRAMES, 3, SIDE, SIDE),
            "mel": torch.randn(4, 1, 80, 13),
            "start": torch.tensor([0, 20, 3, 9]),
            "clip_index": torch.tensor([0, 0, 1, 1]),
        }
    with patch.object(task, "log_dict"), patch.object(task, "log"):
        assert task.training_step(batch, 0).device.type == "cuda"


@pytest.mark.parametrize("decoder_only", [False, True])
def test_a_step_of_the_vae(decoder_only: bool):
    with torch.device("cuda"):
        task = AutoencoderTask(make_vae(), decoder_only=decoder_only, **TRAINED)
    with patch.object(task, "log_dict"):
        assert task.training_step(make_batch(), 0).device.type == "cuda"
