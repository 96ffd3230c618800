"""Checkpoints that are whole or not there."""

import os
from pathlib import Path

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from latentsync.files import publish


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
