"""SyncNet runs as users start them: what they log, plot and report, on any number of processes."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from safetensors.torch import load_file, save_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from latentsync.cli import doctor
from latentsync.cli.command import conf_dir, register_resolvers
from latentsync.data import read_manifest
from latentsync.media.mel import mel_window
from latentsync.models import load_syncnet
from latentsync.training.callbacks.curves import read_curves
from latentsync.training.callbacks.sync_plots import find_offset
from smoke.tiny import overrides, run

ARGUMENTS = ("data.train.windows_per_clip=2", "data.val.windows_per_clip=3")


@pytest.fixture(scope="module")
def judged(work: Path) -> Path:
    """Two steps of InfoNCE, two of BCE, validated after each two."""
    return run(
        work, "demo/syncnet", "judged_syncnet", *ARGUMENTS, "callbacks=syncnet",
        "trainer.max_steps=4",
        "task.bce_from_step=3", "task.offset_weight=0.1", "task.windows_at_once=3",
    )  # fmt: skip


def test_the_validation_loss_is_the_one_that_is_trained_on(judged: Path):
    curves = {name: dict(points) for name, points in read_curves(judged / "csv").items()}
    first, last = sorted(curves["val/loss"])
    for step, term in ((first, "info_nce"), (last, "bce")):
        expected = curves[f"val/{term}"][step] + 0.1 * curves["val/offset_error"][step]
        assert curves["val/loss"][step] == pytest.approx(expected, rel=1e-5)
    assert 0 <= curves["val/offset_accuracy"][last] <= 1
    shown = {"val/accuracy", "val/p_in_above_off", "val/calibration_error", "train/offset_error"}
    assert shown <= set(curves)


def test_pictures_lie_in_the_run_folder_and_in_tensorboard(judged: Path):
    for name in ("calibration", "offsets"):
        assert (judged / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    events = EventAccumulator(str(next((judged / "tensorboard").iterdir())))
    events.Reload()
    assert {"val/calibration", "val/offsets"} <= set(events.Tags()["images"])
    assert len(events.Images("val/offsets")) == 2


@pytest.mark.parametrize("late", [-7, 0, 4])
def test_the_offset_of_a_clip_is_the_shift_at_which_its_sound_suits_best(
    work: Path, judged: Path, late: int
):
    # Windows that look like the sound `late` frames later sounds: nothing fits them better.
    net = load_syncnet(judged / "model").eval()
    clip = read_manifest(work / "set")[0]
    mel = load_file(clip.features_path)["mel"]
    starts = torch.tensor([12, 20, 28])
    sounds = [mel_window(mel, int(start) + late, num_frames=16, fps=clip.fps) for start in starts]
    with torch.no_grad():
        vision = net.embed_mel(torch.stack(sounds)[:, None])
    assert find_offset(net, vision, starts, clip) == late


def examine(work: Path, name: str, *words: str) -> list[str]:
    register_resolvers()
    words = ("data.train.windows_per_clip=2", *words)
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = compose(
            "train", overrides=overrides(work, "demo/syncnet", work / "runs" / name, *words)
        )
    return doctor.examine(config)


def test_the_doctor_can_be_asked_before_a_run(work: Path):
    shutil.copytree(work / "set", work / "dead", ignore=shutil.ignore_patterns("latents"))
    for clip in read_manifest(work / "dead"):
        features = load_file(clip.features_path)
        save_file(features | {"mel": torch.full_like(features["mel"], -4)}, clip.features_path)
    findings = examine(
        work, "asked", f"data.train_manifest='{work / 'dead'}'", "callbacks=syncnet",
        "callbacks.doctor.overfit_steps=1",
    )  # fmt: skip
    told = "\n".join(findings)
    assert "2 of 2 clips are silent" in told
    assert "every sound (mean cosine 1.000)" in told
    assert "a batch has only 4 windows" in told
    assert all(line in (work / "runs/asked/syncnet_doctor.md").read_text() for line in findings)


def test_a_run_without_a_doctor_is_told_how_to_get_one(work: Path):
    with pytest.raises(ValueError, match="demo/syncnet has no doctor: add callbacks=syncnet"):
        examine(work, "unasked")


SCRIPT = """
import sys
from functools import partial
import torch
from lightning import Trainer, seed_everything
from torch.optim import SGD
from torch.optim.lr_scheduler import ConstantLR
from latentsync.data.datamodule import ClipDataModule
from latentsync.models import load_syncnet
from latentsync.training import SyncNetTask
from latentsync.training.callbacks import GradientMonitor

def main(folder, model, num_processes, out):
    seed_everything(0, verbose=False)
    items = {"resolution": 64, "with_reference": False, "with_audio": False, "in_memory": True,
             "windows_per_clip": 2, "samples_per_clip": 8, "packed": False}
    data = ClipDataModule(folder, folder, train=items, val=items, batch_size=4 // num_processes)
    task = SyncNetTask(
        load_syncnet(model), optimizer=partial(SGD, lr=0.01), bce_from_step=100,
        schedule=partial(ConstantLR, factor=1.0), windows_at_once=3,
    )
    trainer = Trainer(
        accelerator="cpu", devices=num_processes, max_steps=3, logger=False, precision="64-true",
        strategy="ddp" if num_processes > 1 else "auto", enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=False,
        limit_val_batches=0, gradient_clip_val=1.0, callbacks=[GradientMonitor()],
    )
    trainer.fit(task, datamodule=data)
    if trainer.is_global_zero:
        names = ("train/loss", "train/gradient_norm")
        values = {name: trainer.callback_metrics[name] for name in names}
        torch.save({"weights": task.state_dict(), "values": values}, out)

if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
"""


@pytest.mark.slow
def test_two_processes_take_each_others_windows_as_negatives(
    work: Path, syncnet_run: Path, tmp_path: Path
):
    script = tmp_path / "train_syncnet.py"
    script.write_text(SCRIPT)
    results = []
    for num_processes in (1, 2):
        out = tmp_path / f"{num_processes}.pt"
        model = syncnet_run / "model"
        words = [sys.executable, script, work / "set", model, str(num_processes), out]
        subprocess.run(words, check=True, timeout=1200)
        results.append(torch.load(out, weights_only=True))
    one, two = results
    torch.testing.assert_close(two["values"], one["values"], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(two["weights"], one["weights"], atol=1e-5, rtol=0)
