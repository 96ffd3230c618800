"""Atomic checkpoints, including one of the last step."""

import os
from pathlib import Path

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from latentsync.batch import Batch
from latentsync.files import publish


class StepCheckpoints(ModelCheckpoint):
    """Lightning's ModelCheckpoint that also saves the last step, even if n does not divide it.

    Lightning ends a run of 700 steps with a `last.ckpt` of step 500. Here the last step is saved
    like the others, after the step and not after the loop, so that a run resumed with a higher
    `trainer.max_steps` continues as if it had never ended.

    `last.ckpt` is a link to the newest checkpoint, not a copy, and its name never gets a version
    number; run folders can be moved or copied.
    """

    def __init__(self, **arguments: object) -> None:
        super().__init__(enable_version_counter=False, **arguments)

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        """Restore the state; paths are adjusted if the run folder has been moved."""
        there = state_dict.get("dirpath")
        if isinstance(there, str) and self.dirpath is not None:
            state_dict = {
                key: _moved(value, there, self.dirpath) for key, value in state_dict.items()
            }
        super().load_state_dict(state_dict)

    def _save_checkpoint(self, trainer: Trainer, filepath: str) -> None:
        newest = self._last_checkpoint_saved
        is_last = Path(filepath).stem == self.CHECKPOINT_NAME_LAST
        if is_last and newest and self._last_global_step_saved == trainer.global_step:
            if trainer.is_global_zero:
                give_second_name(Path(newest), Path(filepath))
            trainer.strategy.barrier()
            return
        super()._save_checkpoint(trainer, filepath)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if not 0 < trainer.max_steps <= trainer.global_step:
            return
        if self._should_skip_saving_checkpoint(trainer):  # already saved
            return
        monitored = self._monitor_candidates(trainer)
        if self.monitor is None:
            self._save_topk_checkpoint(trainer, monitored)
        self._save_last_checkpoint(trainer, monitored)


def _moved(value: object, there: str, here: str) -> object:
    if isinstance(value, dict):
        return {_moved(key, there, here): _moved(item, there, here) for key, item in value.items()}
    if isinstance(value, str) and (value == there or value.startswith(there + os.sep)):
        return here + value.removeprefix(there)
    return value


def give_second_name(path: Path, name: Path) -> None:
    """Make `name` a hard link to `path` atomically, or a symbolic link where hard links are
    unsupported."""
    with publish(name) as partial:
        try:
            partial.hardlink_to(path)
        except OSError:
            partial.symlink_to(os.path.relpath(path, name.parent))


class WholeCheckpoints(TorchCheckpointIO):
    """Writes to a temporary file and renames it, so that a killed run leaves no partial checkpoint.

    Lightning writes to the system's temporary folder, which may need a copy across file systems,
    and first holds the whole file in memory.
    """

    def save_checkpoint(
        self, checkpoint: dict, path: Path | str, storage_options: object = None
    ) -> None:
        """Save tensors and plain values to `path`; OSError, one sentence, if the disk is full."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with publish(path) as partial, partial.open("wb") as file:
                torch.save(checkpoint, file)
                # Without fsync the rename may reach the disk before the contents.
                file.flush()
                os.fsync(file.fileno())
        except (OSError, RuntimeError) as error:
            # After a disk error torch's zip writer may raise a RuntimeError of its own.
            cause = error if isinstance(error, OSError) else error.__context__
            if not isinstance(cause, OSError):
                raise
            raise OSError(
                f"the checkpoint {path} could not be saved ({cause.strerror or cause}); those "
                f"before it are untouched: make room and go on with "
                f"paths.run_dir='{path.parent.parent}' ckpt_path=last"
            ) from error
