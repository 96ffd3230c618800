"""Shared by the training tests: a small data set, and runs that others build on."""

from pathlib import Path

import pytest
import torch

from latentsync.data.synthetic import render_clip
from latentsync.models import WhisperAudioEncoder, save_network
from latentsync.prepare import Recipe, encode_audio, encode_latents, prepare_clips
from smoke.tiny import TINY_UNET, fixed_face, run, tiny_vae, tiny_whisper


@pytest.fixture(scope="session")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two synthetic speakers, prepared at 64 px, with latents of a tiny random VAE, mels, and the
    states of a tiny Whisper."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "raw").mkdir()
    for seed in (1, 2):
        render_clip(folder / "raw" / str(seed), seed=seed, seconds=2.6, size=128)
    prepare_clips(
        folder / "raw",
        folder / "set",
        stages=Recipe(make_detector=fixed_face, resolution=64, occlusion=None).stages(),
    )
    torch.manual_seed(0)
    for name, channels in (("vae", 8), ("sd_vae", 4)):
        save_network(tiny_vae(channels), folder / name)
    encode_latents(folder / "set", folder / "vae")
    tiny_whisper().save_pretrained(folder / "whisper")
    encode_audio(folder / "set", WhisperAudioEncoder.load(folder / "whisper"))
    return folder


@pytest.fixture(scope="session")
def syncnet_run(work: Path) -> Path:
    return run(work, "demo/syncnet", "syncnet", "data.train.windows_per_clip=2")


@pytest.fixture(scope="session")
def stage1_run(work: Path) -> Path:
    return run(
        work, "demo/unet_stage1", "stage1", *TINY_UNET,
        f"vae='{work / 'vae'}'",
    )  # fmt: skip
