"""TREPA: the distance of predicted and true clips in the feature space of a video network."""

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, no_grad
from torch.nn import functional

from latentsync.batch import Batch
from latentsync.losses.base import Part
from latentsync.losses.video_mae import VideoBackbone
from latentsync.models import Denoised, Frozen


class TrepaLoss:
    """Mean squared difference between the unit embeddings of the predicted and the true clip.

    The published recipe uses a weight of 10: two unit vectors of 1408 values differ by at most
    4 / 1408. Its backbone is VideoMAE-v2-g in float16, see `load_video_mae_v2`.
    """

    reads: frozenset[Part] = frozenset({"pixels", "truth"})

    def __init__(self, backbone: VideoBackbone) -> None:
        self.backbone = Frozen(backbone)

    def __call__(self, denoised: Denoised, batch: Batch) -> Float[Tensor, ""]:
        self.backbone.to(denoised.pixels.device)
        predicted = self._embed(denoised.pixels)
        with no_grad():
            truth = self._embed(batch["pixels"])
        return functional.mse_loss(predicted, truth)

    def _embed(self, pixels: Float[Tensor, "b f 3 h w"]) -> Float[Tensor, "b d"]:
        net = self.backbone.net
        clips = unit_clips(pixels.float(), net.image_size)
        return functional.normalize(net(clips.to(net.dtype)).float(), dim=1)


def unit_clips(
    pixels: Float[Tensor, "b f 3 h w"], side: int
) -> Float[Tensor, "b f 3 {side} {side}"]:
    """Pixels in [-1, 1] => clips in [0, 1] of side x side, bicubic without antialiasing."""
    frames = rearrange(pixels, "b f c h w -> (b f) c h w")
    frames = functional.interpolate(frames, size=(side, side), mode="bicubic")
    clips = rearrange(frames, "(b f) c h w -> b f c h w", f=pixels.shape[1])
    return (clips / 2 + 0.5).clamp(0, 1)
