"""Every experiment trains two steps on the CPU, exports a model, and resumes."""

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL

from latentsync.models import LipSyncModel, StableSyncNet, load_network
from latentsync.training.callbacks.curves import read_curves
from smoke.tiny import READER_OF_64, TINY_UNET, run


def test_autoencoder(work: Path):
    run_dir = run(
        work, "demo/autoencoder", "autoencoder",
        "task.vae.block_out_channels=[8,8,8]",
    )  # fmt: skip
    vae = load_network(AutoencoderKL, run_dir / "model")
    assert len(vae.config.latents_mean) == len(vae.config.latents_std) == 8
    assert (run_dir / "curves.png").stat().st_size > 0


def test_one_batch_is_learnt_by_heart(work: Path):
    run_dir = run(
        work, "demo/mouth_reader", "overfit", "+debug=[tiny,overfit]", *READER_OF_64,
        "trainer.max_steps=60", "+task.reader.dropout=0.0",
    )  # fmt: skip
    losses = [loss for _, loss in read_curves(run_dir / "csv")["train/loss"]]
    assert len(losses) == 60
    assert sum(losses[-5:]) < 0.3 * sum(losses[:5])


def test_syncnet(syncnet_run: Path):
    net = load_network(StableSyncNet, syncnet_run / "model")
    assert net.config.trained_on == "drawn"  # every source has its ground truth next to it
    vision = net.embed_frames(torch.randn(1, 48, 32, 64))
    assert vision.norm().item() == pytest.approx(1, abs=1e-5)


def test_stage1_and_stage2_with_its_syncnet(work: Path, stage1_run: Path, syncnet_run: Path):
    assert LipSyncModel.from_pretrained(stage1_run / "model").unet.config.motion == "none"
    run_dir = run(
        work, "demo/unet_stage2", "stage2", f"stage1='{stage1_run / 'model'}'",
        f"syncnet='{syncnet_run / 'model'}'",
    )  # fmt: skip
    model = LipSyncModel.from_pretrained(run_dir / "model")
    assert model.unet.config.motion == "decoder"
    log = read_curves(run_dir / "csv")
    assert {"train/recon", "train/sync", "val/sync"} <= set(log)


def test_checkpoints_hold_the_unet_and_its_training_only(stage1_run: Path):
    checkpoint = torch.load(stage1_run / "checkpoints" / "last.ckpt", weights_only=True)
    assert {name.split(".")[0] for name in checkpoint["state_dict"]} == {"unet"}
    assert checkpoint["global_step"] == 2


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty:UserWarning")
def test_a_run_goes_on_from_its_last_step(work: Path, stage1_run: Path):
    arguments = [*TINY_UNET, f"vae='{work / 'vae'}'", "trainer.max_steps=3"]
    run(work, "demo/unet_stage1", "stage1", *arguments, "ckpt_path=last")
    checkpoint = torch.load(stage1_run / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 3
