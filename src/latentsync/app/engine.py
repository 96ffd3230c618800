"""One loaded model that runs one job at a time, each in its own folder."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from threading import Lock
from uuid import uuid4

from latentsync.app.presets import Preset
from latentsync.faces.detectors.base import FaceDetector
from latentsync.faces.occlusion import OcclusionMasker
from latentsync.models.lipsync import LipSyncModel
from latentsync.pipeline import Cache, lipsync
from latentsync.pipeline.reporting.report import Report
from latentsync.runtime import Progress, forget_peak_memory


@dataclass(frozen=True, slots=True)
class Engine:
    """What stays loaded between jobs, and where job folders are created; `presets` by name, in the
    order of the page; `masker` segments what hides mouths, except in the preset `official`."""

    model: LipSyncModel
    detector: FaceDetector
    jobs_dir: Path
    presets: Mapping[str, Preset]
    cache: Cache | None = None
    masker: OcclusionMasker | None = None
    turn: Lock = field(default_factory=Lock)

    def speak(
        self,
        video: str | None,
        audio: str | None,
        preset: Preset,
        *,
        seed: int,
        progress: Progress = True,
    ) -> tuple[Path, Report]:
        """Path of the finished video, and its report; ValueError or OSError if the input is
        unusable.

        The job's own folder is deleted if it fails.
        """
        if not video or not audio:
            raise ValueError("a video and a voice are needed")
        with self.turn, self._folder() as folder:
            out = folder / "out.mp4"
            forget_peak_memory()
            report = lipsync(
                Path(video),
                Path(audio),
                out,
                model=self.model,
                detector=preset.detector or self.detector,
                sampler=preset.sampler,
                seed=seed,
                encoding=preset.encoding,
                overlap=preset.overlap,
                measure=preset.measure,
                profile=preset.profile,
                cache=self.cache,
                masker=self.masker,
                preset=preset.name,
                progress=progress,
            )
            return out, report

    @contextmanager
    def _folder(self) -> Iterator[Path]:
        folder = self.jobs_dir / f"{datetime.now():%Y-%m-%d_%H-%M-%S}-{uuid4().hex[:8]}"
        folder.mkdir(parents=True)
        try:
            yield folder
        except BaseException:
            shutil.rmtree(folder)
            raise
