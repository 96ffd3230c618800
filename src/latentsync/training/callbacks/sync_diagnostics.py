"""Diagnose a SyncNet whose loss is stuck at ln 2, by checking the few known causes."""

import copy
import logging
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from latentsync.batch import Batch
from latentsync.data import ClipDataset
from latentsync.data.diagnostics import Health, measure_health
from latentsync.files import publish
from latentsync.losses import InfoNCE
from latentsync.models import StableSyncNet
from latentsync.training.tasks.syncnet import (
    SyncNetTask,
    balanced_bce,
    embed_in_parts,
    judged_frames,
    near_in_time,
)

# Around ln 2 = 0.693, the loss of always predicting 1/2.
PLATEAU = (0.68, 0.70)
FEW_WINDOWS = 16
MANY_SILENT = 0.1
NEAR_OFFSET = 2
# How much better motion must correlate with its own sound than with other sounds, unless it does
# so best at an offset near 0. 41 public clips of 2 to 10 s, of 21 recordings, had 0.9, and halves
# of them by recording 0.6 to 1.0, but all at an offset of 1 (of 25); with sounds exchanged 40 of 40
# drawings were below it, none near 0. With 13 longer clips of three more recordings: 2.6, and 38 of
# 40. Eight synthetic speakers are above it.
TOGETHER = 1.2
MANY_CLIPS = 32
LEARNT = 0.5
# Mean cosine between different pictures (or sounds) above which the network has collapsed.
COLLAPSED = 0.98

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Overfit:
    """Loss on one batch before and after training on it alone."""

    num_steps: int
    before: float
    after: float


@dataclass(frozen=True, slots=True)
class Likeness:
    """Mean cosine between embeddings of different windows: 1 if all are the same vector."""

    pictures: float
    sounds: float


class SyncDiagnostics(Callback):
    """Reports likely causes when the mean BCE of `patience` steps lies in [0.68, 0.70].

    The findings are logged and written to `path`, once per plateau. First, a copy of the network is
    trained on the current batch for `overfit_steps` (0: skipped).
    """

    def __init__(
        self,
        path: Path | str,
        *,
        patience: int = 1000,
        num_clips: int = 64,
        overfit_steps: int = 100,
        overfit_lr: float = 1e-3,
    ) -> None:
        self.path = Path(path)
        self.num_clips = num_clips
        self.overfit_steps = overfit_steps
        self.overfit_lr = overfit_lr
        self._reported = False
        self._losses: deque[float] = deque(maxlen=patience)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        if not isinstance(pl_module, SyncNetTask):
            raise ValueError(f"callbacks=syncnet is for SyncNet, not {type(pl_module).__name__}")
        self._losses.append(float(trainer.callback_metrics["train/bce"]))
        if len(self._losses) < (self._losses.maxlen or 0):
            return
        mean = sum(self._losses) / len(self._losses)
        if not PLATEAU[0] <= mean <= PLATEAU[1]:
            self._reported = False
        elif not self._reported and trainer.is_global_zero:
            self._reported = True
            self._examine(trainer, pl_module, batch, mean)

    def _examine(self, trainer: Trainer, task: SyncNetTask, batch: Batch, mean: float) -> None:
        dataset = getattr(trainer.datamodule, "train_set", None)
        assert isinstance(dataset, ClipDataset)
        lines = [
            f"at step {trainer.global_step} the BCE of the last {len(self._losses)} steps is "
            f"{mean:.3f}, about ln 2: SyncNet cannot tell in from off",
            *self.examine(task, dataset, batch),
        ]
        log.warning("%s", "\n  - ".join(lines))
        self.write(lines)

    def examine(self, task: SyncNetTask, dataset: ClipDataset, batch: Batch) -> list[str]:
        """What prevents learning, one line each; reads clips and trains a copy of the network."""
        overfit = None
        if self.overfit_steps:
            overfit = overfit_one_batch(
                task.syncnet,
                batch,
                num_steps=self.overfit_steps,
                lr=self.overfit_lr,
                min_offset_frames=task.pairs.min_offset_frames,
                windows_at_once=task.windows_at_once,
            )
            log.info(
                "one batch of %d windows alone: BCE %.3f -> %.3f in %d steps",
                len(batch["mel"]), overfit.before, overfit.after, overfit.num_steps,
            )  # fmt: skip
        with torch.no_grad():
            likeness = measure_likeness(*task.embed(batch))
        return find_causes(
            measure_health(dataset.clips, num_clips=self.num_clips),
            batch,
            overfit,
            min_offset_frames=task.pairs.min_offset_frames,
            likeness=likeness,
        )

    def write(self, lines: list[str]) -> None:
        """Write the first line and a list of the others as Markdown."""
        with publish(self.path) as partial:
            partial.write_text("\n- ".join(lines) + "\n", encoding="utf-8")


def overfit_one_batch(
    syncnet: StableSyncNet,
    batch: Batch,
    *,
    num_steps: int,
    lr: float,
    min_offset_frames: int = 4,
    windows_at_once: int | None = None,
) -> Overfit:
    """Train a copy on one batch with InfoNCE and BCE together; the network itself is unchanged."""
    student = copy.deepcopy(syncnet).train()
    optimizer = torch.optim.AdamW(student.parameters(), lr=lr)
    contrast = InfoNCE().to(batch["mel"].device)
    near = near_in_time(batch, min_offset_frames)
    frames = judged_frames(student, batch)
    losses = []
    with torch.enable_grad(), torch.random.fork_rng():
        for step in range(num_steps + 1):
            vision, audio = embed_in_parts(student, frames, batch["mel"], windows_at_once)
            bce = balanced_bce(vision, audio, near)
            losses.append(bce.item())
            if step < num_steps:
                optimizer.zero_grad()
                (contrast(vision, audio, near) + bce).backward()
                optimizer.step()
    return Overfit(num_steps=num_steps, before=losses[0], after=losses[-1])


def measure_likeness(vision: Float[Tensor, "b d"], audio: Float[Tensor, "b d"]) -> Likeness:
    """How similar the embeddings of different windows of a batch are."""

    def mean(rows: Float[Tensor, "b d"]) -> float:
        cosines = rows.float() @ rows.float().T
        others = ~torch.eye(len(rows), dtype=torch.bool, device=rows.device)
        return cosines[others].mean().item() if len(rows) > 1 else 0.0

    return Likeness(pictures=mean(vision), sounds=mean(audio))


def find_causes(
    health: Health,
    batch: Batch,
    overfit: Overfit | None,
    *,
    min_offset_frames: int = 4,
    likeness: Likeness | None = None,
) -> list[str]:
    """One line per likely cause, with its remedy; if there is none, one line that says so."""
    causes = [*_causes_in_data(health), *_causes_in_batch(batch, min_offset_frames)]
    causes += [] if likeness is None else _causes_in_embeddings(likeness)
    if overfit is not None and overfit.after > LEARNT:
        causes.append(
            f"one batch alone is not learnt either: BCE {overfit.before:.3f} -> "
            f"{overfit.after:.3f} in {overfit.num_steps} steps. A network that has collapsed does "
            "not come back: start anew, with a lower task.optimizer.lr or more warm-up"
        )
    if causes:
        return causes
    learnt = "" if overfit is None else f", and one batch is learnt (BCE {overfit.after:.3f})"
    return [
        f"{health.num_clips} clips look sound{learnt}: train longer by contrast before BCE "
        "(a larger task.bce_from_step), on more clips"
    ]


def _causes_in_data(health: Health) -> list[str]:
    causes = []
    if len(health.silent) > MANY_SILENT * health.num_clips:
        causes.append(
            f"{len(health.silent)} of {health.num_clips} clips are silent (first: "
            f"{health.silent[0]}): nothing in them says in or off. Drop them, or prepare again "
            "from videos with their sound"
        )
    for what, groups in (("sound", health.same_sound), ("picture", health.same_pictures)):
        if groups:
            causes.append(
                f"{sum(map(len, groups))} of {health.num_clips} clips share their {what} with "
                f"another (first: {', '.join(groups[0][:3])}): the right answer counts as wrong. "
                "Keep one of each"
            )
    return causes + _causes_in_offsets(health)


def _causes_in_offsets(health: Health) -> list[str]:
    total, num_clips = health.num_with_offset, health.num_clips
    histogram = ", ".join(f"{offset:+d}: {count}" for offset, count in health.offsets.items())
    near = max(
        (
            sum(n for other, n in health.offsets.items() if abs(other - offset) <= NEAR_OFFSET)
            for offset in health.offsets
        ),
        default=0,
    )
    if total >= num_clips / 4 and total > 2 and near < total / 2:
        return [
            f"sound and picture are apart by another time in every clip (frames sound is late: "
            f"{histogram}): bring each into sync before preparing, or drop it"
        ]
    if health.together is None:
        return []
    common = health.common_offset
    if health.together < TOGETHER:
        if abs(common) <= NEAR_OFFSET:
            return []
        # With fewer recorded clips the correlation is not distinguishable from chance.
        if num_clips - len(health.silent) < MANY_CLIPS:
            return []
        return [
            f"in {num_clips} clips the mouth goes with their own sound no better than with that of "
            f"other clips, at best with it {late_or_early(common)}: look at them; is it the "
            "speaker whose face is cut out? Is it dubbed, or out of sync by that much?"
        ]
    if abs(common) > NEAR_OFFSET:
        return [
            f"in most clips the sound is {late_or_early(common)} "
            f"(frames sound is late: {histogram}): shift it by that much and prepare again"
        ]
    return []


def late_or_early(frames: int) -> str:
    return f"{abs(frames)} frames {'late' if frames > 0 else 'early'}"


def _causes_in_batch(batch: Batch, min_offset_frames: int) -> list[str]:
    causes = []
    clips = batch["clip_index"]
    num_windows, num_clips = len(clips), len(clips.unique())
    if num_windows < FEW_WINDOWS:
        causes.append(
            f"a batch has only {num_windows} windows: with few wrong answers at a time the "
            f"gradient is noise. Take {FEW_WINDOWS} or more (data.batch_size=, "
            "data.train.windows_per_clip=)"
        )
    same = clips[:, None] == clips[None, :]
    if not bool((same & ~near_in_time(batch, min_offset_frames)).any()):
        causes.append(
            f"the {num_windows} windows of a batch are of {num_clips} clips, none twice at two "
            "times: voices can be told apart without looking at mouths. Set "
            "data.train.windows_per_clip=4"
        )
    return causes


def _causes_in_embeddings(likeness: Likeness) -> list[str]:
    same = {
        name: value
        for name, value in (("picture", likeness.pictures), ("sound", likeness.sounds))
        if value > COLLAPSED
    }
    if not same:
        return []
    what = " and ".join(f"every {name} (mean cosine {value:.3f})" for name, value in same.items())
    return [
        f"the network gives {what} one vector: BCE alone rests there, since a cosine of 1/2 for "
        "all costs ln 2. Train by contrast first: task.bce_from_step= half of trainer.max_steps"
    ]
