"""Trains the UNet; stages 1 and 2 differ only in losses and trainable parts."""

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
from latentsync.models.denoised import latents_of
from latentsync.training.sharding import shard, whole_state
from latentsync.training.tasks.base import MakeOptimizer, MakeSchedule, Task
from latentsync.weights.files import check_fit
from latentsync.weights.unet import take_from_sd


@runtime_checkable
class Adapter(Protocol):
    """Small layers trained alongside the UNet's, see `latentsync.training.lora`."""

    part: str

    def attach(self, unet: UNet) -> None: ...

    def merge(self, unet: UNet) -> None: ...


class DiffusionTask(Task):
    """Weighted sum of losses on the model's predictions for noised clips; weight 0 only logs a
    loss.

    `losses` maps name => `{weight, loss}`, see `latentsync.losses.Loss`.

    `trainable` lists substrings of parameter names; None trains everything. `audio_dropout` is the
    fraction of clips trained without audio, for classifier-free guidance; `face_dropout` is that of
    clips trained without the masked face, by which a small set could be memorised. `init` is a
    model folder whose UNet, of the same shape, provides the initial weights; `init_sd` is a folder
    of Stable Diffusion 1.5, which provides all weights but those for the audio and for the
    additional input channels.

    `adapter` is trained in addition to `trainable`; everything else is frozen. Clips noised beyond
    `max_x0_timestep` count as 0 in losses on the predicted clean clip. With a `timestep_shift`
    above 1 clips are trained on more noise, where the audio alone tells the mouth; validation is
    uniform. With `sample_latents` batches of pixels are encoded to samples of the VAE's posterior,
    as in the official code, instead of its mean. `gradient_checkpointing` of the UNet and the VAE's
    decoder saves memory for about a third more time. `tiny_vae`, a folder of an AutoencoderTiny
    distilled for the model's latents, decodes for the pixel losses, both truth and prediction: what
    it cannot reproduce is then not counted as an error of the UNet, and batches need no pixels.
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
        face_dropout: float = 0.0,
        init: Path | str | None = None,
        init_sd: Path | str | None = None,
        adapter: Adapter | None = None,
        max_x0_timestep: int | None = None,
        timestep_shift: float = 1.0,
        sample_latents: bool = False,
        gradient_checkpointing: bool = False,
        tiny_vae: Path | str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(optimizer=optimizer, schedule=schedule)
        check_losses(losses)
        for name, share in (("audio_dropout", audio_dropout), ("face_dropout", face_dropout)):
            if not 0 <= share <= 1:
                raise ValueError(f"{name} is a share of the clips, 0 to 1, got {share}")
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
        self.face_dropout = face_dropout
        self.adapter = adapter
        self.max_x0_timestep = max_x0_timestep
        self.timestep_shift = timestep_shift
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
        """Shard the UNet if the strategy has set up a device mesh (`trainer=fsdp`)."""
        if self.device_mesh is not None and not self.spread:
            shard(self.unet, self.device_mesh["data_parallel"])
            self.spread = True

    def on_fit_start(self) -> None:
        self.model.codec.to(self.device)
        if self.tiny is not None:
            self.tiny.to(self.device)

    def on_fit_end(self) -> None:
        """Gather a sharded UNet in process rank 0, which exports it."""
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
        if self.face_dropout:
            given = self._drop_faces(given, generator)
        denoised = self.model.denoise(given, generator=generator, shift=self.timestep_shift)
        return self._weighted(denoised, batch, "train")

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        # The same noise in every validation, so that changes in the curve come from the network
        # alone.
        denoised = self.model.denoise(batch, generator=self._generator(0, batch_idx, stream=1))
        self._weighted(denoised, batch, "val")

    def _weighted(self, denoised: Denoised, batch: Batch, phase: str) -> Tensor:
        values = self._values(denoised, batch)
        weighted = (weight * values[name] for name, weight in self.loss_weights.items() if weight)
        total = sum(weighted)
        assert isinstance(total, Tensor)
        total = total.float()  # float16's loss scaler would overflow float16
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
            # A copy, which decodes again if necessary, so that no graph is kept for the backward
            # pass.
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
                # Zero, but part of the graph, so that backward always works.
                values[name] = 0 * denoised.x0.sum()
            else:
                values[name] = share * loss(clear, shown)
        return values

    def _drop_audio(self, batch: Batch, generator: Generator) -> Batch:
        audio = batch["audio"]
        chance = torch.rand(len(audio), generator=generator)
        kept = (chance >= self.audio_dropout).to(audio)
        return {**batch, "audio": audio * kept[:, None, None, None]}

    def _drop_faces(self, batch: Batch, generator: Generator) -> Batch:
        latents, masked, reference = (
            rearrange(each, "b c f x y -> b f c x y")
            for each in latents_of(batch, self.model.encode)
        )
        chance = torch.rand(len(masked), generator=generator)
        kept = (chance >= self.face_dropout).to(masked)
        without: Batch = {
            "latents": latents,
            "masked_latents": masked * kept[:, None, None, None, None],
            "reference_latents": reference,
        }
        return {**batch, **without}

    def _generator(self, step: int, batch_idx: int, *, stream: int) -> Generator:
        # Seeded from the position and not from a running state, so that a resumed run gets the same
        # numbers. With gradient accumulation several batches share a step and need different noise.
        seeds = [self.seed, self.global_rank, stream, step, batch_idx]
        return Generator().manual_seed(int(SeedSequence(seeds).generate_state(1, uint64)[0]))

    def export(self, folder: Path) -> None:
        """Write the trained model as a self-describing folder."""
        if self.adapter is not None:
            self.adapter.merge(self.model.unet)
        of_run = {"steps": self.global_step, "seed": self.seed}
        self.model.training = {**self.model.training, **of_run}
        self.model.save_pretrained(folder)


@torch.no_grad()
def decode_truth(denoised: Denoised, model: LipSyncModel) -> Float[Tensor, "b f 3 h w"]:
    """The clean frames that were noised, as decoded by the prediction's decoder.

    Recovered from the target: x0 computed from a perfect prediction is the truth.
    """
    target, times, noisy = denoised.target, denoised.timesteps, denoised.noisy
    return denoised.decode(model.process.x0(target, times, noisy))


@torch.no_grad()
def generate_latents(model: LipSyncModel, batch: Batch, generator: Generator) -> Batch:
    """The batch with latents sampled from the VAE's posterior for truth, masked faces and
    reference."""
    pixels = batch["pixels"]
    faces = torch.cat([pixels, pixels * batch["mask"], batch["reference"]])
    latents = model.codec.encode_clips(faces, sample=True, generator=generator)
    truth, masked, reference = rearrange(latents, "(n b) c f x y -> n b f c x y", n=3)
    latents_of_batch: Batch = {
        "latents": truth, "masked_latents": masked, "reference_latents": reference
    }  # fmt: skip
    return {**batch, **latents_of_batch}


def rebuilt(unet: UNet, state: Mapping[str, Tensor], adapter: Adapter | None) -> UNet:
    """A new UNet of the same config with these weights."""
    whole = UNet.from_config(unet.config)
    if adapter is not None:
        adapter.attach(whole)
    whole.load_state_dict(state)
    return whole


def go_on_from(folder: Path | str, unet: UNet) -> None:
    """Load the UNet weights of a model folder; ValueError unless both have the same shape."""
    given = load_network(UNet, Path(folder) / "unet").state_dict()
    try:
        check_fit(unet.state_dict(), given, f"task.init={folder}", "UNet of this experiment")
    except ValueError as error:
        raise ValueError(
            f"{error}. Choose that model's experiment, or a model of this experiment"
        ) from error
    unet.load_state_dict(given)


def choose_trainable(unet: torch.nn.Module, names: Sequence[str] | None) -> None:
    """Train only parameters whose name contains one of the substrings; None trains all of them."""
    if names is None:
        return
    chosen = 0
    for name, value in unet.named_parameters():
        value.requires_grad_(any(part in name for part in names))
        chosen += value.requires_grad
    if chosen == 0:
        raise ValueError(f"no parameter of the UNet has any of {list(names)} in its name")
