"""Two processes, with the whole UNet or half of it in each, train the same as one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from latentsync.models import UNet, load_network
from smoke.test_resume import tensors

TESTS = Path(__file__).parents[1]
# Each process samples its own noise; here it is derived from the clip, so that it does not depend
# on how clips are distributed.
SCRIPT = """
import sys
from pathlib import Path
import torch
from latentsync.diffusion import DDPM
from latentsync.models import lipsync
from smoke.tiny import TINY_UNET, run

def noise_of(latents, alpha=1.0, generator=None):
    return torch.sin(latents * 1e4) * 2**0.5

def main(work, name, batch_size, *words):
    lipsync.mixed_noise = noise_of
    DDPM.sample_timesteps = lambda self, count, generator: torch.full((count,), 300)
    work = Path(work)
    run(
        work, "demo/unet_stage1", name, *TINY_UNET, f"vae='{work / 'vae'}'",
        f"data.batch_size={batch_size}", "data.train.samples_per_clip=4",
        "task.audio_dropout=0", "task.optimizer._target_=torch.optim.SGD", "task.optimizer.lr=0.1",
        "+task.optimizer.momentum=0.9",
        "task.schedule.num_training_steps=6", "task.schedule.num_warmup_steps=0",
        "trainer.val_check_interval=3", "callbacks.checkpoint.every_n_train_steps=3",
        "callbacks.checkpoint.save_top_k=-1", *words,
    )

if __name__ == "__main__":
    main(*sys.argv[1:])
"""


def train(work: Path, name: str, batch_size: int, *words: str) -> Path:
    script = work / "train_diffusion.py"
    script.write_text(SCRIPT)
    given = [str(work), name, str(batch_size), "trainer.max_steps=6", *words]
    subprocess.run(
        [sys.executable, script, *given], check=True, timeout=600,
        env={**os.environ, "PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    return work / "runs" / name


def two(kind: str) -> list[str]:
    return [f"trainer={kind}", "trainer.devices=2"]


def state(run_dir: Path, part: str = "state_dict") -> dict[str, torch.Tensor]:
    path = run_dir / "checkpoints" / "last.ckpt"
    return dict(tensors(torch.load(path, weights_only=True)[part]))


@pytest.fixture(scope="module")
def alone(work: Path) -> Path:
    return train(work, "one_process", 2, "~callbacks.ema")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_two_processes_of_one_clip_are_one_of_two(work: Path, alone: Path, kind: str):
    run_dir = train(work, f"two_{kind}", 1, *two(kind), "~callbacks.ema")
    ours, theirs = state(run_dir), state(alone)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    before = torch.load(alone / "checkpoints" / "0000003.ckpt", weights_only=True)["state_dict"]
    assert any(abs(before[name[1:]] - value).max() > 1e-4 for name, value in theirs.items())
    exported = load_network(UNet, run_dir / "model" / "unet").state_dict()
    for name, value in exported.items():
        assert torch.equal(value, ours[f".unet.{name}"])


@pytest.mark.slow
def test_two_processes_go_on_where_they_were(work: Path):
    words = [*two("ddp"), "callbacks.ema.update_starting_at_step=0", "task.audio_dropout=0.5"]
    whole = train(work, "two_whole", 1, *words)
    checkpoint = whole / "checkpoints" / "0000003.ckpt"
    again = train(work, "two_again", 1, *words, f"ckpt_path='{checkpoint}'")
    for part in ("state_dict", "current_model_state", "optimizer_states", "lr_schedulers"):
        ours, theirs = state(again, part), state(whole, part)
        assert ours.keys() == theirs.keys()
        assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == [], part


@pytest.mark.slow
def test_what_one_process_began_two_with_half_the_weights_each_finish(work: Path, alone: Path):
    checkpoint = alone / "checkpoints" / "0000003.ckpt"
    words = [*two("fsdp"), "~callbacks.ema", f"ckpt_path='{checkpoint}'"]
    run_dir = train(work, "taken_over", 1, *words)
    torch.testing.assert_close(state(run_dir), state(alone), atol=1e-5, rtol=0)
