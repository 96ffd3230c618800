"""LipScore and AVSu, AVSm, AVSv: a lip-reading network of the user's on both mouths.

Pre-processing: of aligned faces in [-1, 1] a square around the mouth, grey in [0, 1] less `mean` by
`std`, of `side` pixels, 25 frames per second. Figures of different networks do not compare.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from latentsync.metrics.artefacts import LUMA
from latentsync.metrics.base import ClipRows, Figure
from latentsync.metrics.sets import load_script

# The square around the mouth: aligned faces are a 3:4 crop squeezed to a square.
TOP, BOTTOM, LEFT, RIGHT = 0.40625, 0.96875, 0.125, 0.875
SAMPLES_PER_FRAME = 640  # 16 kHz, 25 frames per second
LIP_SCORE = "KeySync (arXiv 2505.00497): cosine of both mouths' features, mean over frames"
AVS = "arXiv 2405.04327: cosine of features, mean over frames"

Pixels = Float[Tensor, "1 f 3 h w"]
Crops = Float[Tensor, "f 1 s s"]
Features = Float[Tensor, "f d"]


@dataclass(frozen=True, slots=True)
class LipNetwork:
    """A TorchScript file and what it takes."""

    path: Path | str | None
    side: int
    mean: float
    std: float

    def crops(self, pixels: Pixels) -> Crops:
        """The mouths of aligned faces as the network takes them."""
        height, width = pixels.shape[-2:]
        rows = slice(round(TOP * height), round(BOTTOM * height))
        columns = slice(round(LEFT * width), round(RIGHT * width))
        mouths = pixels[0, ..., rows, columns]
        weights = mouths.new_tensor(LUMA)[:, None, None]
        grey = ((mouths + 1) / 2 * weights).sum(dim=1, keepdim=True)
        size = (self.side, self.side)
        sized = F.interpolate(grey, size, mode="bilinear", align_corners=False, antialias=True)
        return (sized - self.mean) / self.std

    @torch.inference_mode()
    def read(self, crops: Crops) -> Features:
        """`forward(pictures "1 f 1 s s")` => features "1 f d"."""
        return self._features(crops[None])

    @torch.inference_mode()
    def read_both(self, crops: Crops, sound: Float[Tensor, " t"]) -> Features:
        """`forward(pictures "1 f 1 s s", sound "1 t")` => features "1 f d"; what is absent is 0."""
        return self._features(crops[None], sound[None])

    def _features(self, *inputs: Tensor) -> Features:
        assert self.path is not None
        try:
            features = load_script(Path(self.path))(*inputs)
        except RuntimeError as error:
            shapes = " and ".join(str(tuple(each.shape)) for each in inputs)
            why = str(error).strip().splitlines()[-1]
            raise ValueError(
                f"{self.path} does not take inputs of shape {shapes}: {why}"
            ) from error
        num_frames = inputs[0].shape[1]
        if features.ndim != 3 or features.shape[:2] != (1, num_frames):
            raise ValueError(
                f"{self.path} gave features of shape {tuple(features.shape)} for {num_frames} "
                f"frames, wanted (1, {num_frames}, d)"
            )
        return features[0].double().cpu()


class ReadsLips(ClipRows):
    """A metric that asks a lip-reading network; `name` is its own in conf/metrics."""

    def __init__(self, network: LipNetwork, name: str) -> None:
        super().__init__()
        self.network, self.name = network, name

    @property
    def not_ready(self) -> str | None:
        """What to give; None if a file is named."""
        if self.network.path is not None:
            return None
        return f"give a lip-reading network in TorchScript as metrics.{self.name}.network.path"

    def add_cosines(self, *pairs: Sequence[Features]) -> None:
        """Add one clip: the mean cosine of both features of each pair."""
        cosines = [F.cosine_similarity(one, other, dim=1).mean() for one, other in pairs]
        self.add_rows(torch.stack(cosines)[None])


class LipScore(ReadsLips):
    """How alike both mouths are to a lip reader."""

    needs = frozenset({"pixels", "truth"})
    figures = (Figure("lip_score", "LipScore", "cosine", "higher", -1.0, 1.0, LIP_SCORE),)

    def __init__(self, network: LipNetwork) -> None:
        super().__init__(network, "lip_score")

    def update(self, pixels: Pixels, truth: Pixels) -> None:
        """Add one clip."""
        ours, theirs = (self.network.read(self.network.crops(each)) for each in (pixels, truth))
        self.add_cosines((ours, theirs))


class AudioVisualSync(ReadsLips):
    """AVSu: the mouth against the sound; AVSm: both mouths, each with the sound; AVSv: both mouths
    without it."""

    needs = frozenset({"pixels", "truth", "speech"})
    figures = (
        Figure("avs_u", "AVSu", "cosine", "higher", -1.0, 1.0, AVS),
        Figure("avs_m", "AVSm", "cosine", "higher", -1.0, 1.0, AVS),
        Figure("avs_v", "AVSv", "cosine", "higher", -1.0, 1.0, AVS),
    )

    def __init__(self, network: LipNetwork) -> None:
        super().__init__(network, "av_sync")

    def update(self, pixels: Pixels, truth: Pixels, speech: Float[Tensor, " t"]) -> None:
        """Add one clip; the sound is cut to the frames, or goes on in silence."""
        ours, theirs = (self.network.crops(each) for each in (pixels, truth))
        sound = speech[: len(ours) * SAMPLES_PER_FRAME]
        sound = F.pad(sound, (0, len(ours) * SAMPLES_PER_FRAME - len(sound)))
        seen, filmed, heard, both, wanted = (
            self.network.read_both(*given)
            for given in (
                (ours, torch.zeros_like(sound)),
                (theirs, torch.zeros_like(sound)),
                (torch.zeros_like(ours), sound),
                (ours, sound),
                (theirs, sound),
            )
        )
        self.add_cosines((seen, heard), (both, wanted), (seen, filmed))
