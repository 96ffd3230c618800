"""Training losses: small callables `(denoised, batch) -> scalar`, one class each."""

from latentsync.losses.base import (
    Loss,
    Part,
    WeightedLoss,
    check_losses,
    clear_clips,
    judges_clean,
)
from latentsync.losses.contrast import InfoNCE, OffsetHead, cosine_bce
from latentsync.losses.recon import MaskedReconLoss, ReconLoss, min_snr_weight
from latentsync.losses.sync import SyncLoss

__all__ = [
    "InfoNCE",
    "Loss",
    "MaskedReconLoss",
    "OffsetHead",
    "Part",
    "ReconLoss",
    "SyncLoss",
    "WeightedLoss",
    "check_losses",
    "clear_clips",
    "cosine_bce",
    "judges_clean",
    "min_snr_weight",
]
