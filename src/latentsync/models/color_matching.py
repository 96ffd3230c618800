"""Match the colour of the generated part to its surroundings."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

FAR = 1e-3
TOLERANCE = 0.1
TINY = 1e-6
CELLS = 32  # along a side; the low frequencies of an error are wider than one cell


def match_surroundings(
    decoded: Float[Tensor, "b f 3 h w"],
    pixels: Float[Tensor, "b f 3 h w"],
    mask: Float[Tensor, "h w"],
    *,
    reach: float = 0.08,
) -> Float[Tensor, "b f 3 h w"]:
    """Correct decoded faces inside the mask by the low-frequency error measured outside it.

    A VAE shifts colours slightly, which makes the border of a pasted patch visible. The kept part
    is decoded too, so the shift is known there; a Gaussian mean of it (`reach` is its standard
    deviation as a fraction of the side) extends it into the painted part, weighted by distance.
    Pixels that differ by more than `TOLERANCE` get little weight.
    """
    return match_cells(decoded, colour_cells(pixels, mask), mask, reach=reach)


def colour_cells(
    pixels: Float[Tensor, "*f 3 h w"], mask: Float[Tensor, "h w"]
) -> Float[Tensor, "*f 3 c c"]:
    """The mean colour of the kept pixels in each cell of a grid of at most 32 cells a side (0 in
    cells without any): all that `match_cells` needs of a face."""
    known = (mask > 0.999).to(pixels)
    share = _by_cell(known[None, None])
    kept = _by_cell((pixels * known).flatten(0, -4)) / share.clamp(min=TINY)
    return kept.unflatten(0, pixels.shape[:-3])


def match_cells(
    decoded: Float[Tensor, "b f 3 h w"],
    cells: Float[Tensor, "b f 3 c c"],
    mask: Float[Tensor, "h w"],
    *,
    reach: float = 0.08,
) -> Float[Tensor, "b f 3 h w"]:
    """`match_surroundings`, given the faces' `colour_cells`."""
    share = _by_cell((mask > 0.999).to(decoded)[None, None])[0, 0]
    shift = (cells - colour_cells(decoded, mask)) * (share > 0)
    # Clothes and hair may differ for other reasons, which must not affect skin.
    trust = share / (1 + shift.square().mean(dim=2, keepdim=True) / TOLERANCE**2)
    weighted = shift * trust
    # Far from all known cells, use their overall mean.
    mean = weighted.sum(dim=(-2, -1), keepdim=True) / trust.sum(dim=(-2, -1), keepdim=True)
    down, across = (spreading(side, reach * side).to(decoded) for side in cells.shape[-2:])
    slow = (down @ weighted @ across + FAR * mean) / (down @ trust @ across + FAR)
    size = decoded.shape[-2:]
    wide = functional.interpolate(slow.flatten(0, 1), size=size, mode="bilinear")
    return decoded + wide.unflatten(0, slow.shape[:2])


def _by_cell(pictures: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h2 w2"]:
    height, width = pictures.shape[-2:]
    return functional.adaptive_avg_pool2d(pictures, (min(CELLS, height), min(CELLS, width)))


def spreading(side: int, deviation: float) -> Float[Tensor, "s s"]:
    """A Gaussian blur of `side` values as a matrix, zero beyond the ends.

    As a matrix product it takes a tenth of the time of such a wide convolution.
    """
    weights = gaussian(deviation)
    places = torch.arange(side)
    apart = places[:, None] - places + len(weights) // 2
    inside = (apart >= 0) & (apart < len(weights))
    return weights[apart.clamp(0, len(weights) - 1)] * inside


def gaussian(deviation: float) -> Float[Tensor, " k"]:
    """A normalised Gaussian, long enough to reach from the middle of the mask to its edges."""
    radius = round(4 * deviation)
    places = torch.arange(-radius, radius + 1)
    weights = torch.exp(-((places / deviation) ** 2) / 2)
    return weights / weights.sum()
