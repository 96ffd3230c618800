"""What training asks of a prediction: one small callable each, `(denoised, batch) -> scalar`."""

from latentsync.losses.contrast import InfoNCE, cosine_bce
from latentsync.losses.recon import MaskedReconLoss, ReconLoss
from latentsync.losses.sync import SyncLoss

__all__ = ["InfoNCE", "MaskedReconLoss", "ReconLoss", "SyncLoss", "cosine_bce"]
