"""SyncNet's score of the predicted mouth as a loss."""

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, ones

from latentsync.batch import Batch
from latentsync.losses.base import Part
from latentsync.losses.contrast import cosine_bce
from latentsync.models import Denoised, Frozen, StableSyncNet, latent_sync_input, sync_input


class SyncLoss:
    """The official sync loss: SyncNet's cosine for the predicted frames should be 1.

    A SyncNet on pixels sees the lower half of the decoded frames at its own resolution; one on
    latents sees the predicted clean latents, without decoding. `clamp` limits decoded values to
    [-1, 1], the range SyncNet was trained on; the official code does not.
    """

    def __init__(
        self, syncnet: StableSyncNet, *, clamp: bool = True, gradient_checkpointing: bool = False
    ) -> None:
        if gradient_checkpointing:
            syncnet.enable_gradient_checkpointing()
        self.syncnet = Frozen(syncnet)
        self.resolution = syncnet.config.resolution
        self.clamp = clamp
        self.reads_latents = syncnet.reads_latents
        self.reads: frozenset[Part] = frozenset({"x0" if syncnet.reads_latents else "pixels"})

    def __call__(self, denoised: Denoised, batch: Batch) -> Float[Tensor, ""]:
        frames = self._frames(denoised)
        self.syncnet.to(frames.device)
        vision, audio = self.syncnet.net(frames.float(), batch["mel"])
        return cosine_bce(vision, audio, ones(len(vision), device=vision.device))

    def _frames(self, denoised: Denoised) -> Float[Tensor, "b fc h w"]:
        if self.reads_latents:
            return latent_sync_input(rearrange(denoised.x0, "b c f x y -> b f c x y"))
        pixels = denoised.pixels.clamp(-1, 1) if self.clamp else denoised.pixels
        return sync_input(pixels, self.resolution)
