"""Augmentation so that a reader trained on clean crops can read generated ones: pixels => pixels.

Small shifts and scales, brightness and contrast, blur, 8x8 block compression and noise, each with a
random strength per image; none of them changes the shape of the mouth. torchvision's transforms
draw one strength per batch, from the global generator, and fill the edge: a seeded training of the
shipped reader would not be repeated.
"""

import math

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

SHIFT = 0.04
SCALE = 0.06
BRIGHTNESS = 0.15
CONTRAST = 0.2
LARGEST_STEP = 0.5
NOISE = 0.06
BLOCK = 8


def augment(
    pixels: Float[Tensor, "n c h w"], generator: torch.Generator
) -> Float[Tensor, "n c h w"]:
    """Degraded copies of the images; height and width must be multiples of eight."""
    pixels = shift(pixels, generator)
    pixels = blur(pixels, generator)
    pixels = compress(pixels, _uniform(pixels, generator, 0, 1) ** 2 * LARGEST_STEP)
    contrast = 1 + _uniform(pixels, generator, -CONTRAST, CONTRAST)
    brightness = _uniform(pixels, generator, -BRIGHTNESS, BRIGHTNESS)
    strength = _uniform(pixels, generator, 0, NOISE)
    noise = torch.randn(pixels.shape, generator=generator).to(pixels)
    return pixels * contrast + brightness + noise * strength


def shift(pixels: Float[Tensor, "n c h w"], generator: torch.Generator) -> Float[Tensor, "n c h w"]:
    """Shift and scale each image by a few percent, repeating the edge."""
    number = len(pixels)
    scale = 1 + (torch.rand(number, generator=generator) - 0.5) * 2 * SCALE
    move = (torch.rand(number, 2, generator=generator) - 0.5) * 4 * SHIFT
    matrix = torch.zeros(number, 2, 3)
    matrix[:, 0, 0] = matrix[:, 1, 1] = scale
    matrix[:, :, 2] = move
    grid = functional.affine_grid(matrix, list(pixels.shape), align_corners=False)
    return functional.grid_sample(
        pixels, grid.to(pixels), padding_mode="border", align_corners=False
    )


def blur(pixels: Float[Tensor, "n c h w"], generator: torch.Generator) -> Float[Tensor, "n c h w"]:
    """Blend half of the images with a copy at half or a quarter of their resolution."""
    divisor = 2 ** int(torch.randint(1, 3, (), generator=generator))
    small = functional.avg_pool2d(pixels, divisor)
    soft = functional.interpolate(small, size=pixels.shape[-2:], mode="bilinear")
    share = _uniform(pixels, generator, -1, 1).clamp(min=0)
    return pixels + (soft - pixels) * share


def compress(
    pixels: Float[Tensor, "n c h w"], step: Float[Tensor, "n 1 1 1"]
) -> Float[Tensor, "n c h w"]:
    """Quantise the 8x8 DCT coefficients, more coarsely for high frequencies, as JPEG does."""
    basis = _dct_basis().to(pixels)
    rank = torch.arange(BLOCK, dtype=pixels.dtype, device=pixels.device)
    steps = (step * (0.1 + (rank[:, None] + rank) / (2 * BLOCK)))[:, :, None, :, None]
    steps = steps.clamp(min=1e-4)
    blocks = rearrange(pixels, "n c (y p) (x q) -> n c y p x q", p=BLOCK, q=BLOCK)
    coefficients = torch.einsum("ncypxq,kp,lq->ncykxl", blocks, basis, basis)
    rounded = (coefficients / steps).round() * steps
    back = torch.einsum("ncykxl,kp,lq->ncypxq", rounded, basis, basis)
    return rearrange(back, "n c y p x q -> n c (y p) (x q)")


def _dct_basis() -> Float[Tensor, "8 8"]:
    """Orthonormal DCT-II basis, one frequency per row."""
    index = torch.arange(BLOCK, dtype=torch.float32)
    basis = torch.cos(math.pi * (index + 0.5) * index[:, None] / BLOCK)
    basis[0] /= math.sqrt(2)
    return basis * math.sqrt(2 / BLOCK)


def _uniform(
    pixels: Float[Tensor, "n c h w"], generator: torch.Generator, low: float, high: float
) -> Float[Tensor, "n 1 1 1"]:
    values = torch.rand(len(pixels), 1, 1, 1, generator=generator)
    return (low + (high - low) * values).to(pixels)
