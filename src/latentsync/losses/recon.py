"""How far the prediction is from its target, in latents."""

from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from latentsync.batch import Batch
from latentsync.models import Denoised


class ReconLoss:
    """Mean squared error of the prediction over the whole latent, as the official code trains."""

    def __call__(self, denoised: Denoised, batch: Batch) -> Float[Tensor, ""]:
        return (denoised.prediction.float() - denoised.target.float()).square().mean()


class MaskedReconLoss:
    """Squared error with a weight per region: kept, painted, and the box around the mouth.

    The kept region is given to the network and pasted back over its answer, so its error
    says little; the mouth is a small part of the painted region, and the one people watch.
    `mouth_box` is (top, bottom, left, right) in shares of the face's side.
    """

    def __init__(
        self,
        *,
        kept_weight: float = 0.0,
        mouth_weight: float = 3.0,
        mouth_box: tuple[float, float, float, float] = (0.55, 0.85, 0.2, 0.8),
    ) -> None:
        self.kept_weight = kept_weight
        self.mouth_weight = mouth_weight
        self.mouth_box = tuple(mouth_box)

    def __call__(self, denoised: Denoised, batch: Batch) -> Float[Tensor, ""]:
        error = (denoised.prediction.float() - denoised.target.float()).square().mean(dim=1)
        weight = self._weight(denoised.mask)
        return (error * weight).sum() / weight.sum()

    def _weight(self, mask: Float[Tensor, "b 1 f x y"]) -> Float[Tensor, "b f x y"]:
        kept = rearrange(mask.float(), "b 1 f x y -> b f x y")
        weight = kept * self.kept_weight + (1 - kept)
        top, bottom, left, right = (
            round(share * size)
            for share, size in zip(
                self.mouth_box, [*[kept.shape[-2]] * 2, *[kept.shape[-1]] * 2], strict=True
            )
        )
        weight[..., top:bottom, left:right] *= self.mouth_weight
        return weight
