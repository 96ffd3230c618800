"""Two processes with batches of b equal one process with batches of 2 b."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = """
import sys
from functools import partial
import torch
from lightning import Trainer, seed_everything
from torch.optim import SGD
from torch.optim.lr_scheduler import ConstantLR
from latentsync.data.datamodule import ClipDataModule
from latentsync.models.mouth_reader import MouthReader
from latentsync.training import ReaderTask
from latentsync.training.callbacks import GradientMonitor, SeedEveryStep
from latentsync.training.tasks import mouth_reader as reader_task

def main(folder, num_processes, out):
    # Each process would change its faces in its own way; nothing else is drawn.
    reader_task.augment = lambda faces, generator: faces
    seed_everything(0, verbose=False)
    items = {"num_frames": 2, "resolution": 64, "with_truth": True, "with_reference": False,
             "with_audio": False, "with_mel": False, "in_memory": True, "samples_per_clip": 8}
    data = ClipDataModule(folder, folder, train=items, val=items, batch_size=4 // num_processes)
    reader = MouthReader(resolution=64, block_out_channels=(8, 8), norm_num_groups=2, dropout=0.0)
    task = ReaderTask(
        reader, optimizer=partial(SGD, lr=0.05), schedule=partial(ConstantLR, factor=1.0)
    )
    trainer = Trainer(
        accelerator="cpu", devices=num_processes, max_steps=6, logger=False,
        strategy="ddp" if num_processes > 1 else "auto", enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=False,
        limit_val_batches=0, gradient_clip_val=1.0, callbacks=[GradientMonitor(), SeedEveryStep(0)],
    )
    trainer.fit(task, datamodule=data)
    if trainer.is_global_zero:
        loss = trainer.callback_metrics["train/gradient_norm"]
        torch.save({"weights": reader.state_dict(), "norm": loss}, out)

if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
"""


@pytest.mark.slow
def test_two_processes_learn_what_one_does(work: Path, tmp_path: Path):
    script = tmp_path / "train_reader.py"
    script.write_text(SCRIPT)
    results = []
    for num_processes in (1, 2):
        out = tmp_path / f"{num_processes}.pt"
        words = [sys.executable, script, work / "set", str(num_processes), out]
        subprocess.run(words, check=True, timeout=1200)
        results.append(torch.load(out, weights_only=True))
    one, two = results
    torch.testing.assert_close(two["norm"], one["norm"], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(two["weights"], one["weights"], atol=1e-5, rtol=0)
