"""Noise and timesteps for training and sampling, in UNet order "b c f h w"."""

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor


def mixed_noise(
    latents: Float[Tensor, "b c f h w"],
    *,
    alpha: float = 1.0,
    generator: Generator | None = None,
) -> Float[Tensor, "b c f h w"]:
    """Unit-variance noise; any two frames have correlation alpha^2 / (1 + alpha^2).

    Frames share part of their noise (PYoCo, arXiv 2305.10474), which avoids flicker when sampling
    starts from the same noise for all frames.
    """
    shared = randn_like(latents[:, :, :1], generator) * alpha
    own = randn_like(latents, generator)
    return (own + shared) / (1 + alpha**2) ** 0.5


def stratified_timesteps(
    num_clips: int, num_timesteps: int, generator: Generator, *, shift: float = 1.0
) -> Int[Tensor, " b"]:
    """One timestep per clip, stratified over the batch to reduce gradient variance.

    Uniform, or with a `shift` above 1 more often noisy, by the formula of arXiv 2403.03206 (23).
    """
    if shift <= 0:
        raise ValueError(f"a shift of timesteps must be above 0, got {shift}")
    device = generator.device
    offset = torch.rand((), generator=generator, device=device)
    order = torch.randperm(num_clips, generator=generator, device=device)
    positions = (order + offset) / num_clips
    positions = shift * positions / (1 + (shift - 1) * positions)
    return (positions * num_timesteps).long().clamp(max=num_timesteps - 1)


def randn_like(tensor: Tensor, generator: Generator | None) -> Tensor:
    """Standard normal noise from the generator's device, so that a seed gives the same on a GPU."""
    device = tensor.device if generator is None else generator.device
    return torch.randn(tensor.shape, generator=generator, device=device, dtype=tensor.dtype).to(
        tensor.device
    )
