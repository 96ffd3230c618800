"""Lightning tasks; their callbacks are in `latentsync.training.callbacks`."""

from typing import TYPE_CHECKING

from latentsync.lazy import names_at_first_use

if TYPE_CHECKING:
    from latentsync.training.sharding import ShardedStrategy
    from latentsync.training.tasks.autoencoder import AutoencoderTask
    from latentsync.training.tasks.base import Task
    from latentsync.training.tasks.diffusion import DiffusionTask
    from latentsync.training.tasks.mouth_reader import ReaderTask
    from latentsync.training.tasks.syncnet import Pairs, SyncNetTask
else:
    __getattr__ = names_at_first_use(__name__)

__all__ = [
    "AutoencoderTask",
    "DiffusionTask",
    "Pairs",
    "ReaderTask",
    "ShardedStrategy",
    "SyncNetTask",
    "Task",
]
