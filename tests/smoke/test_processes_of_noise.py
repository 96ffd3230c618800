"""A UNet trained by flow matching: exported, sampled, and exported again from its checkpoint."""

import json
from pathlib import Path

import pytest
import torch

from latentsync.diffusion import FlowMatching, Sampler
from latentsync.models import LipSyncModel
from latentsync.weights.folders import model_folder
from smoke.tiny import TINY_UNET, run


@pytest.fixture(scope="module")
def flow_run(work: Path) -> Path:
    return run(
        work, "demo/unet_stage1", "flow", *TINY_UNET, f"vae='{work / 'vae'}'",
        "process=flow_matching", "process.num_train_timesteps=500",
    )  # fmt: skip


def test_a_model_of_flow_matching_comes_back_from_its_folder_and_its_checkpoint(
    flow_run: Path, tmp_path: Path
) -> None:
    folders = [
        flow_run / "model",
        model_folder(flow_run / "checkpoints" / "last.ckpt", cache=tmp_path),
    ]
    for folder in folders:
        config = json.loads((folder / "config.json").read_text())
        assert config["process"] == {"name": "flow_matching", "num_train_timesteps": 500}
        process = LipSyncModel.from_pretrained(folder).process
        assert isinstance(process, FlowMatching)
        assert process.num_train_timesteps == 500


def test_a_preset_samples_it_by_euler(flow_run: Path, generator: torch.Generator) -> None:
    """By hand: the guided velocity, added in equal steps from noise to data."""
    model = LipSyncModel.from_pretrained(flow_run / "model")
    pixels = torch.rand(1, 4, 3, 64, 64, generator=generator) * 2 - 1
    audio = torch.randn(1, 4, 24, 80, generator=generator)
    masked, seen = model.encode_faces(pixels)
    noise = model.sample_noise(generator)
    sampler = Sampler("dpmpp", 2, guidance_scale=1.0).suited_to(model.process)
    latents = model.generate_latents(masked, seen, audio, sampler=sampler, noise=noise)
    fixed = model.condition(pixels, pixels, sampler)
    expected = noise.expand_as(latents)
    for timestep in (499, 249):
        inputs = torch.cat([expected, fixed], dim=1)
        with torch.no_grad():
            expected = expected - model.unet(inputs, torch.tensor([timestep]), audio) / 2
    torch.testing.assert_close(latents, expected, atol=1e-5, rtol=0)
