"""Raw videos => a data set: clips, features, manifest, list of dropped items, and a report."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from tqdm import tqdm

from latentsync.data.manifest import DROPPED_NAME
from latentsync.faces.detectors.base import FaceDetector
from latentsync.faces.detectors.facemesh import MeshDetector
from latentsync.faces.tracking.follower import SAME_PLACE
from latentsync.faces.tracking.shots import STANDS_OUT
from latentsync.files import printable
from latentsync.models.audio.encoders import AudioEncoder, MelAudioEncoder
from latentsync.prepare.again import (
    Task,
    open_record,
    recorded_parameters,
    remove_files,
    run_task,
    task_of,
)
from latentsync.prepare.align import HANDS, MAX_YAW, Align
from latentsync.prepare.executors import Executor, SerialExecutor
from latentsync.prepare.features import WriteClips
from latentsync.prepare.fingerprint import Fingerprint
from latentsync.prepare.identity import MeasureIdentity
from latentsync.prepare.limits import Limits
from latentsync.prepare.parameters import parameters
from latentsync.prepare.probe import Probe
from latentsync.prepare.quality import MeasureQuality
from latentsync.prepare.record import Record, locked
from latentsync.prepare.remote_sources import resolved_input
from latentsync.prepare.resample import Resample
from latentsync.prepare.segment import Cut
from latentsync.prepare.sound import MeasureSound
from latentsync.prepare.sources import find_sources, recording_of, version
from latentsync.prepare.speaking import MeasureSpeaking
from latentsync.prepare.stage import ERROR, Outcome, Source, Stage, check_stages
from latentsync.prepare.summary import SetRule, summarise
from latentsync.prepare.sync import MeasureSync

MAX_ERROR_RATE = 0.05


@dataclass(frozen=True)
class Recipe:
    """The parameters of the standard stages, as in conf/prepare, without repetition.

    Detector and audio encoder are given as factories, called once per process.
    """

    make_detector: Callable[[], FaceDetector] = MeshDetector
    make_audio_encoder: Callable[[], AudioEncoder] = MelAudioEncoder
    aligner: str = "smooth"
    resolution: int = 256
    fps: float = 25.0
    own_sound: bool = True
    min_seconds: float = 2.0
    max_seconds: float = 10.0
    cut_ratio: float | None = STANDS_OUT
    min_overlap: float = SAME_PLACE
    syncnet: Path | str | None = None
    max_yaw: float | None = MAX_YAW
    occlusion: Path | str | None = HANDS
    max_people: int = 2
    identity: Path | str | None = "sface"
    vad: str = "level"
    lr_asd: Path | str | None = None
    quality: str | None = None
    crf: int = 8

    def stages(self) -> list[Stage]:
        fps, min_seconds = self.fps, self.min_seconds
        return [
            Probe(min_seconds=min_seconds),
            Resample(fps=fps, own_sound=self.own_sound),
            Cut(fps=fps, min_seconds=min_seconds, cut_ratio=self.cut_ratio),
            Align(
                make_detector=self.make_detector,
                aligner=self.aligner,
                resolution=self.resolution,
                fps=fps,
                min_seconds=min_seconds,
                max_seconds=self.max_seconds,
                min_overlap=self.min_overlap,
                max_yaw=self.max_yaw,
                occlusion=self.occlusion,
                max_people=self.max_people,
            ),
            MeasureIdentity(network=self.identity),
            MeasureSync(syncnet=self.syncnet, fps=fps),
            MeasureSound(vad=self.vad),
            MeasureSpeaking(weights=self.lr_asd, fps=fps),
            MeasureQuality(network=self.quality),
            Fingerprint(),
            WriteClips(
                make_audio_encoder=self.make_audio_encoder,
                fps=fps,
                resolution=self.resolution,
                crf=self.crf,
            ),
        ]


def prepare_clips(
    input_dir: Path | str,
    output_dir: Path,
    *,
    stages: Sequence[Stage] | None = None,
    limits: Limits | None = None,
    rules: Sequence[SetRule] = (),
    max_error_rate: float = MAX_ERROR_RATE,
    executor: Executor | None = None,
    progress: bool = False,
) -> list[Outcome]:
    """Make a data set of every video under `input_dir`, or of those that a list names (see
    `find_sources`), or resume an interrupted one. With a URL (s3://bucket/folder) each recording is
    fetched while it is prepared.

    `stages` turn a source into clips, by default those of a `Recipe`; all clips in an output folder
    are made by the same stages with the same parameters. Other ones make again what depends on
    them, see `latentsync.prepare.again`; ValueError if that is all, see `adopt`. The raw files are
    only read. Results do not depend on order or number of processes. Clips deleted since are made
    again. Clips beyond the `limits` of what stages measured are listed as dropped, at the end:
    other limits redo nothing.
    Then come the `rules`, which look at all clips: `Dedupe`, `Split`. ValueError after all that if
    more than the share `max_error_rate` of the files ended with an unexpected error; they are tried
    again by the next run.
    """
    stages = Recipe().stages() if stages is None else list(stages)
    check_stages(stages)
    executor = executor or SerialExecutor()
    given, output_dir = resolved_input(input_dir), output_dir.resolve()
    sources = find_sources(given, output_dir)
    with locked(output_dir):
        for folder in ("clips", "features"):
            (output_dir / folder).mkdir(exist_ok=True)
        record = open_record(output_dir, recorded_parameters(given, stages), stages)
        # Versions before reading: a file that changes meanwhile is prepared again by the next run.
        versions = {source: version(source) for source in sources}
        others = other_versions(record, versions.values())
        todo = tasks_of(versions, record, others, output_dir)
        make_work = partial(make_preparer, stages)
        fresh = executor.run(make_work, todo) if todo else ()
        for outcome in counted(fresh, total=len(sources), left=len(todo), progress=progress):
            name = versions[outcome.source]
            note(record, name, outcome.as_row(output_dir), others[name])
        outcomes = [
            Outcome.from_row(row_of(source, name, record), source, output_dir)
            for source, name in versions.items()
        ]
        outcomes = summarise(
            outcomes, output_dir, limits, rules=rules, parameters=parameters(stages)
        )
    check_errors(outcomes, max_error_rate)
    return outcomes


def tasks_of(
    versions: Mapping[Source, str],
    record: Record,
    others: Mapping[str, Sequence[str]],
    folder: Path,
) -> list[Task]:
    """What is left to do for the sources with these versions, of whose recordings `others` are
    recorded, too."""
    place = {name: number for number, name in enumerate(record.rows)}
    last = {
        name: max((name, *others[name]), key=lambda each: place.get(each, -1)) for name in others
    }
    tasks = (
        task_of(
            source,
            record.rows.get(name),
            # The files of versions before the last one may have been written over.
            whole=last[name] == name and is_whole(record.rows.get(name), folder),
            before=record.rows.get(others[name][-1]) if others[name] else None,
        )
        for source, name in versions.items()
    )
    return [task for task in tasks if task is not None]


def counted(
    outcomes: Iterable[Outcome], *, total: int, left: int, progress: bool
) -> Iterator[Outcome]:
    """The outcomes of what is left of the files, with a bar of files, rate, time left, clips and
    dropped parts."""
    num_clips = num_dropped = 0
    with tqdm(
        total=total, initial=total - left, desc="prepare", unit="file", disable=not progress
    ) as bar:
        for outcome in outcomes:
            yield outcome
            num_clips += len(outcome.clips)
            num_dropped += len(outcome.dropped)
            bar.set_postfix(clips=num_clips, dropped=num_dropped, refresh=False)
            bar.update()


def other_versions(record: Record, names: Iterable[str]) -> dict[str, list[str]]:
    """For the names of recordings' versions, the recorded ones of others of the same recordings."""
    recorded: dict[str, list[str]] = {}
    for item in record.rows:
        recorded.setdefault(recording_of(item), []).append(item)
    return {
        name: [item for item in recorded.get(recording_of(name), ()) if item != name]
        for name in names
    }


def note(record: Record, name: str, row: dict, others: Sequence[str] = ()) -> None:
    """Record what became of a source; files of clips that it, or another version of it, had before
    and has no more go."""
    has_failed = any(part["stage"] == ERROR for part in row["dropped"])
    replaced = [] if has_failed else [each for each in others if each in record.rows]
    before = [record.rows[each] for each in (name, *replaced) if each in record.rows]
    record.add(name, row, replaces=replaced)
    for each in () if has_failed else before:
        remove_files(record.path.parent, each, row)


def row_of(source: Source, name: str, record: Record) -> dict:
    """The recorded row of a source; a list that has other labels now changes the record."""
    row = record.rows[name]
    if row.get("listed", {}) != source.recorded():
        record.add(name, {**row, "listed": source.recorded()})
    return record.rows[name]


def check_errors(outcomes: Sequence[Outcome], max_error_rate: float) -> None:
    """ValueError if a larger share of the files ended with an unexpected error."""
    errors = [part for each in outcomes for part in each.dropped if part.stage == ERROR]
    if len(errors) > max_error_rate * len(outcomes):
        raise ValueError(
            f"{len(errors)} of {len(outcomes)} files ended with an unexpected error, more than "
            f"max_error_rate={max_error_rate:g} (first: {printable(errors[0].source)}: "
            f"{errors[0].reason}): {DROPPED_NAME} lists them, and the same command tries them again"
        )


def make_preparer(stages: Sequence[Stage]) -> Callable[[Task], Outcome]:
    """The function for one source, with fresh copies of the stages."""
    return partial(run_task, [replace(stage) for stage in stages])  # type: ignore[type-var]


def is_whole(row: dict | None, output_dir: Path) -> bool:
    """Whether a source ended without an unexpected error, and all its files still exist."""
    if row is None or any(part["stage"] == ERROR for part in row["dropped"]):
        return False
    files = (clip[name] for clip in row["clips"] for name in ("clip", "features"))
    return all((output_dir / file).is_file() for file in files)
