"""The sync loss reads what the official one does: the lower half, 256 from any size, target 1."""

import math

import pytest
import torch
from torch.nn import functional

from latentsync.losses import SyncLoss
from latentsync.models import StableSyncNet
from losses.guesses import guess

TOWER = {"block_out_channels": [8, 16], "attn_blocks": [0, 0], "dropout": 0.0}


def syncnet(in_channels: int, height: int, *, lower_half: bool) -> StableSyncNet:
    torch.manual_seed(0)
    return StableSyncNet(
        audio_encoder={**TOWER, "in_channels": 1, "downsample_factors": [[80, 52], 1]},
        visual_encoder={
            **TOWER, "in_channels": in_channels, "downsample_factors": [[height, 32], 1]
        },
        resolution=32,
        lower_half=lower_half,
    )  # fmt: skip


@pytest.fixture
def batch(generator) -> dict[str, torch.Tensor]:
    return {"mel": torch.randn(2, 1, 80, 52, generator=generator)}


def expected(net: StableSyncNet, frames: torch.Tensor, mel: torch.Tensor) -> float:
    """-log of the cosine, from embeddings of frames stacked by hand."""
    cosine = (net.embed_frames(frames) * net.embed_mel(mel)).sum(dim=1)
    return -cosine.log().mean().item()


@pytest.mark.parametrize("clamp", [False, True])
def test_pixels_are_judged_by_their_lower_half_at_the_size_of_the_net(generator, batch, clamp):
    net = syncnet(48, 16, lower_half=True)
    x0 = 2 * torch.randn(2, 4, 16, 64, 64, generator=generator)
    value = SyncLoss(net, clamp=clamp)(guess(x0), batch)
    frames = []
    for clip in x0:
        pixels = [clip[:3, index] for index in range(16)]
        pixels = [frame.clamp(-1, 1) if clamp else frame for frame in pixels]
        small = [functional.interpolate(f[None], size=(32, 32), mode="bicubic")[0] for f in pixels]
        frames.append(torch.cat([frame[:, 16:] for frame in small]))
    assert value.item() == pytest.approx(expected(net, torch.stack(frames), batch["mel"]), rel=1e-4)
    assert math.isfinite(value.item())


def test_a_net_of_latents_is_shown_the_predicted_latents_and_nothing_is_decoded(generator, batch):
    net = syncnet(64, 32, lower_half=False)
    assert net.reads_latents
    x0 = torch.randn(2, 4, 16, 32, 32, generator=generator, requires_grad=True)
    denoised = guess(x0)
    value = SyncLoss(net)(denoised, batch)
    frames = torch.stack([torch.cat([clip[:, i] for i in range(16)]) for clip in x0])
    assert value.item() == pytest.approx(expected(net, frames, batch["mel"]), rel=1e-4)
    assert "pixels" not in vars(denoised)
    value.backward()
    assert x0.grad.abs().sum() > 0


def test_checkpointing_changes_no_gradient(generator, batch):
    x0 = torch.randn(2, 4, 16, 32, 32, generator=generator)
    gradients = []
    for checkpointing in (False, True):
        given = x0.clone().requires_grad_()
        loss = SyncLoss(syncnet(48, 16, lower_half=True), gradient_checkpointing=checkpointing)
        loss(guess(given), batch).backward()
        gradients.append(given.grad)
    assert torch.equal(*gradients)
