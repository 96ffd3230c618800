"""Callbacks that monitor a training run or write files during it."""

from typing import TYPE_CHECKING

from latentsync.lazy import names_at_first_use

if TYPE_CHECKING:
    from latentsync.training.callbacks.best import BestWeights
    from latentsync.training.callbacks.checkpoints import StepCheckpoints, WholeCheckpoints
    from latentsync.training.callbacks.curves import CurvePicture
    from latentsync.training.callbacks.ema import AveragedWeights
    from latentsync.training.callbacks.feature_check import CheckFeatures
    from latentsync.training.callbacks.monitors import GradientMonitor, PaceMonitor
    from latentsync.training.callbacks.samples import SampleVideo
    from latentsync.training.callbacks.seeding import SeedEveryStep
    from latentsync.training.callbacks.step_bar import StepBar
    from latentsync.training.callbacks.sync_diagnostics import SyncDiagnostics
    from latentsync.training.callbacks.sync_plots import SyncPlots
else:
    __getattr__ = names_at_first_use(__name__)

__all__ = [
    "AveragedWeights",
    "BestWeights",
    "CheckFeatures",
    "CurvePicture",
    "GradientMonitor",
    "PaceMonitor",
    "SampleVideo",
    "SeedEveryStep",
    "StepBar",
    "StepCheckpoints",
    "SyncDiagnostics",
    "SyncPlots",
    "WholeCheckpoints",
]
