"""Inputs for the scripts of this folder."""

import argparse
import os
import sys
from itertools import chain, islice, repeat
from pathlib import Path

import cv2
import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler
from diffusers.models.autoencoders.vae import DecoderOutput, DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from hydra.utils import instantiate
from jaxtyping import UInt8
from omegaconf import OmegaConf
from torch import Tensor
from torch.nn import functional as F

from latentsync import LipSyncModel
from latentsync.cli.command import conf_dir
from latentsync.data.synthetic import render_clip
from latentsync.diffusion import DDPM
from latentsync.diffusion.sampler import Sampler
from latentsync.media.audio import read_waveform, write_wav
from latentsync.media.video import VideoWriter, read_frames
from latentsync.models.audio.encoders import MelAudioEncoder
from latentsync.models.codec import LatentCodec
from latentsync.models.model_config import ModelFormat
from latentsync.models.unet import UNet

FPS = 25
FACE_SEED, VOICE_SEED = 900001, 900002
DRAWN_SECONDS = 4


def wait_passively() -> None:
    """Restart the script with OMP_WAIT_POLICY=PASSIVE unless it is set.

    Torch threads that spin while waiting would take the cores from OpenCV and x264.
    """
    if os.environ.get("OMP_WAIT_POLICY") != "PASSIVE":
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        os.execv(sys.executable, [sys.executable, *sys.argv])


def clip_arguments(about: str) -> argparse.ArgumentParser:
    """A parser with options for a video and a voice; by default they are synthetic."""
    parser = argparse.ArgumentParser(description=about.strip().splitlines()[0])
    parser.add_argument("--video", type=Path, help="a real clip; without it one is drawn")
    parser.add_argument("--audio", type=Path, help="a voice; without it one is drawn")
    return parser


def clip_of(options: argparse.Namespace, folder: Path) -> tuple[Path, Path]:
    """The given video and voice, or synthetic ones of 1080x1920."""
    video, audio = options.video, options.audio
    if video is None:
        video = draw_tall(folder / "drawn.mp4", seconds=DRAWN_SECONDS)
    if audio is None:
        render_clip(folder / "voice", seed=VOICE_SEED, seconds=DRAWN_SECONDS, size=64)
        audio = folder / "voice.wav"
    return video, audio


def draw_tall(
    path: Path, *, seconds: float, width: int = 1080, height: int = 1920, preset: str = "veryfast"
) -> Path:
    """A synthetic speaker in a large picture; beyond 4 s the video plays back and forth."""
    drawn = render_clip(
        path.with_name("drawn_face"), seed=FACE_SEED, seconds=DRAWN_SECONDS, size=512
    )
    small = list(read_frames(drawn))
    round_trip = chain.from_iterable(repeat([*small, *small[::-1]]))
    with VideoWriter(path, fps=FPS, width=width, height=height, crf=20, preset=preset) as writer:
        for face in islice(round_trip, round(seconds * FPS)):
            writer.write(in_large(face, width, height))
    return path


def in_large(face: UInt8[np.ndarray, "s s 3"], width: int, height: int) -> np.ndarray:
    """A square picture scaled to fit in the middle, with its edges replicated over the rest."""
    side = min(width, height)
    face = cv2.resize(face, (side, side), interpolation=cv2.INTER_LINEAR)
    x, y = width - side, height - side
    return cv2.copyMakeBorder(face, y // 2, y - y // 2, x // 2, x - x // 2, cv2.BORDER_REPLICATE)


def voice_of(path: Path, seconds: float, source: Path) -> Path:
    """A voice repeated up to `seconds`."""
    waveform = read_waveform(source)
    wanted = round(seconds * 16000)
    write_wav(path, waveform.repeat(-(-wanted // len(waveform)))[:wanted])
    return path


def load_sampler(name: str) -> Sampler:
    """The sampler of conf/sampler/NAME.yaml."""
    path = conf_dir() / "sampler" / f"{name}.yaml"
    if not path.is_file():
        there = ", ".join(sorted(file.stem for file in path.parent.glob("*.yaml")))
        raise ValueError(f"sampler={name}: there is no {path}, only {there}")
    return instantiate(OmegaConf.load(path), _convert_="all")


class PoolingVAE(AutoencoderKL):
    """A VAE that costs nothing: latents are the picture's colours at an eighth of the
    resolution."""

    def encode(self, x: Tensor, return_dict: bool = True) -> AutoencoderKLOutput:
        small = F.avg_pool2d(x, 8)
        mean = torch.cat([small, small.mean(dim=1, keepdim=True)], dim=1)
        parameters = torch.cat([mean, torch.full_like(mean, -20)], dim=1)
        return AutoencoderKLOutput(latent_dist=DiagonalGaussianDistribution(parameters))

    def decode(
        self, z: Tensor, return_dict: bool = True, generator: object = None
    ) -> DecoderOutput:
        return DecoderOutput(sample=F.interpolate(z[:, :3], scale_factor=8))


def tiny_model(resolution: int = 256) -> LipSyncModel:
    """A model whose networks take almost no time or memory."""
    torch.manual_seed(0)
    widths = (4, 4, 4, 4)
    vae = PoolingVAE(
        block_out_channels=widths,
        down_block_types=["DownEncoderBlock2D"] * len(widths),
        up_block_types=["UpDecoderBlock2D"] * len(widths),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        mid_block_add_attention=False,
    )
    unet = UNet(
        in_channels=13,
        out_channels=4,
        block_out_channels=(8, 16),
        attention_levels=(False, True),
        layers_per_block=1,
        norm_num_groups=4,
        cross_attention_dim=80,
        num_attention_heads=2,
    )
    return LipSyncModel(
        unet=unet.eval(),
        codec=LatentCodec(vae),
        audio_encoder=MelAudioEncoder(),
        process=DDPM(DDIMScheduler(prediction_type="sample", clip_sample=False)),
        model_format=ModelFormat(resolution=resolution, audio_before=2, audio_after=2),
    )


NO_STEPS = Sampler("ddim", num_steps=1, guidance_scale=1.0)
