"""Properties of the UNet that hold for any weights."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from latentsync.models import UNet
from latentsync.models.unet_layers import MotionTransformer, norm_over_clip

MakeUNet = Callable[..., UNet]


@pytest.fixture
def make_unet() -> MakeUNet:
    """A small UNet with random weights everywhere, even where they are initialised to zero."""

    def make(**changes: object) -> UNet:
        torch.manual_seed(0)
        net = UNet(
            **{
                "in_channels": 5,
                "out_channels": 2,
                "block_out_channels": (16, 32),
                "attention_levels": (False, True),
                "layers_per_block": 1,
                "norm_num_groups": 8,
                "cross_attention_dim": 12,
                "num_attention_heads": 2,
                "motion_num_attention_heads": 2,
                **changes,
            }
        )
        for module in net.modules():
            if isinstance(module, MotionTransformer):
                torch.nn.init.normal_(module.proj_out.weight, std=0.1)
        return net

    return make


def inputs(num_clips: int = 2, num_frames: int = 3, size: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    sample = torch.randn(num_clips, 5, num_frames, size, size, generator=generator)
    audio = torch.randn(num_clips, num_frames, 4, 12, generator=generator)
    return sample, torch.arange(num_clips) * 300 + 7, audio


@pytest.mark.parametrize("motion", ["none", "decoder", "all"])
def test_clips_of_a_batch_do_not_touch(make_unet: MakeUNet, motion: str) -> None:
    net = make_unet(motion=motion)
    sample, times, audio = inputs()
    whole = net(sample, times, audio)
    single = [net(sample[i : i + 1], times[i], audio[i : i + 1]) for i in range(2)]
    torch.testing.assert_close(whole, torch.cat(single), atol=1e-5, rtol=0)


def test_frames_of_a_clip_share_their_statistics() -> None:
    frames = torch.randn(6, 8, 5, 5)
    norm = torch.nn.GroupNorm(4, 8, affine=False)
    clips = norm_over_clip(norm, frames, num_frames=3).unflatten(0, (2, 3))
    groups = clips.unflatten(2, (4, 2)).transpose(1, 2).flatten(2)
    torch.testing.assert_close(groups.mean(dim=2), torch.zeros(2, 4), atol=1e-5, rtol=0)
    torch.testing.assert_close(groups.var(dim=2, correction=0), torch.ones(2, 4), atol=1e-4, rtol=0)


def test_without_motion_the_order_of_frames_does_not_matter(make_unet: MakeUNet) -> None:
    net = make_unet(motion="none")
    sample, times, audio = inputs()
    forward = net(sample, times, audio)
    torch.testing.assert_close(
        net(sample.flip(2), times, audio.flip(1)), forward.flip(2), atol=1e-5, rtol=0
    )
    moving = make_unet(motion="decoder")
    difference = moving(sample.flip(2), times, audio.flip(1)) - moving(sample, times, audio).flip(2)
    assert difference.abs().max() > 1e-3


def test_fresh_motion_modules_change_nothing(make_unet: MakeUNet) -> None:
    still = make_unet(motion="none")
    moving = UNet(**{**still.config, "motion": "all"})
    moving.load_spatial(still.state_dict())
    torch.testing.assert_close(moving(*inputs()), still(*inputs()), atol=1e-5, rtol=0)


def test_spatial_weights_load_strictly(make_unet: MakeUNet) -> None:
    state = make_unet(motion="none").state_dict()
    del state["conv_in.bias"]
    with pytest.raises(RuntimeError, match=r"conv_in\.bias"):
        make_unet(motion="all").load_spatial(state)


def test_leaving_audio_out_is_attending_to_nothing(make_unet: MakeUNet) -> None:
    net = make_unet()
    sample, times, audio = inputs()
    silent = net(sample, times)
    assert not torch.allclose(net(sample, times, audio), silent)
    for name, weight in net.named_parameters():
        if "attn2.to_out" in name:
            torch.nn.init.zeros_(weight)
    torch.testing.assert_close(net(sample, times, audio), silent)


def test_a_zero_initialised_net_starts_at_zero_and_learns(make_unet: MakeUNet) -> None:
    net = make_unet(
        zero_init=True, audio_projection={"tokens_in": 4, "dim_in": 12, "tokens_out": 2}
    )
    target = torch.randn(2, 2, 3, 8, 8)
    assert net(*inputs()).count_nonzero() == 0
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    losses = []
    for _ in range(4):
        loss = (net(*inputs()) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses == sorted(losses, reverse=True)
    assert all(weight.grad is not None for weight in net.parameters())


def test_audio_tokens_must_halve_evenly(make_unet: MakeUNet) -> None:
    with pytest.raises(ValueError, match="tokens_in=24 to tokens_out=5"):
        make_unet(audio_projection={"tokens_in": 24, "dim_in": 12, "tokens_out": 5})


def test_checkpointing_keeps_the_gradients(make_unet: MakeUNet) -> None:
    net = make_unet(motion="all")
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            net.enable_gradient_checkpointing()
        net.zero_grad()
        net(*inputs()).square().mean().backward()
        gradients.append({name: weight.grad.clone() for name, weight in net.named_parameters()})
    torch.testing.assert_close(*gradients)


def test_memory_format_changes_nothing(make_unet: MakeUNet) -> None:
    net = make_unet(motion="all")
    contiguous = net(*inputs())
    net.to(memory_format=torch.channels_last)
    torch.testing.assert_close(net(*inputs()), contiguous, atol=1e-5, rtol=0)


def test_training_and_inference_agree_in_bfloat16(make_unet: MakeUNet) -> None:
    """On a CPU training uses plain products, inference the fused attention."""
    net = make_unet(motion="all")
    with torch.autocast("cpu", torch.bfloat16):
        training = net(*inputs())
        with torch.no_grad():
            inference = net(*inputs())
    torch.testing.assert_close(training, inference, atol=0.03, rtol=0)


@pytest.mark.parametrize("size", [6, 7, 9])
def test_any_size_goes_through(make_unet: MakeUNet, size: int) -> None:
    net = make_unet(block_out_channels=(16, 16, 16), attention_levels=(False, True, True))
    assert net(*inputs(size=size)).shape == (2, 2, 3, size, size)


def test_a_saved_net_is_the_same_net(make_unet: MakeUNet, tmp_path: Path) -> None:
    projection = {"tokens_in": 4, "dim_in": 12, "tokens_out": 2}
    net = make_unet(motion="decoder", audio_projection=projection)
    net.save_pretrained(tmp_path)
    loaded = UNet.from_pretrained(tmp_path, low_cpu_mem_usage=False)
    torch.testing.assert_close(loaded.state_dict(), net.state_dict(), atol=0, rtol=0)
    torch.testing.assert_close(loaded(*inputs()), net(*inputs()))


def test_motion_is_one_of_three_words(make_unet: MakeUNet) -> None:
    with pytest.raises(ValueError, match=r"none, decoder or all, got 'encoder'"):
        make_unet(motion="encoder")


def test_everything_happens_on_the_device_of_the_input() -> None:
    """Fake CUDA tensors cannot be mixed with CPU ones."""
    with FakeTensorMode(), torch.device("cuda"):
        net = UNet(
            in_channels=5,
            out_channels=2,
            block_out_channels=(16, 32),
            attention_levels=(False, True),
            norm_num_groups=8,
            cross_attention_dim=12,
            num_attention_heads=2,
            motion="all",
            audio_projection={"tokens_in": 4, "dim_in": 12, "tokens_out": 2},
        )
        out = net(torch.randn(2, 5, 3, 8, 8), 500, torch.randn(2, 3, 4, 12))
        assert out.device.type == "cuda"
