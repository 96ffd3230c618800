"""Seconds of UNet per second of video: every preset, compared with the official loop.

`python bench/bench_unet.py [--repeats 1]`. The published UNet with random weights, faces of 256
pixels, on the CPU. The baseline is the official pipeline's loop: 20 guided steps in float32, each a
pass of two clips through the whole UNet, without overlap of chunks. "cached" compares with the same
loop with DeepCache, which the official scripts enable. Only single passes are timed, one through
the whole UNet and one through the part that a DeepCache step needs, and multiplied (a whole chunk
takes 20 minutes on a laptop). Times are processor seconds, which other programs affect less than
wall time; the machine should be idle nevertheless. VAE and everything else are excluded.
"""

import argparse
import gc
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from torch import Tensor

from latentsync.diffusion.sampler import Sampler
from latentsync.models import DeepCache, UNet, best_dtype
from latentsync.models.frozen import cast

CONF = Path(__file__).parents[1] / "conf"
PRESETS = ("official", "best", "balanced", "fast", "draft")
BASELINE = Sampler("ddim", num_steps=20, guidance_scale=1.5)
CACHED = Sampler("ddim", num_steps=20, guidance_scale=1.5, deepcache_interval=3)
LENGTH, FPS = 16, 25


@dataclass(frozen=True, slots=True)
class Passes:
    """Processor seconds of the passes for one chunk."""

    whole: float
    shallow: float

    def seconds(self, sampler: Sampler, *, overlap: int) -> float:
        """Per second of video whose chunks share `overlap` frames."""
        whole, shallow = sampler.passes()
        return (whole * self.whole + shallow * self.shallow) * FPS / (LENGTH - overlap)


def main() -> None:
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=1)
    options = parser.parse_args()
    inputs = make_inputs()
    unet = make_unet()
    timed: dict[torch.dtype, Passes] = {}
    for dtype in dict.fromkeys((torch.float32, best_dtype("cpu"))):
        cast(unet, "cpu", dtype)
        gc.collect()
        timed[dtype] = time_passes(unet, inputs, options.repeats)
        print(
            f"{dtype!s:15} {timed[dtype].whole:7.2f} s a pass of {LENGTH} frames, "
            f"{timed[dtype].shallow:6.2f} s a shallow one",
            flush=True,
        )
    baseline = timed[torch.float32].seconds(BASELINE, overlap=0)
    cached = timed[torch.float32].seconds(CACHED, overlap=0)
    print(f"official loop, float32: {baseline:.0f} s a second of video, cached {cached:.0f} s")
    print(
        f"{'preset':10} {'dtype':15} {'passes':>8} {'overlap':>7} "
        f"{'s':>7} {'ratio':>6} {'cached':>6}"
    )
    for name in PRESETS:
        sampler, overlap = preset(name)
        for dtype, passes in timed.items():
            seconds = passes.seconds(sampler, overlap=overlap)
            whole, shallow = sampler.passes()
            print(
                f"{name:10} {dtype!s:15} {whole:>3} + {shallow:<2} {overlap:>7} "
                f"{seconds:7.1f} {baseline / seconds:6.2f} {cached / seconds:6.2f}"
            )


def preset(name: str) -> tuple[Sampler, int]:
    """Sampler and overlap of `infer.py preset=name`; official chunks do not overlap."""
    with initialize_config_dir(str(CONF), version_base=None):
        config = compose("infer", overrides=[f"preset={name}"])
    sampler = instantiate(config.sampler, _convert_="all")
    return sampler, 0 if sampler.sample_latents else config.overlap


def make_unet() -> UNet:
    """The published UNet; its weights repeat a few random numbers, which is as slow to run but
    faster to create."""
    with initialize_config_dir(str(CONF), version_base=None):
        config = compose("model/unet").model
    with torch.device("meta"):
        unet = instantiate(config, _convert_="all")
    unet = unet.to_empty(device="cpu").eval().requires_grad_(False)
    some = torch.randn(99_991, generator=torch.Generator().manual_seed(0)) * 0.02
    for weight in [*unet.parameters(), *unet.buffers()]:
        weight.copy_(some.repeat(weight.numel() // len(some) + 1)[: weight.numel()].view_as(weight))
    return unet


def make_inputs() -> tuple[Tensor, Tensor, Tensor]:
    """One clip: noisy latents with the conditioning channels, timestep, audio."""
    generator = torch.Generator().manual_seed(0)
    sample = torch.randn(1, 13, LENGTH, 32, 32, generator=generator)
    audio = torch.randn(1, LENGTH, 50, 384, generator=generator)
    return sample, torch.tensor([500]), audio


@torch.no_grad()
def time_passes(unet: UNet, inputs: tuple[Tensor, Tensor, Tensor], repeats: int) -> Passes:
    sample, times, audio = inputs
    sample, audio = sample.to(unet.dtype), audio.to(unet.dtype)
    unet(sample[:, :, :1], times, audio[:, :1])
    whole = quickest(lambda: unet(sample, times, audio), repeats)
    cached = DeepCache(unet, interval=10**6)
    cached(sample, times, audio)  # the first step is a full one
    shallow = quickest(lambda: cached(sample, times, audio), repeats)
    return Passes(whole, shallow)


def quickest(call: Callable[[], object], repeats: int) -> float:
    seconds = []
    for _ in range(repeats):
        started = time.process_time()
        call()
        seconds.append(time.process_time() - started)
    return min(seconds)


if __name__ == "__main__":
    main()
