"""One line of an evaluation: clip after clip goes in, a summary comes out."""

from collections import defaultdict
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from latentsync.metrics.correlation import correlate
from latentsync.metrics.masked import masked_psnr, masked_ssim
from latentsync.metrics.mouth import closed_share
from latentsync.metrics.steadiness import border_contrast, flicker
from latentsync.metrics.sync import SyncScore

TRAITS = ("open", "width", "round", "teeth")
NEAR_OFFSET = 1


@dataclass
class Row:
    """What was measured on the clips of one condition."""

    traits: dict[str, list[tuple[Tensor, Tensor]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    values: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    num_clips: int = 0

    def add_mouth(
        self,
        reading: Float[Tensor, "f 4"],
        driving: Float[Tensor, "f 4"],
        own: Float[Tensor, "f 4"] | None,
        silent: Bool[Tensor, " f"],
    ) -> None:
        """A mouth as read, as the voice that drives it wants it, as it was before (if another)."""
        for column, trait in enumerate(TRAITS):
            self.traits[f"r_{trait}"].append((reading[:, column], driving[:, column]))
        if own is not None:
            self.traits["leak"].append((reading[:, 0], own[:, 0]))
        self.values["closed_in_silence"].append(closed_share(reading[:, 0], silent))

    def add_sync(self, sync: SyncScore) -> None:
        self.values["sync"].append(sync.score)
        self.values["sync_confidence"].append(sync.confidence)
        self.values["in_over_off"].append(sync.in_over_off)
        self.values["offset"].append(sync.offset)
        self.values["offset_near"].append(float(abs(sync.offset) <= NEAR_OFFSET))

    def add_pixels(
        self,
        pixels: Float[Tensor, "b f c h w"],
        original: Float[Tensor, "b f c h w"],
        mask: Float[Tensor, "b f 1 h w"],
        *,
        same_speech: bool,
    ) -> None:
        """Pictures against the untouched ones; inside the mask only if they say the same."""
        # Masks are soft at their edge: what is neither painted nor kept whole is not counted.
        painted, kept = (mask < 0.5).float(), (mask > 0.999).float()
        self.values["psnr_outside"] += masked_psnr(pixels, original, kept).tolist()
        self.values["ssim_outside"] += masked_ssim(pixels, original, kept).tolist()
        if same_speech:
            self.values["psnr_inside"] += masked_psnr(pixels, original, painted).tolist()
            self.values["ssim_inside"] += masked_ssim(pixels, original, painted).tolist()
        self.values["flicker"] += flicker(pixels, original, painted).tolist()
        self.values["border"] += border_contrast(pixels, original, painted).tolist()

    def add_mesh(self, reading: Float[Tensor, "f 2"], driving: Float[Tensor, "f 2"]) -> None:
        """Opening and width as landmarks give them; frames without a face are NaN."""
        seen = ~(reading.isnan().any(dim=1) | driving.isnan().any(dim=1))
        self.values["mesh_seen"].append(seen.float().mean().item())
        if seen.sum() > 2:
            for column, name in enumerate(("r_open_mesh", "r_width_mesh")):
                self.traits[name].append((reading[seen, column], driving[seen, column]))

    def summary(self) -> dict[str, float]:
        """Means over clips; `_spread` is over clips, `_pooled` is r over all frames at once."""
        result: dict[str, float] = {"num_clips": self.num_clips}
        for name, pairs in self.traits.items():
            tracks, targets = zip(*pairs, strict=True)
            correlation = correlate(list(tracks), list(targets))
            result[name] = correlation.mean
            result[f"{name}_spread"] = correlation.spread
            result[f"{name}_pooled"] = correlation.pooled
        for name, values in self.values.items():
            numbers = torch.tensor(values, dtype=torch.float64)
            middle = numbers.nanmedian() if name == "offset" else numbers.nanmean()
            result[name] = middle.item()
        return result
