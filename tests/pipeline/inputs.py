"""Inputs for the tests of this folder."""

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler

from latentsync.diffusion import DDPM
from latentsync.faces import Face, FaceDetector, FixedDetector, Placement
from latentsync.faces.occlusion import SIDE, Occluder, OcclusionMasker
from latentsync.media.audio import write_wav
from latentsync.media.video import VideoWriter
from latentsync.models.audio.encoders import MelAudioEncoder
from latentsync.models.codec import LatentCodec
from latentsync.models.lipsync import LipSyncModel
from latentsync.models.model_config import ModelFormat
from latentsync.models.unet import UNet
from latentsync.pipeline import Request, Session, Source, prepare_job
from latentsync.pipeline.job import Job

RESOLUTION = 32
# Left brow, right brow, nose of the face that every test frame supposedly shows.
POINTS = [[48.0, 48.0], [80.0, 48.0], [64.0, 64.0]]
# Sizes that x264 encodes reproducibly: its AVX-512 code does not for odd numbers of macroblocks.
WIDTH, HEIGHT = 128, 112


class SeesLight(FixedDetector):
    """Detects a face at the fixed points wherever the frame is not black."""

    def __call__(self, frame: np.ndarray) -> list[Face]:
        return super().__call__(frame) if frame.mean() > 24 else []

    def refine(self, frame: np.ndarray, face: Face) -> Face | None:
        return next(iter(self(frame)), None)


class RightHalf:
    """Something hides the right half of the face in the frames FIRST to END - 1.

    It counts frames to know their number: it is shown every one.
    """

    FIRST, END = 10, 22

    every = 1
    cache_key = "right half"

    def __init__(self) -> None:
        self.number = -1

    def __call__(
        self, frame: np.ndarray, placement: Placement, before: Occluder | None
    ) -> Occluder | None:
        self.number += 1
        if not self.FIRST <= self.number < self.END:
            return None
        covered = np.zeros((SIDE, SIDE), dtype=np.float32)
        covered[:, SIDE // 2 :] = 1
        return Occluder(covered)


def build_tiny_model() -> LipSyncModel:
    """Real parts of the smallest size, with fixed random weights."""
    torch.manual_seed(0)
    vae = AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2,
        latent_channels=4,
        norm_num_groups=4,
    )
    unet = UNet(
        in_channels=13,
        out_channels=4,
        block_out_channels=(32, 64),
        attention_levels=(False, True),
        layers_per_block=1,
        norm_num_groups=8,
        cross_attention_dim=80,
        num_attention_heads=2,
    )
    return LipSyncModel(
        unet=unet.eval(),
        codec=LatentCodec(vae),
        audio_encoder=MelAudioEncoder(),
        process=DDPM(DDIMScheduler(prediction_type="sample", clip_sample=False)),
        model_format=ModelFormat(resolution=RESOLUTION, audio_before=2, audio_after=2),
    )


def picture(index: int) -> np.ndarray:
    """Frame `index` of every test video: moving stripes, so that no two are equal."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    wave = np.sin(x / 10 + index * 0.08) * np.cos(y / 14 - index * 0.05)
    levels = 128 + 60 * wave
    return np.stack([levels, levels[::-1], levels[:, ::-1]], axis=-1).astype(np.uint8)


def write_video(path: Path, frames: list[np.ndarray], *, fps: float = 25, crf: int = 0) -> Path:
    height, width = frames[0].shape[:2]
    with VideoWriter(path, fps=fps, width=width, height=height, crf=crf) as writer:
        for frame in frames:
            writer.write(frame)
    return path


def write_voice(path: Path, seconds: float) -> Path:
    time = torch.arange(round(seconds * 16000)) / 16000
    write_wav(path, 0.5 * torch.sin(2 * torch.pi * 220 * time) * torch.sin(7 * time))
    return path


def job_of(
    video: Path,
    voice: Path,
    *,
    model: LipSyncModel,
    detector: FaceDetector,
    with_mel: bool = False,
    masker: OcclusionMasker | None = None,
    **asked: object,
) -> Job:
    """The job for these files; `asked` are fields of a `Request`."""
    request = Request(Source.of(video), voice, **asked)
    return prepare_job(request, Session(model, detector, masker=masker), with_mel=with_mel)


def presets_of_the_command() -> dict:
    """The presets of the page; imported here, since the page's library is an extra."""
    from latentsync.cli.page import PRESETS, build_preset, composed

    usual = composed()
    return {name: build_preset(name, usual=usual) for name in PRESETS}
