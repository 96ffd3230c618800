"""Reconstruction losses: distance of the prediction from its target, in latents."""

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, ones_like

from latentsync.batch import Batch
from latentsync.losses.base import Part
from latentsync.models import Denoised


class ReconLoss:
    """Mean squared error of the prediction over the whole latent, as the official code trains.

    `snr_gamma` weights clips by their timestep, see `min_snr_weight`; None weights all equally.
    """

    reads: frozenset[Part] = frozenset({"latents"})

    def __init__(self, *, snr_gamma: float | None = None) -> None:
        self.snr_gamma = snr_gamma

    def __call__(self, denoised: Denoised, batch: Batch) -> Float[Tensor, ""]:
        error = (denoised.prediction.float() - denoised.target.float()).square()
        if self.snr_gamma is None:
            return error.mean()
        return (error.flatten(1).mean(dim=1) * min_snr_weight(denoised, self.snr_gamma)).mean()


class MaskedReconLoss:
    """Squared error with a weight per region: kept, painted, and the box around the mouth.

    The kept region is an input of the network and pasted back over its output, so errors there
    matter little; the mouth is a small part of the painted region, and the part people watch.
    `mouth_box` is (top, bottom, left, right) as fractions of the face's side. `snr_gamma` weights
    clips by their timestep, see `min_snr_weight`.
    """

    reads: frozenset[Part] = frozenset({"latents"})

    def __init__(
        self,
        *,
        kept_weight: float = 0.0,
        mouth_weight: float = 3.0,
        mouth_box: tuple[float, float, float, float] = (0.55, 0.85, 0.2, 0.8),
        snr_gamma: float | None = None,
    ) -> None:
        self.kept_weight = kept_weight
        self.mouth_weight = mouth_weight
        self.mouth_box = tuple(mouth_box)
        self.snr_gamma = snr_gamma

    def __call__(self, denoised: Denoised, batch: Batch) -> Float[Tensor, ""]:
        error = (denoised.prediction.float() - denoised.target.float()).square().mean(dim=1)
        weight = self._weight(denoised.mask)
        if self.snr_gamma is not None:
            error = error * min_snr_weight(denoised, self.snr_gamma).view(-1, 1, 1, 1)
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


def min_snr_weight(denoised: Denoised, gamma: float) -> Float[Tensor, " b"]:
    """Weight of each clip's squared error, min(SNR, gamma) in units of x0 (arXiv 2303.09556).

    The SNR is a / (1 - a) at the clip's timestep. The squared error of x0 equals that of the noise
    times 1 / SNR, and that of the velocity times 1 / (SNR + 1); hence their weights. For flow
    matching the factor is s^2 with the noise level s = 1 / (1 + sqrt(SNR)).
    """
    signal = denoised.signal.float()
    snr = signal / (1 - signal)
    units = {
        "sample": ones_like(snr),
        "epsilon": snr,
        "v_prediction": snr + 1,
        "flow_prediction": (1 + snr.sqrt()).square(),
    }
    return snr.clamp(max=gamma) / units[denoised.prediction_type]
