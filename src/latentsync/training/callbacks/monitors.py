"""Monitors for every run: gradients, pace, memory; they stop a run that diverges."""

import math
import time
from dataclasses import dataclass

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from latentsync.batch import Batch
from latentsync.data import ClipDataset
from latentsync.runtime import peak_memory_mib


class GradientMonitor(Callback):
    """Logs the gradient norm before clipping; stops a run before NaNs reach the weights.

    All processes stop together, even if each holds only a shard of the weights. With float16 the
    loss scaler skips steps whose gradients overflow and halves its scale, several times at the
    start of any run: up to `max_left_out` such steps in a row are allowed; beyond that, halving the
    scale further would not help.
    """

    def __init__(self, *, max_left_out: int = 30) -> None:  # the scale has shrunk by 2^30
        self.max_left_out = max_left_out
        self._num_left_out = 0
        self._batches: list[tuple[Batch, Tensor]] = []
        self._batch: Batch | None = None

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        self._batch = batch

    def on_before_backward(
        self, trainer: Trainer, pl_module: LightningModule, loss: Tensor
    ) -> None:
        assert self._batch is not None
        self._batches.append((self._batch, loss.detach()))

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """ValueError naming the clips if the loss or a gradient is not finite."""
        batches, self._batches = self._batches, []
        gradients = [value.grad for value in pl_module.parameters() if value.grad is not None]
        norm = get_total_norm(gradients)
        if isinstance(norm, DTensor):
            norm = norm.full_tensor()  # the norm over all shards, not this process's
        pl_module.log("train/gradient_norm", norm)
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        if scaler is not None:
            pl_module.log("train/loss_scale", scaler.get_scale())
        everywhere = trainer.strategy.reduce_boolean_decision
        if everywhere(math.isfinite(norm.item()), all=True):
            self._num_left_out = 0
            return
        lost = [batch for batch, loss in batches if not bool(torch.isfinite(loss))]
        self._num_left_out += 1
        overflown = scaler is not None and everywhere(not lost, all=True)
        if overflown and self._num_left_out <= self.max_left_out:
            return  # the scaler skips this step
        seen = [batch for batch, _ in batches]
        raise ValueError(_what_happened(trainer, lost, seen, self._num_left_out))


def _what_happened(
    trainer: Trainer, lost: list[Batch], seen: list[Batch], num_in_a_row: int
) -> str:
    culprits = lost or seen
    what = "the loss is not finite" if lost else "a gradient is not finite though the loss is"
    if num_in_a_row > 1:
        what += f", for {num_in_a_row} steps in a row"
    names = "; ".join(describe_clips(trainer, batch) for batch in culprits)
    kept = getattr(trainer.checkpoint_callback, "last_model_path", "")
    return (
        f"stopped at step {trainer.global_step} before the weights were changed: {what}, batch: "
        f"{names}. The last good checkpoint is {kept or 'not written yet'}. Look at these clips; "
        "if they are sound, lower task.optimizer.lr or train with trainer.precision=32-true"
    )


def describe_clips(trainer: Trainer, batch: Batch) -> str:
    """Name and first frame of every window of a batch."""
    dataset = getattr(trainer.datamodule, "train_set", None)
    if "clip_index" not in batch or not isinstance(dataset, ClipDataset):
        return "unnamed"
    places = zip(batch["clip_index"].tolist(), batch["start"].tolist(), strict=True)
    return ", ".join(f"{dataset.clips[clip].name} from frame {start}" for clip, start in places)


@dataclass(slots=True)
class _Since:
    """Start of the current measurement of clips per second."""

    moment: float
    num_clips: int = 0


class PaceMonitor(Callback):
    """Logs clips per second over all processes, peak memory in GiB, and the number of skipped
    clips.

    Not Lightning's ThroughputMonitor: that waits for the GPU after each batch, logs nothing until a
    window of batches is full, and knows neither memory nor skipped clips.
    """

    def __init__(self) -> None:
        self._since: _Since | None = None
        self._num_skipped = 0

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        first = next(value for value in batch.values() if isinstance(value, Tensor))
        num_clips = len(first) * trainer.world_size
        if "skipped" in batch:
            self._num_skipped += int(batch["skipped"].sum())
        if self._since is None:
            self._since = _Since(time.perf_counter())  # the first step is warm-up
            return
        self._since.num_clips += num_clips
        if trainer.global_step % trainer.log_every_n_steps:
            return
        now = time.perf_counter()
        pace = self._since.num_clips / (now - self._since.moment)
        self._since = _Since(now)
        values = {
            "train/clips_per_second": pace,
            "train/peak_memory_gib": peak_memory_gib(pl_module.device),
        }
        if self._num_skipped:
            values["train/skipped_clips"] = float(self._num_skipped)
        pl_module.log_dict(values)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._since = None  # do not count validation time


def peak_memory_gib(device: torch.device) -> float:
    """Peak memory so far: of the device on CUDA, otherwise of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return peak_memory_mib() / 1024
