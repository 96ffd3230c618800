"""Tasks: what Lightning trains."""

from latentsync.training.autoencoder_task import AutoencoderTask
from latentsync.training.callbacks import CurvePicture
from latentsync.training.diffusion_task import DiffusionTask
from latentsync.training.reader_task import ReaderTask
from latentsync.training.syncnet_task import SyncNetTask

__all__ = ["AutoencoderTask", "CurvePicture", "DiffusionTask", "ReaderTask", "SyncNetTask"]
