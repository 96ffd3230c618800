"""Trains the UNet, stage 1 and stage 2 alike: what differs are losses and trainable parts."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from einops import rearrange
from jaxtyping import Float
from numpy import uint64
from numpy.random import SeedSequence
from torch import Generator, Tensor

from latentsync.batch import Batch
from latentsync.losses import WeightedLoss, check_losses, clear_clips, judges_clean
from latentsync.models import Denoised, LatentCodec, LipSyncModel, UNet, load_network
from latentsync.training.sharding import shard, whole_state
from latentsync.training.tasks.base import MakeOptimizer, MakeSchedule, Task
from latentsync.weights.files import check_fit
from latentsync.weights.unet import take_from_sd


@runtime_checkable
class Adapter(Protocol):
    """Small layers that train beside those of the UNet, see `latentsync.training.lora`."""

    part: str

    def attach(self, unet: UNet) -> None: ...

    def merge(self, unet: UNet) -> None: ...


class DiffusionTask(Task):
    """Weighted losses on what the model predicts for noised clips; a weight of 0 only reports.

    `losses` is one map of name => `{weight, loss}`, see `latentsync.losses.Loss`.

    `trainable` holds parts of parameter names; without it everything trains. `audio_dropout` is
    the share of clips that train without audio, so that guidance has a null to move away from.
    `init` is a model folder whose UNet to go on from, of the same shape; `init_sd` a folder of
    Stable Diffusion 1.5, of whose UNet everything is taken but what hears and what sees the mask.

    Switches: `adapter` trains besides `trainable`, everything else stays. Clips noised beyond
    `max_x0_timestep` count as 0 in the losses that judge the predicted clean clip. With
    `sample_latents` a batch of pixels is encoded by draws of the VAE's posterior, as the official
    code does, and not by its mean. `gradient_checkpointing` of the UNet and the VAE's decoder
    saves memory for about a third more time. `tiny_vae`, a folder of an AutoencoderTiny distilled
    for the model's latents, decodes for the losses of pixels, the truth as well as the prediction:
    what the tiny VAE cannot draw is then no error of the UNet, and batches need no pixels.
    """

    def __init__(  # noqa: PLR0913 - every choice of an experiment is named here
        self,
        model: LipSyncModel,
        *,
        losses: Mapping[str, WeightedLoss],
        optimizer: MakeOptimizer,
        schedule: MakeSchedule,
        trainable: Sequence[str] | None = None,
        audio_dropout: float = 0.1,
        init: Path | str | None = None,
        init_sd: Path | str | None = None,
        adapter: Adapter | None = None,
        max_x0_timestep: int | None = None,
        sample_latents: bool = False,
        gradient_checkpointing: bool = False,
        tiny_vae: Path | str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(optimizer=optimizer, schedule=schedule)
        check_losses(losses)
        model.check_can_be_saved()
        self.model = model
        if init is not None and init_sd is not None:
            raise ValueError(f"a UNet starts from one place: init={init} or init_sd={init_sd}")
        if init is not None:
            go_on_from(init, model.unet)
        if init_sd is not None:
            take_from_sd(model.unet, init_sd)
        self.unet = model.unet.train()
        self.losses = {name: term["loss"] for name, term in losses.items()}
        self.loss_weights = {name: term["weight"] for name, term in losses.items()}
        self.audio_dropout = audio_dropout
        self.adapter = adapter
        self.max_x0_timestep = max_x0_timestep
        self.sample_latents = sample_latents
        self.spread = False
        self.tiny = None if tiny_vae is None else LatentCodec.preview(tiny_vae, like=model.codec)
        self.seed = seed
        if adapter is not None:
            adapter.attach(model.unet)
            trainable = [*(trainable or ()), adapter.part]
        choose_trainable(self.unet, trainable)
        if gradient_checkpointing:
            model.unet.enable_gradient_checkpointing()
            (self.tiny or model.codec).vae.net.enable_gradient_checkpointing()

    def configure_model(self) -> None:
        """Spread the UNet over the processes where `trainer=fsdp` has made a mesh of them."""
        if self.device_mesh is not None and not self.spread:
            shard(self.unet, self.device_mesh["data_parallel"])
            self.spread = True

    def on_fit_start(self) -> None:
        self.model.codec.to(self.device)
        if self.tiny is not None:
            self.tiny.to(self.device)

    def on_fit_end(self) -> None:
        """Put a UNet that was spread together again, in the first process, which exports it."""
        if not self.spread:
            return
        state = whole_state(self.unet)
        if self.trainer.is_global_zero:
            self.model.unet = self.unet = rebuilt(self.model.unet, state, self.adapter)
        self.spread = False

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        generator = self._generator(self.global_step, batch_idx, stream=0)
        given = self._drop_audio(batch, generator)
        if self.sample_latents and "latents" not in batch:
            given = generate_latents(self.model, given, generator)
        denoised = self.model.denoise(given, generator=generator)
        return self._weighted(denoised, batch, "train")

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        # The same noise at every validation, so that the curve shows the network alone.
        denoised = self.model.denoise(batch, generator=self._generator(0, batch_idx, stream=1))
        self._weighted(denoised, batch, "val")

    def _weighted(self, denoised: Denoised, batch: Batch, phase: str) -> Tensor:
        values = self._values(denoised, batch)
        weighted = (weight * values[name] for name, weight in self.loss_weights.items() if weight)
        total = sum(weighted)
        assert isinstance(total, Tensor)
        total = total.float()  # float16's scaler would carry it beyond what float16 can hold
        self.log_dict(
            {f"{phase}/{name}": value for name, value in values.items()},
            batch_size=len(denoised.x0),
        )
        self.log(f"{phase}/loss", total, prog_bar=True, batch_size=len(denoised.x0))
        return total

    def _values(self, denoised: Denoised, batch: Batch) -> dict[str, Tensor]:
        if self.tiny is not None:
            denoised = replace(denoised, decode=self.tiny.decode_clips)
            if any("truth" in loss.reads for loss in self.losses.values()):
                batch = {**batch, "pixels": decode_truth(denoised, self.model)}
        trained = [name for name, weight in self.loss_weights.items() if weight != 0]
        values = self._measured(trained, denoised, batch)
        reported = [name for name in self.losses if name not in values]
        if reported:
            # A copy of its own, which decodes anew if need be: nothing is kept for a way back.
            with torch.no_grad():
                values |= self._measured(reported, replace(denoised), batch)
        return {name: values[name] for name in self.losses}

    def _measured(
        self, names: Iterable[str], denoised: Denoised, batch: Batch
    ) -> dict[str, Tensor]:
        losses = {name: self.losses[name] for name in names}
        if self.max_x0_timestep is None:
            return {name: loss(denoised, batch) for name, loss in losses.items()}
        clear, shown, share = clear_clips(denoised, batch, self.max_x0_timestep)
        values = {}
        for name, loss in losses.items():
            if not judges_clean(loss):
                values[name] = loss(denoised, batch)
            elif share == 0:
                # Of the graph all the same, so that backward always has a way.
                values[name] = 0 * denoised.x0.sum()
            else:
                values[name] = share * loss(clear, shown)
        return values

    def _drop_audio(self, batch: Batch, generator: Generator) -> Batch:
        audio = batch["audio"]
        chance = torch.rand(len(audio), generator=generator)
        kept = (chance >= self.audio_dropout).to(audio)
        return {**batch, "audio": audio * kept[:, None, None, None]}

    def _generator(self, step: int, batch_idx: int, *, stream: int) -> Generator:
        # From the place and not from a running state: a resumed run draws what it would have.
        # Batches whose gradients are accumulated share a step, and need noise of their own.
        seeds = [self.seed, self.global_rank, stream, step, batch_idx]
        return Generator().manual_seed(int(SeedSequence(seeds).generate_state(1, uint64)[0]))

    def export(self, folder: Path) -> None:
        """Write the trained model as a folder that describes itself."""
        if self.adapter is not None:
            self.adapter.merge(self.model.unet)
        self.model.training = {"steps": self.global_step, "seed": self.seed}
        self.model.save_pretrained(folder)


@torch.no_grad()
def decode_truth(denoised: Denoised, model: LipSyncModel) -> Float[Tensor, "b f 3 h w"]:
    """The clean frames that were noised, as the decoder of the prediction draws them.

    A perfect prediction equals its target, so the truth is what the target amounts to.
    """
    target, times, noisy = denoised.target, denoised.timesteps, denoised.noisy
    return denoised.decode(model.process.x0(target, times, noisy))


@torch.no_grad()
def generate_latents(model: LipSyncModel, batch: Batch, generator: Generator) -> Batch:
    """The batch with latents drawn from the VAE's posterior for truth, masked and reference."""
    pixels = batch["pixels"]
    faces = torch.cat([pixels, pixels * batch["mask"], batch["reference"]])
    latents = model.codec.encode_clips(faces, sample=True, generator=generator)
    truth, masked, reference = rearrange(latents, "(n b) c f x y -> n b f c x y", n=3)
    latents_of_batch: Batch = {
        "latents": truth, "masked_latents": masked, "reference_latents": reference
    }  # fmt: skip
    return {**batch, **latents_of_batch}


def rebuilt(unet: UNet, state: Mapping[str, Tensor], adapter: Adapter | None) -> UNet:
    """A UNet of the same shape with these weights."""
    whole = UNet.from_config(unet.config)
    if adapter is not None:
        adapter.attach(whole)
    whole.load_state_dict(state)
    return whole


def go_on_from(folder: Path | str, unet: UNet) -> None:
    """Give the UNet the weights of a model folder's; the two must be of one shape."""
    given = load_network(UNet, Path(folder) / "unet").state_dict()
    try:
        check_fit(unet.state_dict(), given, f"task.init={folder}", "UNet of this experiment")
    except ValueError as error:
        raise ValueError(
            f"{error}. Choose that model's experiment, or a model of this experiment"
        ) from error
    unet.load_state_dict(given)


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
