"""Conversion between pixels and scaled latents."""

from pathlib import Path
from typing import Self

import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from einops import rearrange
from jaxtyping import Float
from torch import Generator, Tensor

from latentsync.models.frozen import Frozen
from latentsync.models.serialization import load_library_network

# Frames per VAE call; more are no faster on a CPU. At 256 px each takes about 0.2 GB in a published
# VAE in float32.
FRAMES_AT_ONCE = 4


class LatentCodec:
    """A frozen VAE with the shift and scale that make its latents about standard normal.

    A VAE trained here stores a mean and standard deviation per channel (`latents_mean` and
    `latents_std` in its config); published ones store one `scaling_factor` and possibly a
    `shift_factor`.
    """

    def __init__(self, vae: AutoencoderKL) -> None:
        self.vae = Frozen(vae)
        config = vae.config
        num_channels = config.latent_channels
        if config.latents_mean is not None and config.latents_std is not None:
            shift, spread = torch.tensor(config.latents_mean), torch.tensor(config.latents_std)
        else:
            shift = torch.full((num_channels,), float(config.shift_factor or 0.0))
            spread = torch.full((num_channels,), 1 / config.scaling_factor)
        self._shift = shift.view(-1, 1, 1)
        self._spread = spread.view(-1, 1, 1)

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> Self:
        """The codec of a VAE folder in diffusers' layout."""
        if not (Path(folder) / "config.json").is_file():
            raise FileNotFoundError(f"no VAE in {folder}: it has no config.json")
        return cls(load_library_network(AutoencoderKL, folder))

    @classmethod
    def preview(cls, folder: Path | str, *, like: "LatentCodec") -> "LatentCodec":
        """A tiny VAE (TAESD, diffusers' AutoencoderTiny) instead of `like`, for quick previews.

        It must be distilled for the latents of that VAE; only channels and size can be checked.
        """
        config = Path(folder) / "config.json"
        if not config.is_file():
            raise FileNotFoundError(
                f"no preview VAE in {folder}: it has no config.json; put the files of "
                "madebyollin/taesd there, which goes with sd-vae-ft-mse"
            )
        tiny = PreviewCodec(load_library_network(AutoencoderTiny, folder))
        if (tiny.num_channels, tiny.factor) != (like.num_channels, like.factor):
            raise ValueError(
                f"the preview VAE in {folder} has latents of {tiny.num_channels} channels, "
                f"{tiny.factor} pixels wide; the model's have {like.num_channels} and "
                f"{like.factor}"
            )
        return tiny

    @property
    def num_channels(self) -> int:
        return self.vae.net.config.latent_channels

    @property
    def factor(self) -> int:
        """Pixels per latent along one side."""
        return 2 ** (len(self.vae.net.config.block_out_channels) - 1)

    def encode(
        self,
        pixels: Float[Tensor, "n 3 h w"],
        *,
        sample: bool = False,
        generator: Generator | None = None,
    ) -> Float[Tensor, "n c x y"]:
        """Pixels in [-1, 1] => scaled latents: the posterior's mean, or a sample of it."""
        with torch.no_grad():
            posterior = DiagonalGaussianDistribution(
                torch.cat(
                    [
                        self.vae.net.encode(some.to(self.vae.net.dtype)).latent_dist.parameters
                        for some in pixels.split(FRAMES_AT_ONCE)
                    ]
                )
            )
            latents = posterior.sample(generator) if sample else posterior.mode()
        latents = latents.to(pixels.dtype)
        return (latents - self._shift.to(latents)) / self._spread.to(latents)

    def decode(self, latents: Float[Tensor, "n c x y"]) -> Float[Tensor, "n 3 h w"]:
        """Scaled latents => pixels, about in [-1, 1]; gradients flow to the latents."""
        unscaled = latents * self._spread.to(latents) + self._shift.to(latents)
        pixels = [
            self.vae.net.decode(some.to(self.vae.net.dtype)).sample
            for some in unscaled.split(FRAMES_AT_ONCE)
        ]
        return torch.cat(pixels).to(latents.dtype)

    def encode_clips(
        self,
        pixels: Float[Tensor, "b f 3 h w"],
        *,
        sample: bool = False,
        generator: Generator | None = None,
    ) -> Float[Tensor, "b c f x y"]:
        """Pixels in video order => scaled latents in UNet order; see `encode`."""
        frames = rearrange(pixels, "b f c h w -> (b f) c h w")
        latents = self.encode(frames, sample=sample, generator=generator)
        return rearrange(latents, "(b f) c x y -> b c f x y", f=pixels.shape[1])

    def decode_clips(self, latents: Float[Tensor, "b c f x y"]) -> Float[Tensor, "b f 3 h w"]:
        """Scaled latents in UNet order => pixels in video order."""
        pixels = self.decode(rearrange(latents, "b c f x y -> (b f) c x y"))
        return rearrange(pixels, "(b f) c h w -> b f c h w", f=latents.shape[2])

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Self:
        """Move (and cast) the VAE in place."""
        self.vae.to(device=device, dtype=dtype)
        return self


class PreviewCodec(LatentCodec):
    """A tiny VAE distilled for the scaled latents of a full one; its encoder is deterministic."""

    def __init__(self, vae: AutoencoderTiny) -> None:
        self.vae = Frozen(vae)
        self._shift, self._spread = torch.zeros(1, 1, 1), torch.ones(1, 1, 1)

    def encode(
        self,
        pixels: Float[Tensor, "n 3 h w"],
        *,
        sample: bool = False,
        generator: Generator | None = None,
    ) -> Float[Tensor, "n c x y"]:
        """Pixels in [-1, 1] => approximately the scaled latents of the full VAE."""
        if sample:
            raise ValueError(
                "a preview VAE has no posterior to sample: sampler.sample_latents, and so"
                " preset=official, needs the whole VAE"
            )
        with torch.no_grad():
            latents = [
                self.vae.net.encode(some.to(self.vae.net.dtype)).latents
                for some in pixels.split(FRAMES_AT_ONCE)
            ]
        return torch.cat(latents).to(pixels.dtype)
