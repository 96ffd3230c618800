"""A new UNet takes from Stable Diffusion 1.5 what both have in common."""

import logging
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel

from latentsync.models import UNet, save_network
from latentsync.weights import load_official_unet, unet_from_sd

SHAPE = {"block_out_channels": (32, 64), "layers_per_block": 1, "norm_num_groups": 32}
DRAWN = ("conv_in.", ".attn2.to_k.", ".attn2.to_v.", ".motion_modules.")


@pytest.fixture(scope="module")
def diffusion(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, UNet2DConditionModel]:
    """A folder like that of Stable Diffusion, and its UNet: 4 channels, text states 24 wide."""
    torch.manual_seed(4)
    net = UNet2DConditionModel(
        **SHAPE,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=8,
        cross_attention_dim=24,
    )
    folder = tmp_path_factory.mktemp("sd")
    save_network(net, folder / "unet")
    return folder, net


def test_all_but_the_input_and_what_audio_enters_is_taken(
    diffusion: tuple[Path, UNet2DConditionModel], caplog: pytest.LogCaptureFixture
):
    folder, original = diffusion
    caplog.set_level(logging.INFO)
    config = {**SHAPE, "attention_levels": (True, False), "motion": "all"}
    new = unet_from_sd(folder, **config, cross_attention_dim=16)
    theirs = original.state_dict()
    for key, value in new.state_dict().items():
        if any(part in key for part in DRAWN):
            assert key not in theirs or not torch.equal(theirs[key], value)
        else:
            torch.testing.assert_close(value, theirs[key], rtol=0, atol=0)
    assert "drawn anew: conv_in, attn2.to_k, attn2.to_v, motion_modules" in caplog.text


def test_the_names_of_the_full_size_are_those_of_stable_diffusion():
    with torch.device("meta"):
        theirs = UNet2DConditionModel(
            cross_attention_dim=768, attention_head_dim=8, sample_size=64
        ).state_dict()
        ours = UNet(motion="none").state_dict()
    assert ours.keys() == theirs.keys()
    differ = {key for key, value in ours.items() if value.shape != theirs[key].shape}
    assert all(any(part in key for part in DRAWN) for key in differ)
    assert len(differ) == 1 + 2 * 16  # conv_in.weight, and two in each of 16 transformers


def test_another_shape_is_named(diffusion: tuple[Path, UNet2DConditionModel]):
    config = {**SHAPE, "block_out_channels": (32, 32), "attention_levels": (True, False)}
    with pytest.raises(ValueError, match=r"do not fit a UNet.*in the file, .* here"):
        unet_from_sd(diffusion[0], **config)


def test_a_folder_without_a_unet_says_what_to_put_there(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"unet/diffusion_pytorch_model\.safetensors"):
        unet_from_sd(tmp_path)


def test_a_unet_of_stable_diffusion_is_no_latentsync_unet(
    diffusion: tuple[Path, UNet2DConditionModel],
):
    path = diffusion[0] / "unet" / "diffusion_pytorch_model.safetensors"
    with pytest.raises(ValueError, match=r"4 channels.*unet_from_sd"):
        load_official_unet(path)
