"""Tasks: what Lightning trains, and what watches it."""

from typing import TYPE_CHECKING

from latentsync.lazy import names_at_first_use

if TYPE_CHECKING:
    from latentsync.training.callbacks.checkpoints import StepCheckpoints, WholeCheckpoints
    from latentsync.training.callbacks.curves import CurvePicture
    from latentsync.training.callbacks.ema import AveragedWeights
    from latentsync.training.callbacks.feature_check import CheckFeatures
    from latentsync.training.callbacks.monitors import GradientMonitor, PaceMonitor
    from latentsync.training.callbacks.samples import SampleVideo
    from latentsync.training.callbacks.seeding import SeedEveryStep
    from latentsync.training.callbacks.sync_diagnostics import SyncDiagnostics
    from latentsync.training.callbacks.sync_plots import SyncPlots
    from latentsync.training.sharding import ShardedStrategy
    from latentsync.training.tasks.autoencoder import AutoencoderTask
    from latentsync.training.tasks.diffusion import DiffusionTask
    from latentsync.training.tasks.mouth_reader import ReaderTask
    from latentsync.training.tasks.syncnet import SyncNetTask
else:
    __getattr__ = names_at_first_use(__name__)

__all__ = [
    "AutoencoderTask",
    "AveragedWeights",
    "CheckFeatures",
    "CurvePicture",
    "DiffusionTask",
    "GradientMonitor",
    "PaceMonitor",
    "ReaderTask",
    "SampleVideo",
    "SeedEveryStep",
    "ShardedStrategy",
    "StepCheckpoints",
    "SyncDiagnostics",
    "SyncNetTask",
    "SyncPlots",
    "WholeCheckpoints",
]
