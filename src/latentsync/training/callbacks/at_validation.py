"""What samples a diffusion model at some validations: when it is due, also after a resume."""

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from latentsync.batch import Batch
from latentsync.data import ClipDataset
from latentsync.training.tasks.diffusion import DiffusionTask


class AtValidation(Callback):
    """Calls `observe` with the first batch of the first validation at least `every_n_steps` after
    the last time; averaged weights are in place then.

    ValueError if what is trained is no diffusion model.
    """

    def __init__(self, every_n_steps: int) -> None:
        self.every_n_steps = every_n_steps
        self._last_step = 0

    def observe(self, trainer: Trainer, task: DiffusionTask, batch: Batch) -> None:
        raise NotImplementedError

    def state_dict(self) -> dict[str, int]:
        return {"last_step": self._last_step}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        self._last_step = state_dict["last_step"]

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        if not isinstance(pl_module, DiffusionTask):
            raise ValueError(
                f"{type(self).__name__} samples a diffusion model, and "
                f"{type(pl_module).__name__} is none: leave this callback out"
            )
        if batch_idx != 0 or trainer.global_step - self._last_step < self.every_n_steps:
            return
        self._last_step = trainer.global_step
        self.observe(trainer, pl_module, batch)


def validation_set(trainer: Trainer) -> ClipDataset:
    """The clips that are validated on."""
    dataset = getattr(trainer.datamodule, "val_set", None)
    assert isinstance(dataset, ClipDataset)
    return dataset
