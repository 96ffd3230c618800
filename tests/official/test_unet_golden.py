"""The UNet computes the same as the official one, with official keys and shapes."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from latentsync.models import UNet
from latentsync.weights import (
    export_official_unet,
    load_official_unet,
    official_unet_keys,
    official_unet_state,
    unet_config,
    unet_key,
)
from official.recipe import DATA, fill, official_shapes, randn

CONFIGS = {"stage1": "none", "stage2": "all", "stage2_efficient": "decoder"}


def names_of(config: str) -> list[str]:
    """The official names of a config: stage 2 has all of them, the others fewer motion modules."""
    names = list(official_shapes("unet_stage2"))
    if config == "stage1":
        return [name for name in names if ".motion_modules." not in name]
    if config == "stage2_efficient":
        return [n for n in names if ".motion_modules." not in n or n.startswith("up_blocks.")]
    return names


def tiny_unet(config: str) -> UNet:
    net = UNet(block_out_channels=(32, 64, 64, 64), motion=CONFIGS[config])
    own = net.state_dict()
    names = [name for name in names_of(config) if unet_key(name) in own]  # fewer shortcuts
    return fill(net, names, unet_key, prefix="tinyunet/")


@pytest.mark.parametrize("config", CONFIGS)
def test_tiny_unet_equals_official_in_output_loss_and_gradients(config: str) -> None:
    golden = np.load(DATA / f"tiny_unet_{config}.npz")
    net = tiny_unet(config)

    out = net(
        randn("tiny/x", 2, 13, 16, 16, 16),
        torch.tensor([37, 820]),
        randn("tiny/e", 2, 16, 50, 384),
    )
    loss = (out - randn("tiny/t", 2, 4, 16, 16, 16)).square().mean()
    loss.backward()

    torch.testing.assert_close(
        out[:, :, ::3].detach(), torch.from_numpy(golden["out"]), atol=2e-5, rtol=0
    )
    assert loss.item() == pytest.approx(golden["loss"].item(), abs=1e-6)
    weights = dict(net.named_parameters())
    norms = [weights[unet_key(key)].grad.norm().item() for key in golden["grad_keys"]]
    np.testing.assert_allclose(norms, golden["grad_norm"], rtol=1e-4)
    firsts = [weights[unet_key(key)].grad.flatten()[:8] for key in golden["grad_keys"]]
    np.testing.assert_allclose(torch.stack(firsts), golden["grad_first8"], atol=1e-6, rtol=1e-3)
    total = torch.stack([weight.grad.norm() for weight in weights.values()]).norm()
    assert total.item() == pytest.approx(golden["total_grad_norm"].item(), rel=1e-4)


def test_bfloat16_autocast_departs_no_more_than_the_official_code() -> None:
    golden = np.load(DATA / "tiny_unet_stage2.npz")
    with torch.autocast("cpu", torch.bfloat16):
        out = tiny_unet("stage2")(
            randn("tiny/x", 2, 13, 16, 16, 16),
            torch.tensor([37, 820]),
            randn("tiny/e", 2, 16, 50, 384),
        )
    departure = out[:, :, ::3].detach().float() - torch.from_numpy(golden["out"])
    official_max, official_rms = golden["bf16_autocast_max_rms"]
    assert departure.abs().max() < 1.5 * official_max
    assert departure.square().mean().sqrt() < 1.2 * official_rms


@pytest.mark.parametrize("config", CONFIGS)
def test_full_size_names_and_shapes_are_the_official_ones(config: str) -> None:
    with torch.device("meta"):
        net = UNet(motion=CONFIGS[config])
    exported = {
        name: tuple(value.shape) for name, value in official_unet_state(net, "unet.pt").items()
    }
    shapes = official_shapes("unet_stage2")
    assert exported == {name: shapes[name] for name in names_of(config)}


@pytest.mark.parametrize("config", CONFIGS)
def test_the_shape_of_a_published_unet_is_read_off_its_tensors(config: str) -> None:
    with torch.device("meta"):
        state = UNet(motion=CONFIGS[config]).state_dict()
    assert unet_config(state) == {
        "in_channels": 13,
        "out_channels": 4,
        "block_out_channels": [320, 640, 1280, 1280],
        "attention_levels": [True, True, True, False],
        "layers_per_block": 2,
        "cross_attention_dim": 384,
        "motion": CONFIGS[config],
        **({"motion_max_seq_length": 24} if config != "stage1" else {}),
    }


@pytest.mark.slow
def test_full_size_unet_passes_through_the_official_values() -> None:
    """Takes 6 GB and a minute; the first values, mean and standard deviation after every block."""
    trace = json.loads((DATA / "unet_stage2_trace.json").read_text())["A"]
    net = fill(UNet(motion="all"), names_of("stage2"), unet_key)
    outputs = {}

    def keep(
        name: str, block: nn.Module, args: object, output: Tensor | tuple[Tensor, ...]
    ) -> None:
        value = output[0] if isinstance(output, tuple) else output
        outputs[name] = value.transpose(0, 1) if value.ndim == 4 else value  # f c h w => c f h w

    for name in set(trace) - {"conv_norm_out"}:  # called as a function of the clip
        net.get_submodule(name).register_forward_hook(partial(keep, name))
    with torch.no_grad():
        net(randn("unet/sample/A", 1, 13, 2, 16, 16), 500, randn("unet/enc/A", 1, 2, 50, 384))

    for name, output in outputs.items():
        official = trace[name]
        np.testing.assert_allclose(output.flatten()[:8], official["first8"], atol=1e-4)
        np.testing.assert_allclose(output.mean(), official["mean"], atol=1e-5)
        np.testing.assert_allclose(output.std(), official["std"], atol=1e-5)


def test_export_then_import_gives_the_same_tensors(tmp_path: Path) -> None:
    net = tiny_unet("stage2")
    export_official_unet(net, tmp_path / "unet.pt")
    loaded = load_official_unet(tmp_path / "unet.pt")
    assert loaded.config.motion == "all"
    torch.testing.assert_close(loaded.state_dict(), net.state_dict(), atol=0, rtol=0)


def test_names_of_version_1_0_are_translated(tmp_path: Path) -> None:
    net = tiny_unet("stage2_efficient")
    old = {
        name.replace(".norm2.", ".audio_cross_attn.norm.").replace(
            ".attn2.", ".audio_cross_attn.attn."
        )
        if ".transformer_blocks.0." in key and ".motion_modules." not in key
        else name: value
        for key, value in net.state_dict().items()
        for name in official_unet_keys(key)
    }
    torch.save(old, tmp_path / "old.pt")  # bare: without a "state_dict" around it
    loaded = load_official_unet(tmp_path / "old.pt")
    torch.testing.assert_close(loaded.state_dict(), net.state_dict(), atol=0, rtol=0)


def test_a_half_precision_file_is_cast(tmp_path: Path) -> None:
    net = tiny_unet("stage1")
    export_official_unet(net.half(), tmp_path / "half.pt")
    assert load_official_unet(tmp_path / "half.pt").dtype == torch.float32


def test_a_missing_or_misshapen_tensor_is_named(tmp_path: Path) -> None:
    state = tiny_unet("stage1").state_dict()
    state["conv_out.bias"] = state["conv_out.bias"][:3]
    del state["time_embedding.linear_1.bias"]
    torch.save({"state_dict": state}, tmp_path / "damaged.pt")
    with pytest.raises(
        ValueError, match=r"conv_out\.bias: \(3,\) in the file, \(4,\) here"
    ) as raised:
        load_official_unet(tmp_path / "damaged.pt")
    assert "time_embedding.linear_1.bias: nothing in the file, (128,) here" in str(raised.value)


def test_wrong_files_are_refused(tmp_path: Path) -> None:
    torch.save({"visual_encoder.conv_in.weight": torch.zeros(1)}, tmp_path / "syncnet.pt")
    with pytest.raises(ValueError, match="no official UNet"):
        load_official_unet(tmp_path / "syncnet.pt")

    export_official_unet(tiny_unet("stage1"), tmp_path / "whole.pt")
    (tmp_path / "short.pt").write_bytes((tmp_path / "whole.pt").read_bytes()[:200_000])
    with pytest.raises(ValueError, match="cut short"):
        load_official_unet(tmp_path / "short.pt")

    torch.save({"state_dict": Path}, tmp_path / "code.pt")
    with pytest.raises(ValueError, match="holds code"):
        load_official_unet(tmp_path / "code.pt")

    with pytest.raises(FileNotFoundError, match=r"there is no weight file .*none\.pt"):
        load_official_unet(tmp_path / "none.pt")


def test_a_unet_that_official_code_cannot_hold_is_not_exported(tmp_path: Path) -> None:
    net = UNet(
        block_out_channels=(32,),
        attention_levels=(True,),
        audio_projection={"tokens_in": 8, "dim_in": 5, "tokens_out": 2},
    )
    with pytest.raises(ValueError, match="audio_projection"):
        export_official_unet(net, tmp_path / "unet.pt")
