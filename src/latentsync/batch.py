"""The batch that a data loader gives to a training task."""

from typing import NotRequired, TypedDict

from jaxtyping import Float, Int
from torch import Tensor


class Batch(TypedDict):
    """One training batch; a task names the entries it needs, the loader fills those.

    The `latents` entries are scaled latents precomputed by `prepare.py stage=latents`; if they are
    present, the step runs no VAE.
    """

    pixels: NotRequired[Float[Tensor, "b f c h w"]]
    """Ground truth, in [-1, 1]."""
    reference: NotRequired[Float[Tensor, "b f c h w"]]
    """The same person at another time, in [-1, 1]."""
    mask: NotRequired[Float[Tensor, "b f 1 h w"]]
    """1 = keep, 0 = paint."""
    audio: NotRequired[Float[Tensor, "b f s d"]]
    """Audio tokens of every frame."""
    mel: NotRequired[Float[Tensor, "b 1 m t"]]
    """Mel of the same audio, for SyncNet."""
    latents: NotRequired[Float[Tensor, "b f c x y"]]
    masked_latents: NotRequired[Float[Tensor, "b f c x y"]]
    reference_latents: NotRequired[Float[Tensor, "b f c x y"]]
    clip_index: NotRequired[Int[Tensor, " b"]]
    """Which clip of the manifest an item comes from."""
    start: NotRequired[Int[Tensor, " b"]]
    """First frame of the window within its clip."""
    skipped: NotRequired[Int[Tensor, " b"]]
    """Number of unreadable clips skipped for this item."""
    truth: NotRequired[Float[Tensor, "b f 4"]]
    """Ground truth of synthetic mouths: open, width, round, teeth."""
