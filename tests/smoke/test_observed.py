"""What a run folder shows its user, and what is rejected before the first step."""

import json
import time
from pathlib import Path

import av
import numpy as np
import pytest
import torch
import yaml
from einops import rearrange
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from lightning.pytorch.strategies import StrategyRegistry
from omegaconf import DictConfig
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from latentsync.cli.command import conf_dir, register_resolvers
from latentsync.cli.environment import describe_git, record_environment
from latentsync.data import ClipDataset, Items, read_manifest
from latentsync.media.audio import read_waveform
from latentsync.models import LipSyncModel, load_syncnet, sync_input
from latentsync.training import ShardedStrategy
from latentsync.training.callbacks.curves import read_curves
from smoke.tiny import TINY_UNET, run


def test_sample_videos_show_truth_above_drawn(work: Path, stage1_run: Path, syncnet_run: Path):
    run_dir = run(
        work, "demo/unet_stage2", "samples", "callbacks=samples",
        f"stage1='{stage1_run / 'model'}'", f"syncnet='{syncnet_run / 'model'}'",
        "callbacks.samples.every_n_steps=2",
        "callbacks.samples.sampler.num_steps=2",
    )  # fmt: skip
    (path,) = (run_dir / "samples").iterdir()
    assert path.name == "step_0000002.mp4"
    with av.open(path) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    # Two clips in sequence, 16 frames of 40 ms each, with their sound.
    assert len(frames) == 2 * 16
    assert frames[0].shape == (2 * 64, 64, 3)
    heard, said = read_waveform(path)[: 2 * 10_240], said_in(work)
    assert np.corrcoef(heard, said)[0, 1] > 0.9
    logged = EventAccumulator(str(next((run_dir / "tensorboard").glob("version_*"))))
    logged.Reload()
    assert "val/samples" in logged.Tags()["images"]
    assert "val/samples" in logged.Tags()["audio"]
    assert "hp_metric" not in logged.Tags()["scalars"]
    for kept in (run_dir / "csv", run_dir / "tensorboard"):
        told = yaml.safe_load(next(kept.rglob("hparams.yaml")).read_text())
        assert told["task"]["optimizer"]["lr"] == 3e-4
        assert told["task"]["schedule"]["num_training_steps"] == 2
    ((step, cosine),) = read_curves(run_dir / "csv")["val/sample_sync"]
    assert step == 1
    assert -1 <= cosine <= 1


def test_metrics_of_held_out_clips_are_logged(work: Path) -> None:
    run_dir = run(
        work, "demo/unet_stage1", "evaluated", *TINY_UNET, f"vae='{work / 'vae'}'",
        "callbacks=evaluate", "callbacks.evaluate.every_n_steps=2",
        "callbacks.evaluate.sampler.num_steps=1", "callbacks.evaluate.max_frames=20",
        "callbacks.evaluate.syncnet=null",
    )  # fmt: skip
    curves = read_curves(run_dir / "csv")
    logged = {name for name in curves if name.startswith(("val/own/", "val/other/"))}
    # Only its own voice has a truth inside the mask, and only another's can leak.
    assert {"val/own/psnr_inside", "val/own/r_open", "val/other/r_open", "val/other/leak"} <= logged
    assert "val/other/psnr_inside" not in logged
    assert not any("sync" in name for name in logged)
    ((step, value),) = curves["val/own/psnr_inside"]
    assert step == 1
    assert 5 < value < 60


def test_sync_of_faces_that_the_judge_does_not_know_is_not_logged(
    work: Path, syncnet_run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run_dir = run(
        work, "demo/unet_stage1", "unknown", *TINY_UNET, f"vae='{work / 'vae'}'",
        "callbacks=evaluate", "callbacks.evaluate.every_n_steps=2",
        "callbacks.evaluate.sampler.num_steps=1", "callbacks.evaluate.max_frames=20",
        "callbacks.evaluate.reader=null", f"callbacks.evaluate.syncnet={syncnet_run / 'model'}",
    )  # fmt: skip
    curves = read_curves(run_dir / "csv")
    assert "val/own/psnr_inside" in curves
    # It was trained for two steps, and cannot tell the clips' own sound from others.
    assert not any("sync" in name or "over_off" in name for name in curves if "val/o" in name)
    assert "the sync figures are left out: not valid here" in caplog.text


def test_stage_1_shows_its_sync_by_a_syncnet_that_does_not_judge_it(work: Path, syncnet_run: Path):
    judge = f"{{_target_: latentsync.models.load_syncnet, folder: '{syncnet_run / 'model'}'}}"
    run_dir = run(
        work, "demo/unet_stage1", "judged", *TINY_UNET, f"vae='{work / 'vae'}'",
        "callbacks=samples", "callbacks.samples.every_n_steps=2",
        "callbacks.samples.sampler.num_steps=1", f"+callbacks.samples.syncnet={judge}",
        "+data.val.with_mel=true", "+data.val.num_frames=16", "+data.val.stride=1",
    )  # fmt: skip
    curves = read_curves(run_dir / "csv")
    ((_, drawn),), ((_, truth),) = curves["val/sample_sync"], curves["val/truth_sync"]
    # The ground truth does not depend on the initial noise, nor does its cosine.
    batch = validation_batch(work)
    net = load_syncnet(syncnet_run / "model").eval()
    model = LipSyncModel.from_pretrained(run_dir / "model")
    latents = rearrange(batch["latents"], "b f c x y -> b c f x y")
    with torch.no_grad():
        frames = sync_input(model.decode(latents).clamp(-1, 1), net.config.resolution)
        vision, audio = net(frames, batch["mel"])
    assert truth == pytest.approx((vision * audio).sum(dim=1).mean().item(), abs=1e-4)
    assert -1 <= drawn <= 1


def said_in(work: Path) -> torch.Tensor:
    """The sound of the first two validation windows at 16 kHz."""
    batch = validation_batch(work)
    clips = read_manifest(work / "set")
    return torch.cat(
        [
            read_waveform(clips[index].path)[start * 640 : (start + 16) * 640]
            for index, start in zip(batch["clip_index"], batch["start"], strict=True)
        ]
    )


def validation_batch(work: Path) -> dict[str, torch.Tensor]:
    dataset = ClipDataset(
        read_manifest(work / "set"), Items(with_pixels=False, with_latents=True, audio_before=6,
        samples_per_clip=2,))  # fmt: skip
    return dataset.collate([dataset[0], dataset[1]])


def test_a_run_folder_holds_its_environment(stage1_run: Path):
    (entry, *_) = json.loads((stage1_run / "environment.json").read_text())
    assert entry["packages"]["torch"].startswith("2.")
    assert {"command", "git", "python", "platform", "devices"} <= set(entry)


def test_every_start_of_a_run_adds_an_entry(tmp_path: Path):
    for _ in range(2):
        record_environment(tmp_path / "environment.json")
    assert len(json.loads((tmp_path / "environment.json").read_text())) == 2


def test_a_folder_outside_any_repository_has_no_git_state(tmp_path: Path):
    assert describe_git(tmp_path) is None


def test_features_of_another_encoder_are_refused_with_both_shapes(work: Path):
    with pytest.raises(ValueError, match=r"24 tokens of 80 numbers a frame, the UNet takes 24 of"):
        run(
            work, "demo/unet_stage1", "other_encoder", *TINY_UNET, f"vae='{work / 'vae'}'",
            "task.model.unet.audio_projection.dim_in=384",
        )  # fmt: skip


def test_latents_of_another_vae_are_refused(work: Path):
    with pytest.raises(ValueError, match=r"have 8 channels, the model's VAE makes 4"):
        run(
            work, "demo/unet_stage1", "other_vae", *TINY_UNET, f"vae='{work / 'sd_vae'}'",
            "task.model.unet.in_channels=13",
            "task.model.unet.out_channels=4",
        )  # fmt: skip


@pytest.mark.parametrize(
    "words",
    [
        ["sweep=learning_rate"],
        ["hparams_search=optuna"],
        ["callbacks=syncnet"],
        ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"],
        ["trainer=fsdp"],
        ["trainer=slurm"],
        ["launcher=joblib"],
        ["launcher=submitit"],
        ["launcher=ray"],
    ],
)
def test_variants_compose(words: list[str]):
    launcher = words[0].removeprefix("launcher=")
    if launcher in ("submitit", "ray"):
        pytest.importorskip(f"hydra_plugins.hydra_{launcher}_launcher", reason="an extra")
    config = composed(*words)
    assert config.trainer.plugins[0]._target_ == "latentsync.training.callbacks.WholeCheckpoints"
    if launcher != words[0]:
        assert f"{launcher}_launcher" in config.hydra.launcher._target_


def composed(*words: str) -> DictConfig:
    register_resolvers()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("train", ["experiment=demo/syncnet", *words], return_hydra_config=True)


def test_trainers_of_many_processes_are_made_as_they_are_written(monkeypatch):
    """Without GPUs and DeepSpeed this is all that can be tested."""
    for name, value in {"SLURM_NNODES": "3", "SLURM_NTASKS_PER_NODE": "4"}.items():
        monkeypatch.setenv(name, value)
    slurm = composed("trainer=slurm").trainer
    assert (slurm.num_nodes, slurm.devices, slurm.strategy) == (3, 4, "ddp")
    assert instantiate(slurm.plugins)[1].auto_requeue
    assert isinstance(instantiate(composed("trainer=fsdp").trainer.strategy), ShardedStrategy)
    deepspeed = composed("trainer=deepspeed").trainer
    assert deepspeed.strategy in StrategyRegistry
    assert deepspeed.plugins is None  # its checkpoints are folders


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_wandb_keeps_a_run_on_disk_without_an_account(work: Path, monkeypatch):
    """Complete when the run is over, not when the process is: a sweep has many runs in one
    process."""
    pytest.importorskip("wandb", reason="the extra wandb is not installed")
    for name, value in {"WANDB_MODE": "offline", "WANDB_SILENT": "true"}.items():
        monkeypatch.setenv(name, value)
    run_dir = run(
        work, "demo/syncnet", "wandb", "logger=wandb", "callbacks=syncnet",
        "data.train.windows_per_clip=2",
    )  # fmt: skip
    (log,) = (run_dir / "wandb").glob("offline-run-*/*.wandb")
    # Written by a separate process of wandb; on a busy machine shortly after the run was closed.
    end = time.monotonic() + 60
    while b"train/gradient_norm" not in log.read_bytes() and time.monotonic() < end:
        time.sleep(0.1)
    written = log.read_bytes()
    for kept in (b"train/gradient_norm", b"val/calibration", b"val/offsets", b"bce_from_step"):
        assert kept in written
    assert len(list(log.parent.rglob("media/images/**/*.png"))) == 2
    assert "train/gradient_norm" in read_curves(run_dir / "csv")
