"""Metrics of whole held-out clips during training, for every logger."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from jaxtyping import Float
from lightning import Trainer
from torch import Tensor
from torchmetrics import Metric

from latentsync.batch import Batch
from latentsync.data.clips import Clip
from latentsync.data.stores import map_tensors, shrink
from latentsync.diffusion.sampler import Sampler
from latentsync.evaluation.aggregate import Row, check_metrics
from latentsync.evaluation.evaluator import Evaluator, Faces
from latentsync.evaluation.synthetic_truth import synthetic_mouth
from latentsync.evaluation.validity import leave_out_invalid_sync
from latentsync.media.video import open_clip
from latentsync.metrics.base import Sample
from latentsync.metrics.sync import NOT_VALID, SyncFigures
from latentsync.models import LipSyncModel, MouthReader, StableSyncNet, load_network
from latentsync.pipeline import generate_clip
from latentsync.training.callbacks.at_validation import AtValidation, validation_set
from latentsync.training.tasks.diffusion import DiffusionTask

OVERLAP = 4
ROWS = ("own", "other")


class EvaluateClips(AtValidation):
    """Logs `val/own/...` and `val/other/...`: metrics of the first held-out clips of different
    recordings, with their own voice and with that of the next one.

    Runs at the first validation at least `every_n_steps` after the last time, with the averaged
    weights. Nothing is encoded. Metrics whose inputs a clip lacks, such as drawn truth, are not
    logged, and neither are sync figures of a SyncNet that fails on the clips' own faces and sound.
    `reader` and `syncnet` are folders of networks that measure.
    """

    def __init__(
        self,
        *,
        every_n_steps: int,
        num_clips: int,
        max_frames: int,
        sampler: Sampler,
        metrics: Mapping[str, Metric],
        reader: Path | str | None = None,
        syncnet: Path | str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(every_n_steps)
        check_metrics(metrics)
        self.num_clips, self.max_frames = num_clips, max_frames
        self.sampler, self.metrics = sampler, dict(metrics)
        self.reader = None if reader is None else load_network(MouthReader, reader)
        self.syncnet = None if syncnet is None else load_network(StableSyncNet, syncnet)
        self.seed = seed

    def observe(self, trainer: Trainer, task: DiffusionTask, batch: Batch) -> None:
        rows = self.measure(task.model, held_out(validation_set(trainer).clips, self.num_clips))
        many = trainer.world_size > 1
        for name, row in rows.items():
            for key, value in row.summary().items():
                if value != NOT_VALID:
                    task.log(f"val/{name}/{key}", float(value), batch_size=1, sync_dist=many)

    def measure(self, model: LipSyncModel, clips: Sequence[Clip]) -> dict[str, Row]:
        """The rows of all clips with their own voice and with the next one's."""
        evaluator = self._evaluator(model)
        sampler = self.sampler.suited_to(model.process)
        rows = {name: Row(self.metrics) for name in ROWS}
        truth = Row({n: each for n, each in self.metrics.items() if isinstance(each, SyncFigures)})
        for index, clip in enumerate(clips):
            faces = self._faces(clip, model.format.resolution)
            truth.add(self._hear(evaluator, faces, clip), clip=clip.name, speaker=clip.source)
            for name, voice in (("own", clip), ("other", clips[(index + 1) % len(clips)])):
                if name == "other" and voice.source == clip.source:
                    continue
                num_frames = min(len(faces), voice.num_frames, self.max_frames)
                spoken = generate_clip(
                    *(faces[:num_frames], states_of(voice)),
                    model=model, sampler=sampler, seed=self.seed + index, overlap=OVERLAP,
                )  # fmt: skip
                shown = np.rint(spoken).clip(0, 255).astype(np.uint8)
                sample = self._look(evaluator, shown, clip, voice)
                sample |= evaluator.compare(shown, faces, same_speech=name == "own")
                rows[name].add(sample, clip=clip.name, speaker=clip.source)
        leave_out_invalid_sync(rows, truth, trained_on=evaluator.trained_on)
        return rows

    def _evaluator(self, model: LipSyncModel) -> Evaluator:
        for network in (self.reader, self.syncnet):
            if network is not None:
                network.to(model.device)
        return Evaluator(model.format, self.reader, self.syncnet, detector=None)

    def _faces(self, clip: Clip, resolution: int) -> Faces:
        clip.bring()
        frames = open_clip(clip.path).frames(np.arange(min(clip.num_frames, self.max_frames)))
        return shrink(frames, resolution)

    def _hear(self, evaluator: Evaluator, faces: Faces, voice: Clip) -> Sample:
        if not evaluator.can_hear(len(faces)):
            return {}
        mel = map_tensors(voice.features_path)["mel"].float()
        return {"sync_cosines": evaluator.sync_cosines(faces, mel)}

    def _look(self, evaluator: Evaluator, faces: Faces, clip: Clip, voice: Clip) -> Sample:
        sample = self._hear(evaluator, faces, voice)
        wanted, filmed = (mouth_of(each, len(faces)) for each in (voice, clip))
        if evaluator.reader is not None and wanted is not None and filmed is not None:
            sample |= {"reading": evaluator.read(faces), "driving": wanted}
            if voice is not clip:
                sample["own"] = filmed
        return sample


def held_out(clips: Sequence[Clip], num_clips: int) -> list[Clip]:
    """The first clips of different recordings."""
    return list(islice(_one_each(clips), num_clips))


def _one_each(clips: Sequence[Clip]) -> Iterator[Clip]:
    met: set[str] = set()
    for clip in clips:
        if clip.source not in met:
            met.add(clip.source)
            yield clip


def states_of(clip: Clip) -> Float[Tensor, "n l d"]:
    """The audio states of a clip."""
    clip.bring()
    return map_tensors(clip.states_path or clip.features_path)["audio"].float()


def mouth_of(clip: Clip, num_frames: int) -> Float[Tensor, "f 4"] | None:
    """What a drawn clip's voice wants of the mouth in its first frames; None if not drawn."""
    truth = synthetic_mouth(Path(clip.source))
    found = None if truth is None else truth[clip.start_frame :][:num_frames]
    return found if found is not None and len(found) == num_frames else None
