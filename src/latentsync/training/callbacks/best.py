"""The weights that did best in validation, for runs that can learn too much of too little."""

from pathlib import Path

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint


class BestWeights(ModelCheckpoint):
    """Keeps the weights of the best validation in one file, and ends `fit` with them.

    With averaged weights it is the average that is validated and kept. Ends after the average of
    the last step was copied, as Lightning calls checkpoints last.
    """

    def __init__(self, *, dirpath: Path | str, monitor: str, mode: str = "min") -> None:
        super().__init__(
            dirpath=dirpath,
            filename="best",
            monitor=monitor,
            mode=mode,
            save_top_k=1,
            save_weights_only=True,
            enable_version_counter=False,
            save_on_train_epoch_end=False,
        )

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        path = Path(self.best_model_path)
        if not self.best_model_path or trainer.interrupted:
            return
        if not path.is_file() and self.dirpath is not None:  # the run folder was moved
            path = Path(self.dirpath) / path.name
        best = torch.load(path, map_location="cpu", weights_only=True)
        pl_module.load_state_dict(best["state_dict"])
