"""Choice of dtype and memory format by device."""

import pytest
import torch

from latentsync.diffusion.sampler import Sampler
from latentsync.models import LipSyncModel, best_dtype, make_ready, precision


@pytest.mark.parametrize(
    ("capability", "dtype"),
    [
        ((6, 1), torch.float32),
        ((7, 5), torch.float16),
        ((8, 0), torch.bfloat16),
        ((9, 0), torch.bfloat16),
    ],
)
def test_a_gpu_computes_in_what_its_units_multiply(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], dtype: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: capability)
    assert best_dtype("cuda:1") == dtype


@pytest.mark.parametrize(("units", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_a_processor_computes_in_bfloat16_if_it_multiplies_it(
    monkeypatch: pytest.MonkeyPatch, units: bool, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(precision, "has_bfloat16_units", lambda: units)
    assert best_dtype("cpu") == dtype


def test_in_float32_the_memory_order_is_left_alone(
    model: LipSyncModel, faces: torch.Tensor, audio: torch.Tensor
) -> None:
    arguments = {"sampler": Sampler("ddim", 2, 1.5), "noise": torch.ones(1, 4, 1, 8, 8)}
    before = model.generate(faces, audio, **arguments)
    ready = make_ready(model, device="cpu", dtype=torch.float32)
    assert torch.equal(ready.generate(faces, audio, **arguments), before)
    assert model.unet.mid_block.resnets[0].conv1.weight.is_contiguous()


def test_in_half_precision_the_vae_is_channels_last(model: LipSyncModel) -> None:
    make_ready(model, device="cpu", dtype=torch.bfloat16)
    for net, order in (
        (model.unet, torch.contiguous_format),
        (model.codec.vae.net, torch.channels_last),
    ):
        for weight in net.parameters():
            assert weight.dtype == torch.bfloat16
            assert weight.dim() != 4 or weight.is_contiguous(memory_format=order)


@pytest.mark.slow
@pytest.mark.parametrize("interval", [1, 2])
def test_a_compiled_unet_draws_the_same(
    model: LipSyncModel, faces: torch.Tensor, audio: torch.Tensor, interval: int
) -> None:
    sampler = Sampler("dpmpp", 4, 1.5, deepcache_interval=interval)
    arguments = {"sampler": sampler, "noise": torch.ones(1, 4, 1, 8, 8)}
    before = model.generate(faces, audio, **arguments)
    make_ready(model, device="cpu", dtype=torch.float32, compile_unet=True)
    drawn = model.generate(faces, audio, **arguments)
    torch.testing.assert_close(drawn, before, atol=1e-3, rtol=0)
