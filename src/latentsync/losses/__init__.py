"""What training asks of a prediction: one small callable each, `(denoised, batch) -> scalar`."""

from latentsync.losses.base import clear_clips
from latentsync.losses.contrast import InfoNCE, OffsetHead, cosine_bce
from latentsync.losses.recon import MaskedReconLoss, ReconLoss, min_snr_weight
from latentsync.losses.sync import SyncLoss

__all__ = [
    "InfoNCE",
    "MaskedReconLoss",
    "OffsetHead",
    "ReconLoss",
    "SyncLoss",
    "clear_clips",
    "cosine_bce",
    "min_snr_weight",
]
