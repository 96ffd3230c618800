"""Distances of two sets of pictures or clips: FID, KID, CMMD, FVD.

The extractor is a TorchScript file of the user's. Of fewer than some 2,000 samples these figures
are noise: read their number beside them, and never compare figures of different extractors.
"""

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from latentsync.metrics.base import ClipRows, Figure

CMMD_SIGMA, CMMD_SCALE = 10.0, 1000.0
MIN_SAMPLES = 2
AT_ONCE = 8

Features = Float[Tensor, "n d"]


def frechet_distance(ours: Features, theirs: Features) -> float:
    """Distance of two normal distributions with the sets' means and covariances."""
    ours, theirs = ours.double(), theirs.double()
    one, other = torch.cov(ours.T), torch.cov(theirs.T)
    # Tr sqrt(S1 S2) = Tr sqrt(R S2 R) with R = sqrt(S1), which is symmetric.
    values, vectors = torch.linalg.eigh(one)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    mixed = torch.linalg.eigvalsh(root @ other @ root).clamp(min=0).sqrt().sum()
    means = (ours.mean(dim=0) - theirs.mean(dim=0)).square().sum()
    return (means + one.trace() + other.trace() - 2 * mixed).item()


def kernel_distance(ours: Features, theirs: Features) -> float:
    """KID: unbiased squared MMD with the kernel (x y / d + 1)^3, over all samples at once."""
    return _mmd(ours, theirs, lambda x, y: (x @ y.T / x.shape[1] + 1) ** 3)


def cmmd(ours: Features, theirs: Features) -> float:
    """CMMD (arXiv 2401.09603): squared MMD with a Gaussian kernel of 10, of vectors of length 1."""
    one, other = (F.normalize(each.double(), dim=1) for each in (ours, theirs))

    def kernel(x: Features, y: Features) -> Float[Tensor, "n m"]:
        return torch.exp(-torch.cdist(x, y).square() / (2 * CMMD_SIGMA**2))

    means = kernel(one, one).mean() + kernel(other, other).mean() - 2 * kernel(one, other).mean()
    return CMMD_SCALE * means.item()


def _mmd(ours: Features, theirs: Features, kernel: Callable[[Features, Features], Tensor]) -> float:
    ours, theirs = ours.double(), theirs.double()

    def without_itself(each: Features) -> Tensor:
        values = kernel(each, each)
        return (values.sum() - values.trace()) / (len(each) * (len(each) - 1))

    crossed = kernel(ours, theirs).mean()
    return (without_itself(ours) + without_itself(theirs) - 2 * crossed).item()


DISTANCES: Mapping[str, tuple[Callable[[Features, Features], float], str, str]] = {
    "fid": (frechet_distance, "FID", "Heusel et al. 2017"),
    "kid": (kernel_distance, "KID", "Binkowski et al. 2018"),
    "cmmd": (cmmd, "CMMD", "arXiv 2401.09603"),
    "fvd": (frechet_distance, "FVD", "Unterthiner et al. 2018"),
    "fvd_videomae": (frechet_distance, "FVD, VideoMAE", "Ge et al. 2024 (arXiv 2404.12391)"),
}
# What the extractor takes => levels in [-1, 1] brought to it.
LEVELS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "[-1,1]": lambda pixels: pixels,
    "[0,1]": lambda pixels: (pixels + 1) / 2,
    "[0,255]": lambda pixels: (pixels + 1) * 127.5,
}


@dataclass(frozen=True, slots=True)
class Extractor:
    """A TorchScript file, and what it takes: pictures of `side` pixels and of these `levels`, or
    clips "b c f h w" of `num_frames` such pictures; `arguments` are passed by name.
    """

    path: Path | str | None
    side: int
    levels: str
    num_frames: int | None = None
    arguments: Mapping[str, bool] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.levels not in LEVELS:
            raise ValueError(f"levels={self.levels!r} must be one of {', '.join(LEVELS)}")

    @torch.inference_mode()
    def __call__(self, pixels: Float[Tensor, "f 3 h w"]) -> Float[Tensor, "n d"]:
        """The features of faces in [-1, 1]; frames beyond the last whole clip are left out."""
        assert self.path is not None
        net = load_script(Path(self.path))
        size = (self.side, self.side)
        sized = F.interpolate(pixels, size, mode="bilinear", align_corners=False, antialias=True)
        samples = LEVELS[self.levels](sized.clamp(-1, 1))
        if self.num_frames is not None:
            whole = len(samples) // self.num_frames * self.num_frames
            samples = rearrange(samples[:whole], "(n f) c h w -> n c f h w", f=self.num_frames)
        parts = [net(part, **self.arguments).flatten(1) for part in samples.split(AT_ONCE)]
        return torch.cat(parts).double().cpu()

    def width(self) -> int:
        """Numbers in a feature."""
        return self(torch.zeros(self.num_frames or 1, 3, self.side, self.side)).shape[1]


@cache
def load_script(path: Path) -> torch.jit.ScriptModule:
    """A network in TorchScript, in eval mode."""
    if not path.is_file():
        raise FileNotFoundError(f"no TorchScript network at {path}")
    try:
        with warnings.catch_warnings():
            # Deprecated, but what the published extractors are stored in.
            warnings.filterwarnings("ignore", message=".torch.jit.load. is deprecated")
            return torch.jit.load(str(path), map_location="cpu").eval()
    except RuntimeError as error:
        raise ValueError(f"{path} is no TorchScript file: {error}") from error


class SetDistance(ClipRows):
    """Distances of the measured faces from the untouched ones, by an extractor of every `stride`-th
    picture, or of all clips.
    """

    needs = frozenset({"pixels", "original"})

    def __init__(self, distances: list[str], *, extractor: Extractor, stride: int = 1) -> None:
        super().__init__()
        unknown = sorted(set(distances) - DISTANCES.keys())
        if unknown:
            raise ValueError(f"distances={unknown} must be of {', '.join(DISTANCES)}")
        self.extractor, self.stride = extractor, stride
        self.distances = distances
        self.not_ready = None
        if extractor.path is None:
            self.not_ready = (
                "metrics.*.extractor.path is null: give a TorchScript file that takes "
                f"{extractor.side} px in {extractor.levels}"
            )
        count = Figure(
            f"{distances[0]}_samples", None, "samples", "-", 0.0, math.inf, "here", average=None
        )
        figures = [
            Figure(key, DISTANCES[key][1], "squared distance", "lower", -math.inf, math.inf,
                   DISTANCES[key][2], average=None)
            for key in distances
        ]  # fmt: skip
        self.figures = (*figures, count)

    @property
    def width(self) -> int:
        return 2 * self.extractor.width()

    def update(
        self, pixels: Float[Tensor, "b f c h w"], original: Float[Tensor, "b f c h w"]
    ) -> None:
        """Add clips."""
        for pair in zip(pixels, original, strict=True):
            ours, theirs = (self.extractor(each[:: self.stride]) for each in pair)
            self.add_rows(torch.cat([ours, theirs], dim=1))

    def compute(self) -> dict[str, float]:
        """The figures by key; NaN for fewer than two samples."""
        rows = self.table()
        ours, theirs = rows.chunk(2, dim=1)
        values = {
            key: DISTANCES[key][0](ours, theirs) if len(rows) >= MIN_SAMPLES else math.nan
            for key in self.distances
        }
        return {**values, f"{self.distances[0]}_samples": float(len(rows))}
