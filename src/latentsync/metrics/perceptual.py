"""LPIPS and DISTS inside and outside the regenerated region, by a VGG-16 that the user brings.

Both compare features at every position. Here each position counts as much as the region covers it,
so that a region of everything gives what the published networks give. The small weights on top of
VGG-16 are those that torchmetrics ships.
"""

import math
from collections.abc import Iterator
from functools import cache
from importlib import resources
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from latentsync.metrics.base import Figure
from latentsync.metrics.masked import MaskedMean

# The stages of VGG-16, and the numbers of their layers in torchvision's file.
WIDTHS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
LAYERS = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))
LPIPS_SHIFT, LPIPS_SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
VGG_FILE = "vgg16-397923af.pth"
WHAT_TO_FETCH = (
    f"evaluator.vgg is null: give the path of torchvision's {VGG_FILE} "
    f"(https://download.pytorch.org/models/{VGG_FILE})"
)
SMALL = 1e-6
FRAMES_AT_ONCE = 4

Faces = Float[Tensor, "n 3 h w"]
Region = Float[Tensor, "n 1 h w"]
# The weights of every channel in each stage.
Heads = tuple[Float[Tensor, " _"], ...]


class Vgg(nn.Module):
    """The convolutions of VGG-16; between its stages maximum pooling, or L2 pooling for DISTS."""

    def __init__(self, *, l2_pooling: bool) -> None:
        super().__init__()
        starts = [3, *(widths[-1] for widths in WIDTHS[:-1])]
        self.stages = nn.ModuleList(
            nn.Sequential(
                *(
                    part
                    for a, b in pairwise((width, *widths))
                    for part in (nn.Conv2d(a, b, 3, padding=1), nn.ReLU())
                )
            )
            for width, widths in zip(starts, WIDTHS, strict=True)
        )
        self.l2_pooling = l2_pooling

    def forward(self, hidden: Faces) -> list[Float[Tensor, "n c _ _"]]:
        """The features at the end of each stage."""
        features = []
        for index, stage in enumerate(self.stages):
            if index:
                hidden = l2_pooled(hidden) if self.l2_pooling else F.max_pool2d(hidden, 2)
            hidden = stage(hidden)
            features.append(hidden)
        return features


def l2_pooled(hidden: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c _ _"]:
    window = torch.from_numpy(np.hanning(5)[1:-1]).to(hidden)
    kernel = torch.outer(window, window)
    kernel = (kernel / kernel.sum()).expand(hidden.shape[1], 1, -1, -1)
    pooled = F.conv2d(hidden.square(), kernel, stride=2, padding=1, groups=hidden.shape[1])
    return (pooled + 1e-12).sqrt()


def lpips(net: Vgg, heads: Heads, pair: tuple[Faces, Faces], region: Region) -> Float[Tensor, " n"]:
    """LPIPS (Zhang et al. 2018) of two pictures in [-1, 1], over a region."""
    shift, scale = (
        region.new_tensor(values)[:, None, None] for values in (LPIPS_SHIFT, LPIPS_SCALE)
    )
    total = torch.zeros(len(region), dtype=region.dtype, device=region.device)
    ours, theirs = (net((pixels - shift) / scale) for pixels in pair)
    for head, one, other in zip(heads, ours, theirs, strict=True):
        difference = (_of_length_1(one) - _of_length_1(other)).square()
        place = (difference * head[:, None, None]).sum(dim=1, keepdim=True)
        total += _mean_in(place, _at_size_of(place, region))[:, 0]
    return total


def dists(net: Vgg, heads: Heads, pair: tuple[Faces, Faces], region: Region) -> Float[Tensor, " n"]:
    """DISTS (Ding et al. 2020) of two pictures in [-1, 1], over a region.

    `heads`: weights of texture, then of structure, for the picture and each stage.
    """
    mean, std = (
        region.new_tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD)
    )
    both = [
        [picture, *net((picture - mean) / std)] for picture in ((pixels + 1) / 2 for pixels in pair)
    ]
    count = len(both[0])
    similarity = torch.zeros(len(region), dtype=region.dtype, device=region.device)
    for texture, structure, one, other in zip(heads[:count], heads[count:], *both, strict=True):
        where = _at_size_of(one, region)
        ours, theirs = _mean_in(one, where), _mean_in(other, where)
        similarity += (texture * (2 * ours * theirs + SMALL) / (ours**2 + theirs**2 + SMALL)).sum(1)
        spreads = [
            _mean_in((each - middle[..., None, None]).square(), where)
            for each, middle in ((one, ours), (other, theirs))
        ]
        common = _mean_in(one * other, where) - ours * theirs
        similarity += (structure * (2 * common + SMALL) / (sum(spreads) + SMALL)).sum(1)
    return 1 - similarity


KINDS = {"lpips": (lpips, "Zhang et al. 2018, VGG-16"), "dists": (dists, "Ding et al. 2020")}


class MaskedPerceptual(MaskedMean):
    """LPIPS or DISTS (`kind`) by region, of every `stride`-th frame; `backbone`: VGG-16's file."""

    def __init__(
        self, region: str, kind: str, *, backbone: str | Path | None, stride: int = 5
    ) -> None:
        super().__init__(region)
        if kind not in KINDS:
            raise ValueError(f"kind={kind!r} must be one of {', '.join(KINDS)}")
        self.kind, self.stride = kind, stride
        self.backbone = None if backbone is None else Path(backbone)
        self.not_ready = WHAT_TO_FETCH if backbone is None else None
        measure, source = KINDS[kind]
        self.measure = measure
        label = f"{kind.upper()} {region}"
        self.figures = (Figure(f"{kind}_{region}", label, kind, "lower", 0.0, math.inf, source),)

    def update(self, pixels: Float[Tensor, "b f c h w"], **given: Tensor) -> None:
        """Add clips; `given` holds the inputs named in `needs`."""
        assert self.backbone is not None
        net, heads = load_network(self.backbone, self.kind)
        for clip, truth, where in zip(
            pixels, given[self.reference], given[self.where], strict=True
        ):
            taken = [each[:: self.stride] for each in (clip, truth, where)]
            with torch.inference_mode():
                values = [
                    self.measure(net, heads, (one, other), region)
                    for one, other, region in _in_parts(taken)
                ]
            self.add(torch.cat(values).mean()[None])


@cache
def load_network(backbone: Path, kind: str) -> tuple[Vgg, Heads]:
    """VGG-16 and the weights on top of it, shared by all metrics of one kind."""
    if not backbone.is_file():
        raise FileNotFoundError(f"no VGG-16 at {backbone}: {WHAT_TO_FETCH}")
    net = Vgg(l2_pooling=kind == "dists").eval().requires_grad_(False)
    state = torch.load(backbone, map_location="cpu", weights_only=True)
    renamed = {
        f"stages.{stage}.{2 * index}.{part}": f"features.{layer}.{part}"
        for stage, layers in enumerate(LAYERS)
        for index, layer in enumerate(layers)
        for part in ("weight", "bias")
    }
    absent = sorted(set(renamed.values()) - state.keys())
    if absent:
        raise ValueError(f"{backbone} is no VGG-16 of torchvision: it lacks {absent[0]}")
    net.load_state_dict({own: state[name] for own, name in renamed.items()}, strict=True)
    return net, load_heads(kind)


def load_heads(kind: str) -> Heads:
    """The published weights of LPIPS or DISTS, from the installed torchmetrics."""
    images = resources.files("torchmetrics.functional.image")
    name = {"lpips": "lpips_models/vgg.pth", "dists": "dists_models/weights.pt"}[kind]
    with resources.as_file(images.joinpath(name)) as path:
        state = torch.load(path, map_location="cpu", weights_only=True)
    if kind == "lpips":
        return tuple(state[f"lin{index}.model.1.weight"].flatten() for index in range(len(WIDTHS)))
    sizes = [3, *(widths[-1] for widths in WIDTHS)]
    total = state["alpha"].sum() + state["beta"].sum()
    return tuple(
        part for key in ("alpha", "beta") for part in (state[key].flatten() / total).split(sizes)
    )


def _in_parts(tensors: list[Tensor]) -> Iterator[tuple[Tensor, ...]]:
    return zip(*(each.split(FRAMES_AT_ONCE) for each in tensors), strict=True)


def _of_length_1(features: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    return features / (features.square().sum(dim=1, keepdim=True).sqrt() + 1e-10)


def _at_size_of(features: Float[Tensor, "n c a b"], region: Region) -> Float[Tensor, "n 1 a b"]:
    height, width = features.shape[-2:]
    return F.adaptive_avg_pool2d(region, (height, width))


def _mean_in(
    values: Float[Tensor, "n c h w"], where: Float[Tensor, "n 1 h w"]
) -> Float[Tensor, "n c"]:
    weighted = rearrange(values * where, "n c h w -> n c (h w)").sum(dim=-1)
    return weighted / where.sum(dim=(2, 3))
