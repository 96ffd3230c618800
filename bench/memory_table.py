"""Peak memory of a training step of every full-size experiment, with fake tensors.

`python bench/memory_table.py unet_stage1 --precision bf16-mixed --batch 4` prints one row (in a few
minutes, without that much memory); without arguments it prints all rows of docs/memory.md. `--data
latents` trains on stored latents. `--real` runs the same step with real tensors on the CPU and
prints by how much the process grew. Weights are random and no files are needed.
"""

import argparse
import copy
import gc
import json
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

import torch
from diffusers import AutoencoderTiny
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.distributed._tools.mem_tracker import MemTracker
from training_step import AUTOCAST, GIB, begin, cast_to, recast, step, total_bytes
from transformers import VideoMAEConfig, VideoMAEModel

from latentsync.losses.video_mae import VideoBackbone
from latentsync.models import Frozen
from latentsync.models.codec import PreviewCodec

CONF = Path(__file__).parents[1] / "conf"
# Files that an experiment requires; none is opened here.
FILES = ("tiny_vae", "vae", "whisper", "stage1", "syncnet", "vgg", "videomae", "ckpt", "video")
VIDEO_MAE_G = {
    "hidden_size": 1408, "num_hidden_layers": 40, "num_attention_heads": 16,
    "intermediate_size": 6144, "patch_size": 14,
}  # fmt: skip
ROWS = [
    ("syncnet", 64), ("syncnet_plain", 64), ("syncnet_latent", 30), ("syncnet_25", 16),
    ("autoencoder", 16), ("autoencoder_decoder", 16), ("unet_stage1", 24), ("unet_stage1_512", 8),
    ("unet_stage2", 1), ("unet_stage2_efficient", 1), ("unet_stage2_512", 1),
]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("experiment", nargs="?")
    parser.add_argument("--precision", choices=("32-true", *AUTOCAST))
    parser.add_argument("--batch", type=int)
    parser.add_argument("--data", choices=("clips", "latents"), help="default: its own")
    parser.add_argument("--real", action="store_true")
    options = parser.parse_args()
    if options.experiment is None:
        for experiment, batch in ROWS:
            command = [sys.executable, __file__, experiment, "--batch", str(batch)]
            subprocess.run(command, check=True)
        return
    config = composed(options.experiment, options.data)
    precision = options.precision or config.trainer.precision
    batch = options.batch or config.data.batch_size
    begun = time.monotonic()
    peak = measured(config, precision, batch) if options.real else counted(config, precision, batch)
    row = {
        "experiment": options.experiment, "data": options.data, "precision": precision,
        "batch": batch, "gib": round(peak / GIB, 2), "real": options.real,
        "seconds": round(time.monotonic() - begun),
    }  # fmt: skip
    print(json.dumps(row), flush=True)


def composed(experiment: str, data: str | None) -> DictConfig:
    """The experiment's config, with new networks where it would read files."""
    with initialize_config_dir(str(CONF), version_base=None):
        words = [f"experiment={experiment}", *([f"data={data}"] if data else [])]
        config = compose("train", words)
    OmegaConf.set_struct(config, False)
    for name in FILES:
        if name in {*config}:  # `in config` does not see missing values
            config[name] = "unused"
    config.data.train_manifest = config.data.val_manifest = "unused"
    task = config.task
    if "model" in task:
        task.model = whole_model(task.model, config)
    if "vae" in task and "AutoencoderKL" not in task.vae._target_.rsplit(".", 1)[-1]:
        task.vae = network("vae")
    for name, term in task.get("losses", {}).items():
        loss = term.loss
        if name == "sync":
            loss.syncnet = network("syncnet")
        elif name == "perceptual":
            loss.backbone_path, loss.random_backbone = None, True
        elif name == "trepa":
            loss.backbone = {"_target_": f"{__name__}.video_mae_g"}
    return config


def whole_model(model: DictConfig, config: DictConfig) -> DictConfig:
    """A model of random networks: its VAE, its UNet with the same motion modules, no audio
    encoder."""
    if "unet" not in model:
        made = network("lipsync")
        made.pop("defaults")
        made.unet = network("unet")
        made.process = OmegaConf.load(CONF / "process" / "ddpm.yaml")
        if "motion" in model:
            made.unet.motion = model.motion
        if "512" in config.name:
            made.model_format.resolution = 512
        model = made
    model.codec = {"_target_": "latentsync.models.LatentCodec", "vae": network("vae")}
    model.audio_encoder = {"_target_": "latentsync.models.MelAudioEncoder"}
    return model


def network(name: str) -> DictConfig:
    return OmegaConf.load(CONF / "model" / f"{name}.yaml")


def video_mae_g() -> VideoBackbone:
    """VideoMAE-v2-g as used by TREPA, with random weights."""
    config = VideoMAEConfig(**VIDEO_MAE_G, use_mean_pooling=True, attn_implementation="sdpa")
    norm = torch.nn.LayerNorm(config.hidden_size)
    backbone = VideoBackbone(VideoMAEModel(config), norm=norm)
    recast(backbone, torch.float16)
    return backbone


class Tracker(MemTracker):
    """Counts tensors of modules that are called by themselves and several times, which `MemTracker`
    refuses for its figures per module, and of those with some frozen weights."""

    def _pre_fw_hook(self, module: torch.nn.Module, inputs: object) -> None:
        if not self._mod_tracker.is_bw:
            self.memory_tracking.pop(module, None)
        super()._pre_fw_hook(module, inputs)

    def _track_module_params_and_buffers(
        self, module: torch.nn.Module, install_grad_hooks: bool = True
    ) -> tuple[int, int]:
        all_trained = all(value.requires_grad for value in module.parameters())
        return super()._track_module_params_and_buffers(module, install_grad_hooks and all_trained)


def counted(config: DictConfig, precision: str, batch_size: int) -> int:
    """Peak bytes of a step: weights, gradients, optimizer state, moving average, activations."""
    with ExitStack() as stack:
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        # Fake tensors cannot be moved within modules; these are already in place.
        stack.enter_context(patch.object(Frozen, "to", lambda frozen, *args, **named: frozen))
        if "adapter" in config.task:  # PEFT moves the layers it wraps
            stack.enter_context(
                patch.object(torch.nn.Module, "to", lambda net, *args, **named: net)
            )
        tracker = stack.enter_context(Tracker())
        train(config, precision, batch_size)
        return total_bytes(tracker)


def measured(config: DictConfig, precision: str, batch_size: int) -> int:
    """Bytes by which this process grew at most; Linux only."""
    gc.collect()
    before = resident("VmRSS")
    train(config, precision, batch_size)
    return resident("VmHWM") - before


def resident(name: str) -> int:
    status = Path("/proc/self/status").read_text()
    return (
        next(int(line.split()[1]) for line in status.splitlines() if line.startswith(name)) * 1024
    )


def train(config: DictConfig, precision: str, batch_size: int) -> None:
    """Build the task and run its second step."""
    process = config.task.get("model", {}).get("process")
    if process is not None:
        # Noise schedules are read, and are on the CPU, wherever the networks are.
        with unset_fake_temporarily():
            process = instantiate(process)
        config = copy.deepcopy(config)
        config.task.model.process = None
    settings = OmegaConf.to_container(config.task, resolve=True)
    tiny = settings.pop("tiny_vae", None)
    if "model" in settings:
        model = instantiate(settings.pop("model"), _convert_="all")
        model.process = process
        task = instantiate(settings, _convert_="all", model=model)
    else:
        task = instantiate(settings, _convert_="all")
    if tiny is not None:
        task.tiny = PreviewCodec(AutoencoderTiny())
        task.tiny.vae.net.enable_gradient_checkpointing()
    task.log = task.log_dict = lambda *args, **kwargs: None
    cast_to(task, precision)
    optimizer = task.configure_optimizers()["optimizer"]
    ema = config.callbacks.get("ema")
    average = copies(task) if ema and ema.get("device") != "cpu" else []
    begin(optimizer)
    batch = make_batch(config, batch_size)
    step(lambda: task.training_step(batch, 0), optimizer, precision=precision)
    del average


def copies(task: torch.nn.Module) -> list[Tensor]:
    return [value.detach().clone() for value in task.parameters()]


def make_batch(config: DictConfig, batch_size: int) -> dict[str, Tensor]:
    """A batch as returned by the loader, of random numbers."""
    wanted = {**(config.data.get("both") or {}), **config.data.train}
    frames = wanted.get("num_frames", 16)
    size = 512 if config.name.endswith("512") else 256
    count = batch_size * wanted.get("windows_per_clip", 1)
    batch = {"mask": torch.ones(1, 1, 1, size, size).expand(count, frames, 1, -1, -1)}
    if wanted.get("with_pixels", True):
        batch["pixels"] = torch.rand(count, frames, 3, size, size)
        if wanted.get("with_reference", True):
            batch["reference"] = torch.rand(count, frames, 3, size, size)
    if wanted.get("with_latents", False):
        for name in ("latents", "masked_latents", "reference_latents"):
            batch[name] = torch.rand(count, frames, 4, size // 8, size // 8)
    if wanted.get("with_audio", True):
        batch["audio"] = torch.rand(count, frames, 50, 384)
    if wanted.get("with_mel", True):
        batch["mel"] = torch.rand(count, 1, 80, -(-frames * 80 // 25))
    batch["clip_index"] = torch.arange(count) // wanted.get("windows_per_clip", 1)
    batch["start"] = torch.arange(count) % wanted.get("windows_per_clip", 1) * 16
    return batch


if __name__ == "__main__":
    main()
