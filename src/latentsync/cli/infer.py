"""`infer.py`: a video and a voice => an mp4 and its report; without either, a synthetic demo."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from hydra import compose
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from latentsync.cli.choices import (
    assigned,
    build_detector,
    choices,
    choose_device,
    choose_dtype,
    chosen_speakers,
    load_masker,
    load_scorer,
    preset_of,
)
from latentsync.cli.names import as_typed
from latentsync.data.synthetic import render_clip
from latentsync.faces import FaceDetector
from latentsync.files import printable
from latentsync.models.lipsync import LipSyncModel
from latentsync.models.precision import make_ready
from latentsync.pipeline import (
    Cache,
    Plan,
    Session,
    Source,
    check_paths,
    lipsync,
    page_path,
    report_path,
)
from latentsync.pipeline.batch import Row, run_jobs, status_path
from latentsync.pipeline.job import prepare_job, with_estimate
from latentsync.pipeline.lipsync import Options, request_of, warn_of
from latentsync.pipeline.reporting.build import clipped_in, damage_of
from latentsync.pipeline.reporting.plan_page import (
    check_plan_page,
    plan_page_path,
    write_plan_page,
)
from latentsync.pipeline.reporting.report import Report
from latentsync.runtime import return_large_blocks
from latentsync.weights import model_folder

log = logging.getLogger(__name__)

# Options that do not change results, so that finished rows remain valid.
OF_THE_RUN = frozenset(
    ("overwrite", "jobs", "cache", "measure", "folder", "out", "video", "audio", "hydra", "demo")
)


def run(config: DictConfig) -> None:
    """Lip-sync `video` to `audio` into `out`, or every row of `jobs`."""
    return_large_blocks()
    if config.jobs is not None:
        run_list(config)
        return
    out, folder = Path(config.out), Path(config.folder)
    if (config.video is None) != (config.audio is None):
        raise ValueError("give both video= and audio=, or neither for the drawn demo")
    wanted = config.video is None or out.parent == folder
    with made(folder, wanted=wanted):
        if config.video is None:
            if config.plan is True:
                raise ValueError("plan=true needs video= and audio=")
            video, audio = render_demo(folder, **config.demo)
        else:
            video, audio = Path(config.video), Path(config.audio)
        if config.plan is True:
            with only_warnings_on_stderr():
                plan = Work(config).plan(video, audio, page=plan_page_path(out))
            sys.stdout.write(plan.to_json())
            sys.stderr.write(f"the plan with pictures: {plan_page_path(out)}\n")
            return
        work = Work(config)
        source = check_paths(video, audio, out, overwrite=config.overwrite)
        report = work.speak(source, audio, out, config)
    log_outcome(report, out)


@contextmanager
def only_warnings_on_stderr() -> Iterator[None]:
    """Log only warnings, to stderr: stdout carries the plan, which users redirect to a file."""
    own, handlers = logging.getLogger("latentsync"), logging.getLogger().handlers
    streams = [each for each in handlers if isinstance(each, logging.StreamHandler)]
    moved = [handler for handler in streams if handler.stream is sys.stdout]
    level = own.level
    own.setLevel(logging.WARNING)
    for handler in moved:
        handler.setStream(sys.stderr)
    try:
        yield
    finally:
        own.setLevel(level)
        for handler in moved:
            handler.setStream(sys.stdout)


def run_list(config: DictConfig) -> None:
    """Run all rows of the list with one loaded model."""
    if config.video is not None or config.audio is not None or config.plan is not None:
        raise ValueError("jobs= names videos and voices itself: leave out video=, audio=, plan=")
    work = Work(config)

    def one(row: Row) -> Report:
        own = with_options(row.options)
        own.overwrite = row.overwrite or own.overwrite
        source = check_paths(row.video, row.audio, row.out, overwrite=own.overwrite)
        report = work.speak(source, row.audio, row.out, own)
        log_outcome(report, row.out)
        return report

    settings_of_run = {name: node for name, node in config.items() if name not in OF_THE_RUN}
    settings = OmegaConf.to_yaml(OmegaConf.create(settings_of_run), resolve=False)
    states = run_jobs(Path(config.jobs), one, settings=settings, overwrite=config.overwrite)
    failed = sum(state.status == "failed" for state in states)
    if failed:
        raise ValueError(some_failed(failed, len(states), Path(config.jobs)))


def some_failed(failed: int, every: int, jobs: Path) -> str:
    """Summary of a list with failed rows, and where the reasons are."""
    others = every - failed
    rest = {0: "", 1: ", the other one is done"}.get(others, f", the other {others} are done")
    return f"{failed} of {every} jobs failed{rest}: {status_path(jobs)} says why"


def with_options(options: dict[str, str]) -> DictConfig:
    """The command's config with a row's own overrides, which may include groups such as preset."""
    given = list(HydraConfig.get().overrides.task)
    own = as_typed([f"{name}={text}" for name, text in options.items()], "infer")
    try:
        return compose("infer", overrides=[*given, *own])
    except HydraException as error:
        text = str(error).splitlines()[0]
        raise ValueError(f"{', '.join(own)} is no option of infer.py: {text}") from error


def log_outcome(report: Report, out: Path) -> None:
    done = f"{report.num_frames_with_face} of {report.num_frames} frames lip-synced"
    log.info("%s in %.1f s: %s", done, report.total_seconds, printable(out))
    for reason, num_frames in report.frames_left.items():
        log.info("%d frames are the source's own: %s", num_frames, reason)
    written = printable(report_path(out)), printable(page_path(out))
    log.info("what was done: %s and %s", *written)


@dataclass
class Work:
    """The model and the detector, loaded once."""

    config: DictConfig

    def __post_init__(self) -> None:
        # Check first all that can be checked without loading anything.
        choices(self.config)
        self.scorer = load_scorer(self.config)
        chosen_speakers(self.config, self.scorer)
        self.masker = load_masker(self.config)
        self.detector: FaceDetector = build_detector(self.config)
        self.cache = Cache.of_user() if self.config.cache else None
        self._model: LipSyncModel | None = None

    @property
    def model(self) -> LipSyncModel:
        if self._model is None:
            self._model = make_ready(
                load_model(self.config),
                device=choose_device(self.config.device),
                dtype=choose_dtype(self.config.dtype),
                compile_unet=self.config.compile,
            )
        return self._model

    def plan(self, video: Path, audio: Path, *, page: Path) -> Plan:
        """What would be done, and the estimated time on this machine; `page` shows it with
        pictures."""
        check_plan_page(page)
        parts = choices(self.config)
        options: Options = {
            **parts,
            "sampler": parts["sampler"],
            "seed": self.config.seed,
            "overlap": self.config.overlap,
            "reference": self.config.reference,
            "assign": assigned(self.config),
            "speakers": chosen_speakers(self.config, self.scorer),
        }
        request = request_of(Source.of(video), audio, self.model, options)
        job = prepare_job(request, Session(self.model, self.detector, self.cache, progress=True))
        warn_of(video, [*damage_of(job), *clipped_in(job)])
        plan = with_estimate(job, self.model, request.generation)
        write_plan_page(page, job, plan)
        return plan

    def speak(self, video: Source, audio: Path, out: Path, config: DictConfig) -> Report:
        plan = None if config.plan is None else Plan.load(Path(config.plan))
        return lipsync(
            video,
            audio,
            out,
            model=self.model,
            detector=self.detector,
            seed=config.seed,
            reference=config.reference,
            overwrite=config.overwrite,
            overlap=config.overlap,
            batch=config.batch,
            assign=assigned(config),
            speakers=chosen_speakers(config, self.scorer),
            masker=self.masker,
            plan=plan,
            cache=self.cache,
            measure=config.measure,
            preset=preset_of(config),
            progress=True,
            **choices(config),
        )


def load_model(config: DictConfig) -> LipSyncModel:
    """The model `ckpt` names: a folder, or a file, which is imported into the user's cache once."""
    published = config.published
    folder = model_folder(
        config.ckpt,
        version=None if published.version is None else str(published.version),
        whisper=published.whisper,
        vae=published.vae,
    )
    return LipSyncModel.from_pretrained(folder)


@contextmanager
def made(folder: Path, *, wanted: bool) -> Iterator[None]:
    """Create the folder if `wanted`; it is removed again if the block fails and leaves it empty."""
    if wanted:
        folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        if wanted:
            with suppress(OSError):
                folder.rmdir()
        raise


def render_demo(
    folder: Path, *, seconds: float, size: int, face_seed: int, voice_seed: int
) -> tuple[Path, Path]:
    """A synthetic speaker's video and another one's voice."""
    render_clip(folder / "face", seed=face_seed, seconds=seconds, size=size)
    render_clip(folder / "voice", seed=voice_seed, seconds=seconds, size=size)
    return folder / "face.mp4", folder / "voice.wav"
