"""A resumed run equals an uninterrupted one."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from latentsync.models import UNet, load_network
from smoke.tiny import TINY_UNET, overrides, run

# Eight items in batches of two: an epoch has four steps, so ten steps end in the third.
NUM_STEPS = 10
EXACT = (
    "state_dict",
    "current_model_state",
    "averaging_state",
    "optimizer_states",
    "lr_schedulers",
)
FOLDER_IN_USE = "ignore:Checkpoint directory .* exists and is not empty:UserWarning"
pytestmark = pytest.mark.filterwarnings("ignore:The dirpath has changed from:UserWarning")
SYNCNET = ("data.train.windows_per_clip=2", "task.bce_from_step=4")


def steps(*, every: int) -> tuple[str, ...]:
    return (
        f"trainer.max_steps={NUM_STEPS}",
        "trainer.val_check_interval=3",
        "data.train.samples_per_clip=4",
        f"callbacks.checkpoint.every_n_train_steps={every}",
        "callbacks.checkpoint.save_top_k=-1",
    )


def tensors(value: object, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """Every tensor and number of a checkpoint, with its path."""
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, dict):
        for key, child in value.items():
            yield from tensors(child, f"{name}.{key}")
    elif isinstance(value, list | tuple):
        for index, child in enumerate(value):
            yield from tensors(child, f"{name}.{index}")
    elif isinstance(value, int | float):
        yield name, torch.tensor(value, dtype=torch.float64)


def assert_same(run_dir: Path, other_dir: Path, parts: tuple[str, ...] = EXACT) -> None:
    one, other = (
        torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
        for folder in (run_dir, other_dir)
    )
    assert one["global_step"] == other["global_step"] == NUM_STEPS
    for part in parts:
        values, others = (dict(tensors(each.get(part))) for each in (one, other))
        assert values.keys() == others.keys()
        different = [name for name in values if not torch.equal(values[name], others[name])]
        assert different == [], part


def assert_resumes(
    work: Path,
    experiment: str,
    name: str,
    arguments: tuple,
    *,
    at: list[int],
    every: int = 5,
    parts: tuple[str, ...] = EXACT,
) -> None:
    """Resume from checkpoints of the unbroken run, as after a kill: nothing else is left of it."""
    whole = run(work, experiment, name, *arguments, *steps(every=every))
    for step in at:
        checkpoint = whole / "checkpoints" / f"{step:07d}.ckpt"
        torch.manual_seed(step)
        again = run(
            work, experiment, f"{name}_from_{step}", *arguments, *steps(every=every),
            f"ckpt_path='{checkpoint}'",
        )  # fmt: skip
        assert_same(whole, again, parts)


# At the end of an epoch, where the loss changes too, and in the middle of one.
def test_syncnet(work: Path):
    assert_resumes(work, "demo/syncnet", "exact_syncnet", SYNCNET, at=[4, 6], every=2)


def test_stage1_with_averaged_weights(work: Path):
    arguments = (
        *TINY_UNET, f"vae='{work / 'vae'}'",
        "callbacks.ema.update_starting_at_step=1",
    )  # fmt: skip
    assert_resumes(work, "demo/unet_stage1", "exact_stage1", arguments, at=[5])


def test_stage2_with_averaged_weights(work: Path, stage1_run: Path, syncnet_run: Path):
    arguments = (
        f"stage1='{stage1_run / 'model'}'", f"syncnet='{syncnet_run / 'model'}'",
        "callbacks.ema.update_starting_at_step=1",
    )  # fmt: skip
    assert_resumes(work, "demo/unet_stage2", "exact_stage2", arguments, at=[5])


def test_an_autoencoder_that_draws_from_the_global_generator(work: Path):
    arguments = ("task.vae.block_out_channels=[8,8,8]",)
    assert_resumes(work, "demo/autoencoder", "exact_vae", arguments, at=[5])


@pytest.mark.filterwarnings(FOLDER_IN_USE)
def test_a_run_with_no_step_left_ends_with_the_same_model(work: Path):
    """Killed after its last step: it still exports the average."""
    arguments = (
        *TINY_UNET, f"vae='{work / 'vae'}'", "trainer.max_steps=3",
        "callbacks.ema.update_starting_at_step=0", "callbacks.ema.decay=0.5",
    )  # fmt: skip
    run_dir = run(work, "demo/unet_stage1", "no_step_left", *arguments)
    checkpoint = torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 3
    exported = load_network(UNet, run_dir / "model" / "unet").state_dict()
    for name, value in exported.items():
        assert torch.equal(value, checkpoint["state_dict"][f"unet.{name}"])
    trained = checkpoint["current_model_state"]
    assert any(not torch.equal(value, trained[f"unet.{name}"]) for name, value in exported.items())
    run(work, "demo/unet_stage1", "no_step_left", *arguments, "ckpt_path=last")
    again = load_network(UNet, run_dir / "model" / "unet").state_dict()
    assert all(torch.equal(value, exported[name]) for name, value in again.items())


@pytest.mark.filterwarnings(FOLDER_IN_USE)
def test_the_last_step_is_kept_whatever_the_interval_and_can_be_built_upon(work: Path):
    """7 steps with a checkpoint every 5, then 10: the same as 10 from the start."""
    more = ("task.schedule.num_training_steps=10",)
    whole = run(work, "demo/syncnet", "in_one", *SYNCNET, *steps(every=5), *more)
    arguments = (*SYNCNET, *steps(every=5), *more)
    parted = run(work, "demo/syncnet", "in_two", *arguments, "trainer.max_steps=7")
    last = torch.load(parted / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == 7
    names = sorted(path.name for path in (parted / "checkpoints").iterdir())
    assert names == ["0000005.ckpt", "0000007.ckpt", "last.ckpt"]
    # One file with two names, not two of 29 GB at full size.
    assert (parted / "checkpoints" / "last.ckpt").samefile(parted / "checkpoints" / "0000007.ckpt")
    run(work, "demo/syncnet", "in_two", *arguments, "ckpt_path=last")
    assert_same(whole, parted)


@pytest.mark.filterwarnings(FOLDER_IN_USE)
@pytest.mark.parametrize("put", [shutil.move, shutil.copytree], ids=["moved", "copied"])
def test_a_run_folder_is_one_wherever_it_lies(work: Path, put, request):
    name = request.node.callspec.id
    arguments = (*SYNCNET, "callbacks.checkpoint.every_n_train_steps=2")
    first = run(work, "demo/syncnet", f"{name}_from", *arguments, "trainer.max_steps=2")
    before = {path: path.read_bytes() for path in first.rglob("*.ckpt")}
    put(first, work / "runs" / name)
    run(work, "demo/syncnet", name, *arguments, "trainer.max_steps=4", "ckpt_path=last")
    checkpoints = work / "runs" / name / "checkpoints"
    assert sorted(path.name for path in checkpoints.iterdir()) == ["0000004.ckpt", "last.ckpt"]
    assert torch.load(checkpoints / "last.ckpt", weights_only=True)["global_step"] == 4
    if put is shutil.copytree:
        assert {path: path.read_bytes() for path in first.rglob("*.ckpt")} == before


@pytest.mark.slow
@pytest.mark.filterwarnings(FOLDER_IN_USE)
def test_a_run_that_was_killed(work: Path):
    whole = run(work, "demo/syncnet", "unkilled", *SYNCNET, *steps(every=2))
    run_dir = work / "runs" / "killed"
    script = Path(__file__).parents[2] / "train.py"
    words = overrides(work, "demo/syncnet", run_dir, *SYNCNET, *steps(every=2))
    training = subprocess.Popen(
        [sys.executable, script, *words], cwd=work, env={**os.environ, "HYDRA_FULL_ERROR": "1"}
    )
    checkpoint = run_dir / "checkpoints" / "0000004.ckpt"
    until = time.monotonic() + 600
    while not checkpoint.is_file() and training.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    training.send_signal(signal.SIGKILL)
    training.wait()
    assert checkpoint.is_file()
    assert list((run_dir / "checkpoints").glob("*.ckpt")) != []
    run(work, "demo/syncnet", "killed", *SYNCNET, *steps(every=2), "ckpt_path=last")
    assert_same(whole, run_dir)
