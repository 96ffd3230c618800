"""Low-rank adapters on attention, through PEFT (the extra `lora`)."""

from collections.abc import Sequence

from peft import LoraConfig

from latentsync.models import UNet

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")


class Lora:
    """Trains a low-rank update of every attention layer instead of the layer (LoRA, arXiv
    2106.09685).

    For small data sets: with a few million trainable values the network cannot forget what the
    other billion have learned. Updates are merged at export, so the result is an ordinary model
    folder.
    """

    part = "lora_"
    """Substring of the names of its parameters."""

    def __init__(
        self, *, rank: int = 16, alpha: int | None = None, layers: Sequence[str] = ATTENTION
    ) -> None:
        if rank < 1:
            raise ValueError(f"rank must be 1 or more, got {rank}")
        self.rank = rank
        self.alpha = rank if alpha is None else alpha
        self.layers = tuple(layers)

    def attach(self, unet: UNet) -> None:
        """Add the adapters in place; initially they change nothing."""
        unet.add_adapter(
            LoraConfig(r=self.rank, lora_alpha=self.alpha, target_modules=list(self.layers))
        )

    def merge(self, unet: UNet) -> None:
        """Merge the adapters into their layers and remove them, in place."""
        unet.fuse_lora()
        unet.unload_lora()
