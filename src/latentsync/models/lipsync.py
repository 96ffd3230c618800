"""A complete lip-sync model: networks, noise process, and how its faces are prepared.

A model folder is self-describing: `config.json` holds everything `infer.py` needs, and each network
has a subfolder in the layout of its library.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Self

import torch
from diffusers import AutoencoderKL
from jaxtyping import Float
from torch import Generator, Tensor

from latentsync.batch import Batch
from latentsync.diffusion.noise import mixed_noise, randn_like
from latentsync.diffusion.process import NoiseProcess
from latentsync.diffusion.sampler import Sampler, guided, sampling_steps
from latentsync.faces import load_mask
from latentsync.models.audio.encoders import AudioEncoder
from latentsync.models.codec import LatentCodec
from latentsync.models.color_matching import match_cells, match_surroundings
from latentsync.models.deepcache import DeepCache
from latentsync.models.denoised import (
    Denoised,
    latent_mask,
    latents_of,
    reference_shown,
    with_own_surroundings,
)
from latentsync.models.frozen import cast
from latentsync.models.kinds import AUDIO_ENCODERS, described_process, process_from
from latentsync.models.model_config import FORMAT_VERSION, ModelFormat, read_config, read_format
from latentsync.models.serialization import (
    load_audio_encoder,
    load_network,
    save_audio_encoder,
    save_network,
)
from latentsync.models.unet import UNet


class LipSyncModel:
    """Regenerates the masked part of aligned faces to match the audio."""

    def __init__(
        self,
        *,
        unet: UNet,
        codec: LatentCodec,
        audio_encoder: AudioEncoder,
        process: NoiseProcess,
        model_format: ModelFormat,
        training: dict[str, object] | None = None,
    ) -> None:
        wanted = 3 * codec.num_channels + 1
        if unet.config.in_channels != wanted:
            raise ValueError(
                f"the UNet takes {unet.config.in_channels} channels, but a VAE of "
                f"{codec.num_channels} latent channels needs {wanted}"
            )
        if model_format.resolution % codec.factor:
            raise ValueError(
                f"faces of {model_format.resolution} pixels do not fit a VAE whose latents are "
                f"{codec.factor} pixels wide: the resolution must be a multiple of that"
            )
        self.unet = unet
        self.codec = codec
        self.audio_encoder = audio_encoder
        self.process = process
        self.format = model_format
        self.training = training or {}
        self.syncnet_dir: Path | None = None
        """Folder of the SyncNet that came with the model, if any; it only scores results."""

    @property
    def device(self) -> torch.device:
        return self.unet.device

    @cached_property
    def mask(self) -> Float[Tensor, "h w"]:
        """The mask at the model's resolution: 1 = keep, 0 = paint."""
        return torch.tensor(load_mask(self.format.mask, self.format.resolution))

    def encode(self, pixels: Float[Tensor, "b f 3 h w"]) -> Float[Tensor, "b c f x y"]:
        """Pixels in [-1, 1] => scaled latents, without gradients."""
        return self.codec.encode_clips(pixels)

    def decode(self, latents: Float[Tensor, "b c f x y"]) -> Float[Tensor, "b f 3 h w"]:
        """Scaled latents => pixels; gradients flow through."""
        return self.codec.decode_clips(latents)

    def denoise(
        self, batch: Batch, *, generator: Generator | None = None, shift: float = 1.0
    ) -> Denoised:
        """A training step's prediction; with a `shift` above 1 of noisier timesteps."""
        generator = generator or torch.default_generator
        latents, masked, reference = latents_of(batch, self.encode)
        reference = reference_shown(reference, self.format)
        num_clips = len(latents)
        shifts = {} if shift == 1 else {"shift": shift}  # a user's own process need not know them
        timesteps = self.process.sample_timesteps(num_clips, generator, **shifts).to(latents.device)
        noise = mixed_noise(latents, alpha=self.format.noise_alpha, generator=generator)
        noisy = self.process.add_noise(latents, noise, timesteps)
        mask = latent_mask(self.mask, latents)
        prediction = self.unet(
            torch.cat([noisy, mask, masked, reference], dim=1), timesteps, batch["audio"]
        ).to(latents.dtype)
        return Denoised(
            prediction=prediction,
            target=self.process.target(latents, noise, timesteps),
            noisy=noisy,
            timesteps=timesteps,
            x0=self.process.x0(prediction, timesteps, noisy),
            mask=mask,
            signal=self.process.signal(timesteps, like=latents),
            prediction_type=self.process.prediction_type,
            decode=self.decode,
        )

    @torch.no_grad()
    def generate(
        self,
        pixels: Float[Tensor, "b f 3 h w"],
        audio: Float[Tensor, "b f s d"],
        *,
        sampler: Sampler,
        generator: Generator | None = None,
        reference: Float[Tensor, "b f 3 h w"] | None = None,
        noise: Float[Tensor, "b c 1 x y"] | None = None,
    ) -> Float[Tensor, "b f 3 h w"]:
        """Regenerate the masked part of faces, in chunks of the model's length.

        Without a `reference` the faces are their own reference, as in the official pipeline. All
        frames start from the same `noise`, which avoids flicker; it is sampled if not given.
        Nothing but the noise is drawn from the `generator`, unless latents are sampled.

        The same in three steps, whose latents can be cached and shared between chunks:
        `encode_faces`, `generate_latents`, `finish`.
        """
        reference = pixels if reference is None else reference
        if noise is None:
            noise = self.sample_noise(generator, num_clips=pixels.shape[0]).to(pixels)
        chunks = []
        for faces, sound, other in zip(
            *(part.split(self.format.num_frames, dim=1) for part in (pixels, audio, reference)),
            strict=True,
        ):
            fixed = self.condition(faces, other, sampler, generator)
            *_, latents = self.latents_of_steps(fixed, sound, noise, sampler)
            if not self.format.reference_mouth:
                own = self.codec.encode_clips(faces)
                latents = with_own_surroundings(latents, own, self.mask)
            chunks.append(self.finish(latents, faces, sampler=sampler))
        return torch.cat(chunks, dim=1)

    @torch.no_grad()
    def encode_faces(
        self, pixels: Float[Tensor, "b f 3 h w"]
    ) -> tuple[Float[Tensor, "b c f x y"], Float[Tensor, "b c f x y"]]:
        """Pixels in [-1, 1] => scaled latents of the masked faces and of the whole faces.

        Frames are encoded independently, so latents can be stored per frame and recombined: the
        masked ones for the frames to generate, the whole ones as their reference. Not for samplers
        with `sample_latents`, which sample new latents for every chunk.
        """
        both = torch.cat([pixels * self.mask.to(pixels), pixels])
        masked, seen = self.codec.encode_clips(both).chunk(2)
        return masked, seen

    @torch.no_grad()
    def generate_latents(
        self,
        masked: Float[Tensor, "b c f x y"],
        reference: Float[Tensor, "b c f x y"],
        audio: Float[Tensor, "b f s d"],
        *,
        sampler: Sampler,
        noise: Float[Tensor, "b c 1 x y"],
    ) -> Float[Tensor, "b c f x y"]:
        """The latents of chunks, one per batch item, from the result of `encode_faces`.

        Chunks in a batch are independent: b at once equal one after the other."""
        fixed = self._fixed(masked, reference)
        *_, latents = self.latents_of_steps(fixed, audio, noise, sampler)
        return latents

    @torch.no_grad()
    def finish(
        self,
        latents: Float[Tensor, "b c f x y"],
        pixels: Float[Tensor, "b f 3 h w"],
        *,
        sampler: Sampler,
    ) -> Float[Tensor, "b f 3 h w"]:
        """Generated latents => the faces `pixels` with their masked part replaced, about in [-1,
        1]."""
        decoded, mask = self.decode(latents), self.mask.to(pixels)
        if sampler.match_colours:
            decoded = match_surroundings(decoded, pixels, self.mask)
        return decoded * (1 - mask) + pixels * mask

    @torch.no_grad()
    def finish_painted(
        self,
        latents: Float[Tensor, "b c f x y"],
        cells: Float[Tensor, "b f 3 k k"],
        *,
        sampler: Sampler,
    ) -> Float[Tensor, "b f 3 h w"]:
        """Like `finish` if only the painted part will be shown: it needs only the faces'
        `colour_cells`. Outside the mask the result is the VAE's."""
        decoded = self.decode(latents)
        return match_cells(decoded, cells, self.mask) if sampler.match_colours else decoded

    def sample_noise(
        self, generator: Generator | None, *, num_clips: int = 1
    ) -> Float[Tensor, "b c 1 x y"]:
        """The initial noise shared by all frames of a clip."""
        side = self.format.resolution // self.codec.factor
        shape = (num_clips, self.codec.num_channels, 1, side, side)
        return randn_like(torch.empty(shape, device=self.device), generator)

    def condition(
        self,
        pixels: Float[Tensor, "b f 3 h w"],
        reference: Float[Tensor, "b f 3 h w"],
        sampler: Sampler,
        generator: Generator | None = None,
    ) -> Float[Tensor, "b c2 f x y"]:
        """The UNet's inputs besides the noisy latents: mask, masked faces and reference, as
        latents.

        Sampled latents use the generator for the masked faces first, then the reference."""
        masked = pixels * self.mask.to(pixels)
        if not sampler.sample_latents:
            return self._fixed(*self.codec.encode_clips(torch.cat([masked, reference])).chunk(2))
        # In channels-last memory torch's group norm has an error above 1e-3 here.
        return self._fixed(
            *(
                self.codec.encode_clips(faces.contiguous(), sample=True, generator=generator)
                for faces in (masked, reference)
            )
        )

    def latents_of_steps(
        self,
        fixed: Float[Tensor, "b c2 f x y"],
        audio: Float[Tensor, "b f s d"],
        noise: Float[Tensor, "b c 1 x y"],
        sampler: Sampler,
    ) -> Iterator[Float[Tensor, "b c f x y"]]:
        """The latents of one chunk after each step; `fixed` is the result of `condition`.

        The network runs in its own dtype, the solver in that of `noise`.
        """
        unet: UNet | DeepCache = self.unet
        if sampler.deepcache_interval > 1:
            unet = DeepCache(self.unet, sampler.deepcache_interval)
        steps, dtype = count(), self.unet.dtype
        fixed, audio = fixed.to(noise.device, dtype), audio.to(noise.device, dtype)

        def predict(latents: Tensor, timestep: int) -> Tensor:
            inputs = torch.cat([latents.to(dtype), fixed], dim=1)
            times = torch.full((len(latents),), timestep, device=latents.device)
            if not sampler.is_guided(next(steps)):
                return unet(inputs, times, audio).to(latents.dtype)
            doubled = unet(
                torch.cat([inputs] * 2),
                times.repeat(2),
                torch.cat([torch.zeros_like(audio), audio]),
            ).to(latents.dtype)
            unconditional, conditional = doubled.chunk(2)
            return guided(unconditional, conditional, sampler.guidance_scale)

        start = noise.expand(-1, -1, fixed.shape[2], -1, -1)
        return sampling_steps(predict, start, sampler.solver(self.process))

    def _fixed(
        self, masked: Float[Tensor, "b c f x y"], reference: Float[Tensor, "b c f x y"]
    ) -> Float[Tensor, "b c2 f x y"]:
        mask = latent_mask(self.mask, masked)
        return torch.cat([mask, masked, reference_shown(reference, self.format)], dim=1)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Self:
        """Move every network in place and cast UNet and VAE; `make_ready` chooses what is fast.

        The audio encoder stays in float32: its states are computed once and used in every step.
        """
        cast(self.unet, device, dtype)
        self.codec.to(device, dtype)
        self.audio_encoder.to(device)
        return self

    def check_can_be_saved(self) -> None:
        """Raise ValueError if a folder could not store the model; call it before a long
        training."""
        AUDIO_ENCODERS.check(self.audio_encoder)
        described_process(self.process)

    def save_pretrained(self, folder: Path | str, *, dtype: torch.dtype | None = None) -> None:
        """Write a model folder; a `dtype` such as torch.float16 halves the files, loading casts
        back."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        save_network(self.unet, folder / "unet", dtype)
        save_network(self.codec.vae.net, folder / "vae", dtype)
        config = {
            "format_version": FORMAT_VERSION,
            **asdict(self.format),
            "audio_encoder": save_audio_encoder(self.audio_encoder, folder),
            **described_process(self.process),
            "training": self.training,
        }
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> Self:
        """Load a folder written by `save_pretrained`, in float32 on the CPU."""
        folder = Path(folder)
        config = read_config(folder)
        parts = {
            "model_format": read_format(config, folder),
            "process": process_from(config, folder / "config.json"),
            "audio_encoder": load_audio_encoder(config["audio_encoder"], folder),
            "codec": LatentCodec(load_network(AutoencoderKL, folder / "vae")),
            "unet": load_network(UNet, folder / "unet"),
        }
        try:
            model = cls(**parts, training=config["training"])
        except ValueError as error:
            raise ValueError(f"the parts of {folder} do not fit each other: {error}") from error
        if (folder / "syncnet" / "config.json").is_file():
            model.syncnet_dir = folder / "syncnet"
        return model

    @classmethod
    def with_motion(cls, folder: Path | str, *, motion: str) -> Self:
        """A trained model with new motion modules in its UNet, initialised to do nothing."""
        model = cls.from_pretrained(folder)
        unet = UNet.from_config({**model.unet.config, "motion": motion})
        unet.load_spatial(model.unet.state_dict())
        model.unet = unet
        return model
