"""The published alignment and crop, bit-exact: float32, with the same order of operations.

The official code truncates levels, so the last bit of a matrix can change a pixel by one level,
which changes latents by 0.01.
"""

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from latentsync.faces.detectors.base import three_points
from latentsync.faces.placement import Placement, Points, crop_template
from latentsync.faces.warp import Matrix

BORDER_LEVEL = 127


class OfficialAligner:
    """Rounded points with negligible smoothing, as in the current official code."""

    def __init__(self, resolution: int) -> None:
        template, self.size = crop_template(resolution)
        self.template = normalise(torch.from_numpy(template).float())
        self.bias: Float[Tensor, "2"] | None = None

    points_of = staticmethod(three_points)

    def placements(self, points: Iterable[Points | None]) -> Iterator[Placement | None]:
        """One placement per triple of points, None for None."""
        return (None if triple is None else self.place(triple) for triple in points)

    def place(self, points: Points) -> Placement:
        unit, spread, center = normalise(torch.from_numpy(np.round(points)).float())
        template_unit, template_spread, template_center = self.template
        u, _, v = torch.svd(unit.T @ template_unit)
        rotation = v @ u.T
        if torch.det(rotation) < 0:
            v[:, -1] *= -1
            rotation = v @ u.T
        scale = template_spread / spread
        shift = template_center - scale * (rotation @ center)
        # A dimensionless offset of the nose, averaged over time and added to pixels: less than one
        # pixel, but part of the published results.
        bias = template_unit[2] - unit[2]
        self.bias = bias if self.bias is None else 0.2 * self.bias + 0.8 * bias
        matrix = torch.cat([scale * rotation, (shift + self.bias)[:, None]], dim=1)
        return Placement(matrix.double().numpy(), self.size)


def normalise(
    points: Float[Tensor, "3 2"],
) -> tuple[Float[Tensor, "3 2"], Float[Tensor, ""], Float[Tensor, "2"]]:
    """Centred points divided by their standard deviation; the deviation; the centre."""
    center = points.mean(dim=0)
    spread = (points - center).std()
    if spread == 0:
        raise ValueError(f"the three points of a face fall together: {points.tolist()}")
    return (points - center) / spread, spread, center


def cut(
    frame: UInt8[np.ndarray, "h w 3"], matrix: Matrix, size: tuple[int, int]
) -> UInt8[np.ndarray, "h2 w2 3"]:
    """The (w, h) crop of a frame, bilinear, levels truncated; pixels outside the frame are 127."""
    height, width = frame.shape[:2]
    picture = torch.from_numpy(frame).float().permute(2, 0, 1)[None]
    grid = sampling_grid(torch.from_numpy(matrix).float(), size, (width, height))[None]
    covered = torch.ones(1, 1, 1, 1).expand(1, 1, height, width)
    levels, share = (
        F.grid_sample(source, grid, align_corners=True)[0].permute(1, 2, 0)
        for source in (picture, covered)
    )
    return (levels + (1 - share) * BORDER_LEVEL).numpy().astype(np.uint8)


def sampling_grid(
    matrix: Float[Tensor, "2 3"], size: tuple[int, int], frame_size: tuple[int, int]
) -> Float[Tensor, "h w 2"]:
    """Frame coordinates of each pixel of a crop; the frame's corners are at -1 and 1."""
    (width, height), (frame_width, frame_height) = size, frame_size
    x, y = (frame_width - 1) / 2, (frame_height - 1) / 2
    pixels = torch.tensor([[x, 0, x], [0, y, y], [0, 0, 1.0]])
    units = torch.tensor([[2 / (width - 1), 0, -1], [0, 2 / (height - 1), -1], [0, 0, 1.0]])
    forth = units @ (torch.cat([matrix, pixels[2:]]) @ pixels)
    # Matrix inverse by cross products.
    columns = [torch.linalg.cross(forth[i - 2], forth[i - 1]) for i in range(3)]
    back = torch.stack(columns, dim=1) / (forth[0] * columns[0]).sum()
    down, right = torch.linspace(-1, 1, height)[:, None], torch.linspace(-1, 1, width)
    return torch.stack([row[0] * right + row[1] * down + row[2] for row in back[:2]], dim=-1)
