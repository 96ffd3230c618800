"""Tasks: what Lightning trains, and what watches it."""

from latentsync.training.autoencoder_task import AutoencoderTask
from latentsync.training.averaging import AveragedWeights
from latentsync.training.callbacks import CurvePicture
from latentsync.training.checkpoints import StepCheckpoints, WholeCheckpoints
from latentsync.training.checks import CheckFeatures
from latentsync.training.diffusion_task import DiffusionTask
from latentsync.training.doctor import SyncNetDoctor
from latentsync.training.judge_pictures import JudgePictures
from latentsync.training.randomness import SeedEveryStep
from latentsync.training.reader_task import ReaderTask
from latentsync.training.samples import SampleVideo
from latentsync.training.sharding import ShardedStrategy
from latentsync.training.syncnet_task import SyncNetTask
from latentsync.training.watch import GradientWatch, PaceWatch

__all__ = [
    "AutoencoderTask",
    "AveragedWeights",
    "CheckFeatures",
    "CurvePicture",
    "DiffusionTask",
    "GradientWatch",
    "JudgePictures",
    "PaceWatch",
    "ReaderTask",
    "SampleVideo",
    "SeedEveryStep",
    "ShardedStrategy",
    "StepCheckpoints",
    "SyncNetDoctor",
    "SyncNetTask",
    "WholeCheckpoints",
]
