"""Checkpoints that are whole or not there, and one of the last step."""

import os
from pathlib import Path

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from latentsync.batch import Batch
from latentsync.files import publish


class StepCheckpoints(ModelCheckpoint):
    """Lightning's, and besides those of every n steps one of the last step, whatever n is.

    Lightning ends a run of 700 steps with `last.ckpt` of step 500. It is written where the others
    are, behind a step and not behind the loop, so that a run whose `trainer.max_steps` is raised
    goes on from it as if it had never ended.

    `last.ckpt` is a second name of the newest, not a second copy of it, and always of that name: a
    run folder that was moved or copied is a run folder like any other.
    """

    def __init__(self, **arguments: object) -> None:
        super().__init__(enable_version_counter=False, **arguments)

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        """Of a run that lay elsewhere too: its files are those of the folder where it lies now."""
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
        if self._should_skip_saving_checkpoint(trainer):  # has it already
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
    """Let `name` be the same file as `path`, at once; a link where no file can have two names."""
    with publish(name) as partial:
        try:
            partial.hardlink_to(path)
        except OSError:
            partial.symlink_to(os.path.relpath(path, name.parent))


class WholeCheckpoints(TorchCheckpointIO):
    """Writes beside the final name, then renames: killed at any moment, no half file is left.

    Lightning's own way makes the file in the folder for temporary ones, from where it may have to
    be copied; and it holds the whole file in memory before.
    """

    def save_checkpoint(
        self, checkpoint: dict, path: Path | str, storage_options: object = None
    ) -> None:
        """Tensors and plain values to `path`; OSError, one sentence, where there is no room."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with publish(path) as partial, partial.open("wb") as file:
                torch.save(checkpoint, file)
                # A rename may reach the disk before what is renamed.
                file.flush()
                os.fsync(file.fileno())
        except (OSError, RuntimeError) as error:
            # After the disk's error torch's zip writer may end with a RuntimeError of its own.
            cause = error if isinstance(error, OSError) else error.__context__
            if not isinstance(cause, OSError):
                raise
            raise OSError(
                f"the checkpoint {path} could not be saved ({cause.strerror or cause}); those "
                f"before it are untouched: make room and go on with "
                f"paths.run_dir='{path.parent.parent}' ckpt_path=last"
            ) from error
