"""Seconds per stage-1 step on stored latents, compared with encoding pixels.

`python bench/bench_stage1.py [--repeats 3]`. The published VAE (random weights) encodes truth,
masked truth and reference, 16 frames of 256x256 each; the UNet is reduced to 64 to 256 channels, so
that a CPU can train it. The step is the task's own: noise, UNet, loss, backward, AdamW.
"""

import argparse
import time
from functools import partial
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler
from inputs import wait_passively
from omegaconf import OmegaConf
from torch import Tensor
from torch.optim.lr_scheduler import ConstantLR

from latentsync.diffusion import DDPM
from latentsync.losses import ReconLoss
from latentsync.models import LatentCodec, LipSyncModel, MelAudioEncoder, ModelFormat, UNet
from latentsync.training import DiffusionTask

CONF = Path(__file__).parents[1] / "conf"


def main() -> None:
    wait_passively()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    task = make_task()
    pixels, latents = batches()
    # Latents first; the minimum of several runs, since other programs can only increase a time.
    stored = min(seconds(task, latents) for _ in range(options.repeats + 1))
    encoded = min(seconds(task, pixels) for _ in range(options.repeats))
    print(f"step on stored latents {stored:6.2f} s")
    print(f"step on pixels         {encoded:6.2f} s   {encoded / stored:5.1f} x")


def make_task() -> DiffusionTask:
    torch.manual_seed(0)
    vae = OmegaConf.to_container(OmegaConf.load(CONF / "model/vae.yaml"))
    unet = OmegaConf.to_container(OmegaConf.load(CONF / "model/unet_stage1.yaml"))
    whole = OmegaConf.to_container(OmegaConf.load(CONF / "model/unet.yaml"))
    shape = {**whole, **unet, "block_out_channels": (64, 128, 256, 256)}
    vae, shape = (
        {name: value for name, value in each.items() if name not in ("_target_", "defaults")}
        for each in (vae, shape)
    )
    model = LipSyncModel(
        unet=UNet(**shape),
        codec=LatentCodec(AutoencoderKL(**vae)),
        audio_encoder=MelAudioEncoder(),
        process=DDPM(DDIMScheduler(clip_sample=False)),
        model_format=ModelFormat(),
    )
    task = DiffusionTask(
        model,
        losses={"recon": {"weight": 1.0, "loss": ReconLoss()}},
        optimizer=partial(torch.optim.AdamW, lr=1e-5),
        schedule=partial(ConstantLR, factor=1.0),
    )
    task.log = task.log_dict = lambda *args, **kwargs: None
    task.adam = task.configure_optimizers()["optimizer"]
    return task


def batches() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The same batch as pixels, and as latents."""
    audio = torch.randn(1, 16, 50, 384)
    frames = {name: torch.rand(1, 16, 3, 256, 256) * 2 - 1 for name in ("pixels", "reference")}
    names = ("latents", "masked_latents", "reference_latents")
    latents = {name: torch.randn(1, 16, 4, 32, 32) for name in names}
    mask = torch.ones(1, 16, 1, 256, 256)
    return {"audio": audio, "mask": mask, **frames}, {"audio": audio, "mask": mask, **latents}


def seconds(task: DiffusionTask, batch: dict[str, Tensor]) -> float:
    begun = time.perf_counter()
    loss = task.training_step(batch, 0)
    task.adam.zero_grad()
    loss.backward()
    task.adam.step()
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
