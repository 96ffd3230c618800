"""Does SyncNet believe the drawn mouth?"""

from jaxtyping import Float
from torch import Tensor, ones

from latentsync.batch import Batch
from latentsync.losses.contrast import cosine_bce
from latentsync.models import Denoised, Frozen, StableSyncNet, sync_input


class SyncLoss:
    """The official sync loss: SyncNet's cosine for the predicted frames should be 1."""

    def __init__(self, syncnet: StableSyncNet) -> None:
        self.syncnet = Frozen(syncnet)
        self.resolution = syncnet.config.resolution

    def __call__(self, denoised: Denoised, batch: Batch) -> Float[Tensor, ""]:
        frames = sync_input(denoised.pixels.clamp(-1, 1), self.resolution)
        self.syncnet.to(frames.device)
        vision, audio = self.syncnet.net(frames.float(), batch["mel"])
        return cosine_bce(vision, audio, ones(len(vision), device=vision.device))
