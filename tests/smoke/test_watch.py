"""A diverging run stops in time and reports where to look; a good one reports its pace."""

import errno
import math
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from latentsync.training.callbacks.checkpoints import WholeCheckpoints
from latentsync.training.callbacks.curves import read_curves
from latentsync.training.tasks import syncnet as syncnet_task
from smoke.tiny import run

ARGUMENTS = ("data.train.windows_per_clip=2",)


def test_a_loss_that_is_not_finite_stops_the_run_and_names_its_clips(work: Path, monkeypatch):
    sound = syncnet_task.balanced_bce
    monkeypatch.setattr(syncnet_task, "balanced_bce", lambda *values: sound(*values) * math.nan)
    with pytest.raises(ValueError, match=r"stopped at step 3 .* loss is not finite") as error:
        run(
            work, "demo/syncnet", "not_a_number", *ARGUMENTS, "task.bce_from_step=3",
            "trainer.max_steps=6", "callbacks.checkpoint.every_n_train_steps=1",
        )  # fmt: skip
    last = work / "runs" / "not_a_number" / "checkpoints" / "last.ckpt"
    assert f"The last good checkpoint is {last}" in str(error.value)
    names = [path.stem for path in (work / "set" / "clips").glob("*.mp4")]
    assert any(f"{name} from frame" in str(error.value) for name in names)
    checkpoint = torch.load(last, weights_only=True)
    assert checkpoint["global_step"] == 3
    assert all(value.isfinite().all() for value in checkpoint["state_dict"].values())


TYPOS = {
    "val/los": (2, "near: val/loss"),
    "train/los": (2, "near: train/loss"),
    "val/sample_sinc": (2, "there are: "),
}


@pytest.mark.parametrize("name", TYPOS)
def test_an_objective_that_nobody_logs_ends_the_run_at_its_first_validation(work: Path, name: str):
    step, said = TYPOS[name]
    folder = f"objective_{name.replace('/', '_')}"
    with pytest.raises(ValueError, match=f"objective={name} was not logged.*{said}"):
        run(
            work, "demo/syncnet", folder, *ARGUMENTS, f"objective={name}", "trainer.max_steps=6",
            "callbacks.checkpoint.every_n_train_steps=1", "trainer.log_every_n_steps=1",
            "trainer.val_check_interval=2",
        )  # fmt: skip
    last = work / "runs" / folder / "checkpoints" / "last.ckpt"
    assert torch.load(last, weights_only=True)["global_step"] <= step


@pytest.mark.parametrize("name", ["loss", "Val/loss", ""])
def test_an_objective_of_no_phase_is_refused_before_a_folder_is_made(work: Path, name: str):
    with pytest.raises(ValueError, match=r"begin with val/ or train/"):
        run(work, "demo/syncnet", "no_phase", f"objective={name}")
    assert not (work / "runs" / "no_phase").exists()


def test_objectives_that_are_logged_let_a_run_go_on(work: Path):
    for number, name in enumerate(("val/p_in_above_off", "train/info_nce")):
        made = run(
            work, "demo/syncnet", f"logged_{number}", *ARGUMENTS, f"objective={name}",
            "trainer.max_steps=3", "trainer.log_every_n_steps=1", "trainer.val_check_interval=1",
        )  # fmt: skip
        assert (made / "model").is_dir()


def test_a_run_logs_its_gradients_pace_and_memory(syncnet_run: Path):
    curves = read_curves(syncnet_run / "csv")
    assert all(value > 0 for _, value in curves["train/gradient_norm"])
    assert [step for step, _ in curves["train/clips_per_second"]] == [1]
    # This process has loaded torch: more than a tenth of a GiB, less than the machine.
    assert 0.1 < curves["train/peak_memory_gib"][0][1] < 1000
    assert "lr-AdamW" in curves


def test_the_gradient_norm_is_that_of_all_gradients_as_one_vector(syncnet_run: Path):
    # Clipping to 1 happens afterwards: the logged norm may be larger.
    norms = [value for _, value in read_curves(syncnet_run / "csv")["train/gradient_norm"]]
    assert max(norms) > 1


FULL = """
import resource, signal, sys, torch
from pathlib import Path
from latentsync.training.callbacks.checkpoints import WholeCheckpoints
folder = Path(sys.argv[1])
WholeCheckpoints().save_checkpoint({"step": 1}, folder / "good.ckpt")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    WholeCheckpoints().save_checkpoint({"w": torch.zeros(10**6)}, folder / "bad.ckpt")
except OSError as error:
    print(error)
"""


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="needs a limit of file sizes")
def test_a_checkpoint_that_finds_no_room_is_one_sentence_and_leaves_nothing(tmp_path: Path):
    ended = subprocess.run(
        [sys.executable, "-c", FULL, tmp_path], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith(f"the checkpoint {tmp_path / 'bad.ckpt'} could not be saved (")
    assert "those before it are untouched" in ended.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["good.ckpt"]
    assert torch.load(tmp_path / "good.ckpt", weights_only=True) == {"step": 1}


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty:UserWarning")
def test_a_disk_that_is_full_in_the_middle_of_a_run_costs_what_came_after(work, monkeypatch):
    """Saving step 4 fails in the middle; the checkpoint of step 2 exists, and the run resumes from
    it."""
    save = torch.save
    words = (*ARGUMENTS, "trainer.max_steps=6", "callbacks.checkpoint.every_n_train_steps=2")

    def full(checkpoint: dict, file) -> None:
        if checkpoint["global_step"] == 4:
            file.write(b"the beginning of it")
            raise OSError(errno.ENOSPC, "No space left on device")
        save(checkpoint, file)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match=r"No space left on device.*make room and go on with"):
        run(work, "demo/syncnet", "full_disk", *words)
    folder = work / "runs" / "full_disk" / "checkpoints"
    assert sorted(path.name for path in folder.iterdir()) == ["0000002.ckpt", "last.ckpt"]
    assert torch.load(folder / "last.ckpt", weights_only=True)["global_step"] == 2
    monkeypatch.setattr(torch, "save", save)
    run(work, "demo/syncnet", "full_disk", *words, "ckpt_path=last")
    assert torch.load(folder / "last.ckpt", weights_only=True)["global_step"] == 6


def test_a_checkpoint_is_renamed_from_beside_itself(tmp_path: Path, monkeypatch):
    seen = []
    replace = Path.replace

    def watched(self: Path, target: Path) -> Path:
        seen.append((self.parent, torch.load(self, weights_only=True)))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", watched)
    WholeCheckpoints().save_checkpoint({"step": 2}, tmp_path / "new" / "a.ckpt")
    assert seen == [(tmp_path / "new", {"step": 2})]


def test_a_syncnet_that_stays_at_ln_2_is_told_why(work: Path, monkeypatch):
    stuck = syncnet_task.balanced_bce
    monkeypatch.setattr(
        syncnet_task, "balanced_bce", lambda *values: 0 * stuck(*values) + math.log(2)
    )
    run_dir = run(
        work, "demo/syncnet", "stuck", *ARGUMENTS, "callbacks=syncnet", "trainer.max_steps=4",
        "callbacks.doctor.patience=3", "callbacks.doctor.overfit_steps=1",
    )  # fmt: skip
    advice = (run_dir / "syncnet_doctor.md").read_text()
    assert "at step 3 the BCE of the last 3 steps is 0.693" in advice
    assert "a batch has only 4 windows" in advice
    assert "silent" not in advice


def test_a_syncnet_that_learns_is_left_alone(work: Path, monkeypatch):
    sound = syncnet_task.balanced_bce
    monkeypatch.setattr(syncnet_task, "balanced_bce", lambda *values: 0 * sound(*values) + 0.5)
    run_dir = run(
        work, "demo/syncnet", "unstuck", *ARGUMENTS, "callbacks=syncnet", "trainer.max_steps=4",
        "callbacks.doctor.patience=3", "callbacks.doctor.overfit_steps=1",
    )  # fmt: skip
    assert not (run_dir / "syncnet_doctor.md").exists()


def test_the_doctor_is_for_syncnet_alone(work: Path):
    with pytest.raises(ValueError, match=r"callbacks=syncnet is for SyncNet, not AutoencoderTask"):
        run(
            work, "demo/autoencoder", "wrong_doctor", "callbacks=syncnet",
            "task.vae.block_out_channels=[8,8,8]",
        )  # fmt: skip
