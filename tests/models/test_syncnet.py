"""Properties of StableSyncNet that hold for any weights."""

from pathlib import Path

import pytest
import torch

from latentsync.models import StableSyncNet, sync_input
from latentsync.models.syncnet import end_norm

AUDIO = {
    "in_channels": 1,
    "block_out_channels": [8, 8, 16, 16, 16, 24],
    "downsample_factors": [[2, 1], 2, 2, 2, 2, [2, 3]],
    "attn_blocks": [0, 0, 0, 0, 1, 0],
    "dropout": 0.0,
}
VISUAL = {
    "in_channels": 48,
    "block_out_channels": [8, 8, 16, 16, 24],
    "downsample_factors": [[1, 2], 2, 2, 2, 2],
    "attn_blocks": [0, 0, 1, 0, 0],
    "dropout": 0.0,
}


@pytest.fixture
def syncnet() -> StableSyncNet:
    torch.manual_seed(0)
    return StableSyncNet(AUDIO, VISUAL, resolution=32)


def test_embeddings_are_unit_vectors_of_one_quadrant(syncnet: StableSyncNet) -> None:
    vision, audio = syncnet(torch.randn(3, 48, 16, 32), torch.randn(3, 1, 80, 52))
    assert vision.shape == audio.shape == (3, 24)
    for embedding in (vision, audio):
        torch.testing.assert_close(embedding.norm(dim=1), torch.ones(3))
        assert embedding.min() >= 0


def test_sync_input_stacks_lower_halves_frame_by_frame() -> None:
    pixels = torch.arange(2 * 3 * 3 * 8 * 8.0).reshape(2, 3, 3, 8, 8)
    frames = sync_input(pixels, 8)
    assert frames.shape == (2, 9, 4, 8)
    torch.testing.assert_close(frames[1, 3 * 2 + 1], pixels[1, 2, 1, 4:])


def test_sync_input_of_another_size_is_resized_before_it_is_cut() -> None:
    ramp = torch.linspace(-1, 1, 16).expand(1, 2, 3, 16, 16).mT  # from top to bottom
    frames = sync_input(ramp, 8)
    assert frames.shape == (1, 6, 4, 8)
    torch.testing.assert_close(
        frames, sync_input(ramp, 16)[..., ::2, ::2] + 1 / 15, atol=0.05, rtol=0
    )
    assert frames.min() > 0


def test_checkpointing_keeps_the_gradients(syncnet: StableSyncNet) -> None:
    frames, mel = torch.randn(2, 48, 16, 32, requires_grad=True), torch.randn(2, 1, 80, 52)
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            syncnet.enable_gradient_checkpointing()
        vision, audio = syncnet(frames, mel)
        gradients.append(torch.autograd.grad((vision * audio).sum(), frames)[0])
    torch.testing.assert_close(*gradients)


def test_a_saved_net_is_the_same_net(syncnet: StableSyncNet, tmp_path: Path) -> None:
    syncnet.save_pretrained(tmp_path)
    loaded = StableSyncNet.from_pretrained(tmp_path, low_cpu_mem_usage=False)
    assert loaded.config.resolution == 32
    torch.testing.assert_close(loaded.state_dict(), syncnet.state_dict(), atol=0, rtol=0)


def test_towers_that_do_not_meet_are_refused() -> None:
    with pytest.raises(ValueError, match=r"faces of 32x64 end in 24 at \(2, 2\)"):
        StableSyncNet(AUDIO, VISUAL, resolution=64)


@pytest.mark.parametrize("width", [4, 6, 8, 16, 24, 32, 36, 64])
def test_embeddings_of_any_width_tell_inputs_apart(width: int) -> None:
    torch.manual_seed(0)
    towers = [
        {**tower, "block_out_channels": [*tower["block_out_channels"][:-1], width]}
        for tower in (AUDIO, VISUAL)
    ]
    net = StableSyncNet(*towers, resolution=32)
    embeddings = net(torch.randn(8, 48, 16, 32), torch.randn(8, 1, 80, 52))
    for embedding in embeddings:
        torch.testing.assert_close(embedding.norm(dim=1), torch.ones(8))
        assert embedding.std(dim=0).mean() > 0.01
        assert len(torch.unique(embedding, dim=0)) >= 6


@pytest.mark.parametrize("width", [1, 2, 3])
def test_a_width_that_holds_no_embedding_is_refused(width: int) -> None:
    towers = [
        {**tower, "block_out_channels": [*tower["block_out_channels"][:-1], width]}
        for tower in (AUDIO, VISUAL)
    ]
    with pytest.raises(ValueError, match=f"must be 4 channels wide or more.*got {width}"):
        StableSyncNet(*towers, resolution=32)


@pytest.mark.parametrize("width", [1024, 2048, 96, 64, 48])
def test_the_norm_of_wide_towers_is_the_official_one(width: int) -> None:
    assert end_norm(width).num_groups == (16 if width == 48 else 32)
