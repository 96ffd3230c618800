"""Trains the UNet, stage 1 and stage 2 alike: what differs are losses and trainable parts."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from lightning import LightningModule
from torch import Generator, Tensor
from torch.optim import Optimizer

from latentsync.batch import Batch
from latentsync.models import Denoised, LipSyncModel, UNet, load_network

Loss = Callable[[Denoised, Batch], Tensor]


class DiffusionTask(LightningModule):
    """Weighted losses on what the model predicts for noised clips; a weight of 0 only reports.

    `trainable` holds parts of parameter names; without it everything trains. `audio_dropout` is
    the share of clips that train without audio, so that guidance has a null to move away from.
    `init` is a model folder whose UNet to go on from, of the same shape.
    """

    def __init__(  # noqa: PLR0913 - every choice of an experiment is named here
        self,
        model: LipSyncModel,
        *,
        losses: Mapping[str, Loss],
        loss_weights: Mapping[str, float],
        optimizer: Callable[..., Optimizer],
        schedule: Callable[..., object],
        trainable: Sequence[str] | None = None,
        audio_dropout: float = 0.1,
        init: Path | str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if set(losses) != set(loss_weights):
            raise ValueError(
                f"losses are {sorted(losses)}, weights are given for {sorted(loss_weights)}"
            )
        self.model = model
        if init is not None:
            go_on_from(init, model.unet)
        self.unet = model.unet.train()
        self.losses = dict(losses)
        self.loss_weights = dict(loss_weights)
        self.optimizer, self.schedule = optimizer, schedule
        self.audio_dropout = audio_dropout
        self.seed = seed
        choose_trainable(self.unet, trainable)

    def configure_optimizers(self) -> dict[str, object]:
        trained = [value for value in self.unet.parameters() if value.requires_grad]
        optimizer = self.optimizer(trained)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": self.schedule(optimizer), "interval": "step"},
        }

    def on_fit_start(self) -> None:
        self.model.codec.to(self.device)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        generator = self._generator(self.global_step, stream=0)
        denoised = self.model.denoise(self._drop_audio(batch, generator), generator=generator)
        return self._weighted(denoised, batch, "train")

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        # The same noise at every validation, so that the curve shows the network alone.
        denoised = self.model.denoise(batch, generator=self._generator(batch_idx, stream=1))
        self._weighted(denoised, batch, "val")

    def _weighted(self, denoised: Denoised, batch: Batch, phase: str) -> Tensor:
        values = {name: loss(denoised, batch) for name, loss in self.losses.items()}
        total = sum(self.loss_weights[name] * value for name, value in values.items())
        assert isinstance(total, Tensor)
        self.log_dict(
            {f"{phase}/{name}": value for name, value in values.items()},
            batch_size=len(denoised.x0),
        )
        self.log(f"{phase}/loss", total, prog_bar=True, batch_size=len(denoised.x0))
        return total

    def _drop_audio(self, batch: Batch, generator: Generator) -> Batch:
        audio = batch["audio"]
        chance = torch.rand(len(audio), generator=generator)
        kept = (chance >= self.audio_dropout).to(audio)
        return {**batch, "audio": audio * kept[:, None, None, None]}

    def _generator(self, index: int, *, stream: int) -> Generator:
        # From the step and not from a running state: a resumed run draws what it would have.
        seeds = [self.seed, self.global_rank, stream, index]
        entropy = sum(value * 1_000_003**power for power, value in enumerate(reversed(seeds)))
        return Generator().manual_seed(entropy % 2**63)

    def export(self, folder: Path) -> None:
        """Write the trained model as a folder that describes itself."""
        self.model.training = {"steps": self.global_step, "seed": self.seed}
        self.model.save_pretrained(folder)


def go_on_from(folder: Path | str, unet: UNet) -> None:
    """Give the UNet the weights of a model folder's; the two must be of one shape."""
    try:
        unet.load_state_dict(load_network(UNet, Path(folder) / "unet").state_dict())
    except RuntimeError as error:
        raise ValueError(f"task.init={folder} holds a UNet of another shape: {error}") from error


def choose_trainable(unet: torch.nn.Module, names: Sequence[str] | None) -> None:
    """Let only parameters train whose name holds one of the parts; all of them without parts."""
    if names is None:
        return
    chosen = 0
    for name, value in unet.named_parameters():
        value.requires_grad_(any(part in name for part in names))
        chosen += value.requires_grad
    if chosen == 0:
        raise ValueError(f"no parameter of the UNet has any of {list(names)} in its name")
