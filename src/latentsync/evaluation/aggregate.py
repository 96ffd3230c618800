"""One line of an evaluation: clip after clip goes in, a summary comes out."""

from collections import defaultdict
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from latentsync.metrics.correlation import correlate
from latentsync.metrics.masked import masked_psnr, masked_ssim
from latentsync.metrics.mouth import closed_share
from latentsync.metrics.sync import NOT_VALID, SyncScore
from latentsync.metrics.temporal import border_contrast, flicker

TRAITS = ("open", "width", "round", "teeth")
NEAR_OFFSET = 1
MAX_PSNR = 100.0  # what equal pictures count, whose PSNR is infinite


@dataclass
class Row:
    """What was measured on the clips of one condition."""

    traits: dict[str, list[tuple[Tensor, Tensor]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    values: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    num_clips: int = 0
    syncs: list[SyncScore] = field(default_factory=list)
    sync_is_valid: bool = True

    def add(self, other: "Row") -> None:
        """All clips of another row."""
        self.num_clips += other.num_clips
        self.syncs += other.syncs
        for name, pairs in other.traits.items():
            self.traits[name] += pairs
        for name, values in other.values.items():
            self.values[name] += values

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
        self.syncs.append(sync)

    def invalidate_sync(self) -> None:
        """The judge of sync is no judge of these clips: say so instead of its figures."""
        self.sync_is_valid = False

    def add_pixels(
        self,
        pixels: Float[Tensor, "b f c h w"],
        original: Float[Tensor, "b f c h w"],
        mask: Float[Tensor, "b f 1 h w"],
        *,
        same_speech: bool,
    ) -> None:
        """Pictures against the untouched ones; inside the mask only if they say the same.

        PSNR counts MAX_PSNR at most: one equal clip must not make a mean infinite.
        """
        # Masks are soft at their edge: what is neither painted nor kept whole is not counted.
        painted, kept = (mask < 0.5).float(), (mask > 0.999).float()
        self.values["psnr_outside"] += _psnr(pixels, original, kept)
        self.values["ssim_outside"] += masked_ssim(pixels, original, kept).tolist()
        if same_speech:
            self.values["psnr_inside"] += _psnr(pixels, original, painted)
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

    def summary(self) -> dict[str, float | str]:
        """Means over clips; `_spread` is over clips, `_pooled` is r over all frames at once."""
        result: dict[str, float | str] = {"num_clips": self.num_clips}
        for name, pairs in self.traits.items():
            tracks, targets = zip(*pairs, strict=True)
            correlation = correlate(list(tracks), list(targets))
            result[name] = correlation.mean
            result[f"{name}_spread"] = correlation.spread
            result[f"{name}_pooled"] = correlation.pooled
        for name, values in self.values.items():
            result[name] = torch.tensor(values, dtype=torch.float64).nanmean().item()
        return result | self._sync_summary()

    def _sync_summary(self) -> dict[str, float | str]:
        if not self.syncs:
            return {}
        columns = {
            "sync": [each.score for each in self.syncs],
            "sync_confidence": [each.confidence for each in self.syncs],
            "in_over_off": [each.in_over_off for each in self.syncs],
            "offset_near": [float(abs(each.offset) <= NEAR_OFFSET) for each in self.syncs],
        }
        if not self.sync_is_valid:
            return dict.fromkeys([*columns, "offset"], NOT_VALID)
        offsets = torch.tensor([float(each.offset) for each in self.syncs], dtype=torch.float64)
        means = {
            name: torch.tensor(values, dtype=torch.float64).nanmean().item()
            for name, values in columns.items()
        }
        return {**means, "offset": offsets.nanmedian().item()}


def _psnr(
    pixels: Float[Tensor, "b f c h w"],
    original: Float[Tensor, "b f c h w"],
    region: Float[Tensor, "b f 1 h w"],
) -> list[float]:
    return masked_psnr(pixels, original, region).clamp(max=MAX_PSNR).tolist()
