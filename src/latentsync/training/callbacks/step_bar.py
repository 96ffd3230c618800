"""A progress bar over all steps of a run, with the time that is left."""

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from tqdm import tqdm

from latentsync.batch import Batch


class StepBar(ProgressBar):
    """One bar for `trainer.max_steps`; Lightning's own begins anew in every epoch."""

    def __init__(self, name: str, *, refresh_rate: int = 10) -> None:
        super().__init__()
        self.name = name
        self.refresh_rate = refresh_rate
        self.bar: tqdm | None = None
        self.is_shown = True

    def disable(self) -> None:
        """Called by Lightning on all processes but one."""
        self.is_shown = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.bar = tqdm(
            total=trainer.max_steps,
            initial=trainer.global_step,
            desc=self.name,
            unit="step",
            disable=not self.is_shown,
        )

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        if trainer.global_step % self.refresh_rate == 0:
            self._move_to(trainer.global_step)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.bar is not None:
            logged = trainer.callback_metrics.items()
            shown = {name: f"{float(value):.3f}" for name, value in logged if name[:4] == "val/"}
            self.bar.set_postfix(shown)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._move_to(trainer.global_step)
        if self.bar is not None:
            self.bar.close()

    def _move_to(self, step: int) -> None:
        if self.bar is not None:
            self.bar.update(step - self.bar.n)
