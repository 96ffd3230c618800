"""Which passes are full, and what the others compute."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from latentsync.models import DeepCache, UNet

NUM_FRAMES = 3


@pytest.fixture(params=[True, False], ids=["attention", "plain"])
def unet(request: pytest.FixtureRequest) -> UNet:
    torch.manual_seed(0)
    net = UNet(
        block_out_channels=[8, 16],
        attention_levels=[request.param, True],
        layers_per_block=1,
        norm_num_groups=4,
        cross_attention_dim=5,
        num_attention_heads=2,
        motion_num_attention_heads=2,
        motion="all",
    )
    for name, weight in net.named_parameters():
        if ".motion_modules." in name and "proj_out" in name:
            nn.init.normal_(weight, std=0.3)  # new motion modules do nothing
    return net.eval().requires_grad_(False)


@pytest.fixture
def steps(generator: torch.Generator) -> list[tuple[Tensor, Tensor, Tensor]]:
    audio = torch.randn(2, NUM_FRAMES, 4, 5, generator=generator)
    return [
        (torch.randn(2, 13, NUM_FRAMES, 8, 8, generator=generator), torch.tensor([time] * 2), audio)
        for time in range(951, -1, -50)
    ]


def test_seven_of_twenty_passes_are_full(unet: UNet, steps: list[tuple[Tensor, ...]]) -> None:
    cache = DeepCache(unet, 3)
    num_deep = []
    unet.mid_block.register_forward_hook(lambda *_: num_deep.append(cache.step - 1))
    for inputs in steps:
        assert cache(*inputs).shape == (2, 4, NUM_FRAMES, 8, 8)
    assert num_deep == [0, 3, 6, 9, 12, 15, 18]


def test_an_interval_of_one_is_the_network(unet: UNet, steps: list[tuple[Tensor, ...]]) -> None:
    cache = DeepCache(unet, 1)
    for inputs in steps[:3]:
        assert torch.equal(cache(*inputs), unet(*inputs))


def test_the_others_equal_a_network_whose_deep_layers_repeat_themselves(
    unet: UNet, steps: list[tuple[Tensor, ...]]
) -> None:
    """In the helper of the official pipeline, every deep layer returns its last full output."""
    cache = DeepCache(unet, 3)
    outputs = [cache(*inputs) for inputs in steps[:5]]
    replay = False
    for layer in deep_layers(unet):
        layer.forward = repeating(layer.forward, lambda: replay)
    for step, (inputs, output) in enumerate(zip(steps, outputs, strict=False)):
        replay = step % 3 != 0
        torch.testing.assert_close(output, unet(*inputs))


def test_clips_at_the_front_may_be_left_out(unet: UNet, steps: list[tuple[Tensor, ...]]) -> None:
    both, one = DeepCache(unet, 3), DeepCache(unet, 3)
    for cache in (both, one):
        cache(*steps[0])
    torch.testing.assert_close(
        one(*(part[1:] for part in steps[1])), both(*steps[1])[1:], atol=1e-5, rtol=0
    )


def test_where_they_come_back_the_pass_is_full(unet: UNet, steps: list[tuple[Tensor, ...]]) -> None:
    cache = DeepCache(unet, 3)
    cache(*(part[1:] for part in steps[0]))
    torch.testing.assert_close(cache(*steps[1]), unet(*steps[1]))


def deep_layers(unet: UNet) -> Iterator[nn.Module]:
    """Every residual block, attention and sampler except the last layer of the last level."""
    yield unet.mid_block
    for block in [*unet.down_blocks, *unet.up_blocks]:
        shallow = 1 if block is unet.up_blocks[-1] else 0
        yield from block.resnets[: len(block.resnets) - shallow]
        if hasattr(block, "attentions"):
            yield from block.attentions[: len(block.attentions) - shallow]
        for name in ("downsamplers", "upsamplers"):
            yield from getattr(block, name, None) or ()


def repeating(forward: Callable[..., object], replay: Callable[[], bool]) -> Callable[..., object]:
    stored: list[object] = []

    def again(*args: object, **kwargs: object) -> object:
        if not replay():
            stored[:] = [forward(*args, **kwargs)]
        return stored[0]

    return again
