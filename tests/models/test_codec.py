"""Conversion between pixels and latents, with a full VAE and a preview one."""

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from torch import Tensor

from latentsync.models import LatentCodec, PreviewCodec


@pytest.fixture
def codec() -> LatentCodec:
    torch.manual_seed(0)
    return LatentCodec(
        AutoencoderKL(
            down_block_types=["DownEncoderBlock2D"] * 4,
            up_block_types=["UpDecoderBlock2D"] * 4,
            block_out_channels=[4, 4, 8, 8],
            norm_num_groups=2,
            mid_block_add_attention=False,
        )
    )


def tiny_vae(**changes: object) -> AutoencoderTiny:
    torch.manual_seed(1)
    return AutoencoderTiny(
        **{
            "encoder_block_out_channels": (8,) * 4,
            "decoder_block_out_channels": (8,) * 4,
            "num_encoder_blocks": (1,) * 4,
            "num_decoder_blocks": (1,) * 4,
            **changes,
        }
    )


@pytest.fixture
def pixels(generator: torch.Generator) -> Tensor:
    return torch.rand(11, 3, 32, 32, generator=generator) * 2 - 1


def test_many_frames_draw_from_the_generator_as_one_batch(
    codec: LatentCodec, pixels: Tensor
) -> None:
    first, second = (torch.Generator().manual_seed(3) for _ in range(2))
    latents = codec.encode(pixels, sample=True, generator=first)
    with torch.no_grad():
        expected = codec.vae.net.encode(pixels).latent_dist.sample(second)
    torch.testing.assert_close(latents, expected * codec.vae.net.config.scaling_factor)
    assert torch.equal(first.get_state(), second.get_state())


def test_many_frames_decode_as_one_batch(codec: LatentCodec, generator: torch.Generator) -> None:
    latents = torch.randn(11, 4, 4, 4, generator=generator)
    with torch.no_grad():
        expected = codec.vae.net.decode(latents / codec.vae.net.config.scaling_factor).sample
        torch.testing.assert_close(codec.decode(latents), expected)


def test_a_preview_vae_speaks_scaled_latents(
    codec: LatentCodec, pixels: Tensor, tmp_path: Path
) -> None:
    vae = tiny_vae()
    vae.save_pretrained(tmp_path)
    preview = LatentCodec.preview(tmp_path, like=codec)
    with torch.no_grad():
        latents = vae.encode(pixels).latents
        torch.testing.assert_close(preview.encode(pixels), latents)
        torch.testing.assert_close(preview.decode(latents), vae.decode(latents).sample)
    assert preview.encode(pixels).shape == codec.encode(pixels).shape


def test_a_preview_vae_of_other_latents_is_refused(codec: LatentCodec, tmp_path: Path) -> None:
    tiny_vae(latent_channels=16).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="16 channels"):
        LatentCodec.preview(tmp_path, like=codec)
    with pytest.raises(FileNotFoundError, match="madebyollin/taesd"):
        LatentCodec.preview(tmp_path / "nothing", like=codec)


def test_a_preview_vae_has_nothing_to_sample(pixels: Tensor) -> None:
    with pytest.raises(ValueError, match="whole VAE"):
        PreviewCodec(tiny_vae()).encode(pixels, sample=True)
