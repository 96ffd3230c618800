"""Inputs and outputs of one training step: everything a loss may read."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import torch
from einops import rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from latentsync.batch import Batch
from latentsync.faces import mouth_shown
from latentsync.models.model_config import ModelFormat


@dataclass(frozen=True)
class Denoised:
    """What one training step predicted, in UNet order."""

    prediction: Float[Tensor, "b c f x y"]
    target: Float[Tensor, "b c f x y"]
    noisy: Float[Tensor, "b c f x y"]
    timesteps: Int[Tensor, " b"]
    x0: Float[Tensor, "b c f x y"]
    mask: Float[Tensor, "b 1 f x y"]
    signal: Float[Tensor, " b"]
    """Fraction of the noisy latents' variance that is signal: SNR / (1 + SNR) at the timesteps."""
    prediction_type: str
    decode: Callable[[Float[Tensor, "b c f x y"]], Float[Tensor, "b f 3 h w"]] = field(repr=False)

    @cached_property
    def pixels(self) -> Float[Tensor, "b f 3 h w"]:
        """The predicted clean frames; decoded once, and only if a loss asks."""
        return self.decode(self.x0)


def latents_of(
    batch: Batch, encode: Callable[[Float[Tensor, "b f 3 h w"]], Float[Tensor, "b c f x y"]]
) -> tuple[Tensor, Tensor, Tensor]:
    """The latents of the truth, the masked faces and the reference, in UNet order; encoded if the
    batch holds pixels only."""
    if "latents" in batch:
        stored = batch["latents"], batch["masked_latents"], batch["reference_latents"]
        truth, masked, reference = (
            rearrange(latents, "b f c x y -> b c f x y") for latents in stored
        )
        return truth, masked, reference
    pixels = batch["pixels"]
    encoded = encode(torch.cat([pixels, pixels * batch["mask"], batch["reference"]]))
    truth, masked, reference = encoded.chunk(3)
    return truth, masked, reference


def reference_shown(
    reference: Float[Tensor, "b c f x y"], form: ModelFormat
) -> Float[Tensor, "b c f x y"]:
    """What the UNet sees of the reference's latents: if the format hides its mouth, 0 there."""
    if form.reference_mouth:
        return reference
    return reference * torch.from_numpy(mouth_shown(reference.shape[-1])).to(reference)


def with_own_surroundings(
    latents: Float[Tensor, "b c f x y"],
    own: Float[Tensor, "b c f x y"],
    mask: Float[Tensor, "h w"],
) -> Float[Tensor, "b c f x y"]:
    """Generated latents with the face's own where the mask (1 = keep) keeps it.

    A UNet trained with `losses=recon_masked` predicts anything there, which the decoder would carry
    over the mask's edge, and colours would be matched to.
    """
    return torch.where(mask_cells(mask, latents) > 0.5, own.to(latents), latents)


def latent_mask(
    mask: Float[Tensor, "h w"], latents: Float[Tensor, "b c f x y"]
) -> Float[Tensor, "b 1 f x y"]:
    """The mask's cells for every frame of the latents."""
    num_clips, _, num_frames, *_ = latents.shape
    return repeat(mask_cells(mask, latents), "x y -> b 1 f x y", b=num_clips, f=num_frames)


def mask_cells(
    mask: Float[Tensor, "h w"], latents: Float[Tensor, "b c f x y"]
) -> Float[Tensor, "x y"]:
    """The mask at the size of latents: the top left pixel of each cell, as in the training of the
    published weights."""
    return functional.interpolate(mask[None, None], size=latents.shape[-2:])[0, 0].to(latents)
