"""What other parameters outdate in a prepared set, and how it is made again.

- Fields of `sound`, `speaker`, `quality` or `fingerprint`, or which of these stages there are:
  their columns, from the clips as they are stored.
- The audio encoder of `write`: the audio states, from the clips' sound.
- Anything else: the clips, from the recordings.
- Limits, `dedupe` and `split`: nothing, as they are applied to what was measured.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import load_file

from latentsync.data.clips import (
    FEATURES_FOLDER,
    LATENTS_FOLDER,
    Clip,
    Measures,
)
from latentsync.faces.tracking.opencv_threads import single_opencv_thread
from latentsync.files import printable
from latentsync.media.clip_reader import open_clip
from latentsync.prepare.features import WriteClips, save_features
from latentsync.prepare.fingerprint import Fingerprint
from latentsync.prepare.parameters import of_today, parameters
from latentsync.prepare.quality import MeasureQuality
from latentsync.prepare.record import (
    RECORD_NAME,
    Record,
    check_same,
    differences,
    locked,
    whole_lines,
)
from latentsync.prepare.remote_sources import resolved_input, run_source
from latentsync.prepare.sound import MeasureSound
from latentsync.prepare.speaking import MeasureSpeaking
from latentsync.prepare.stage import (
    UNEXPECTED,
    AlignedSegment,
    Outcome,
    Source,
    Stage,
    failed,
)
from latentsync.prepare.states import heard

# Stages that only need what is stored of a clip, and the columns that they add.
FROM_STORED: Mapping[str, tuple[type, tuple[str, ...]]] = {
    kind.name: (kind, kind.columns)
    for kind in (MeasureSound, MeasureSpeaking, MeasureQuality, Fingerprint)
}
STAGES, INPUT = "stages", "input"
STATES = f"{WriteClips.name}.make_audio_encoder"
OUTDATED = "outdated"  # in rows of a record

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Outdated:
    """What of a source must be made again: all of it, or of its clips the audio states, and the
    measures of some stages."""

    source: bool = False
    states: bool = False
    stages: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self.source or self.states or bool(self.stages)

    def __or__(self, other: "Outdated") -> "Outdated":
        stages = tuple(sorted({*self.stages, *other.stages}))
        return Outdated(self.source or other.source, self.states or other.states, stages)

    @classmethod
    def of_row(cls, row: Mapping) -> "Outdated":
        noted = row.get(OUTDATED) or {}
        return cls(**{**noted, "stages": tuple(noted.get("stages", ()))})

    def __str__(self) -> str:
        if self.source:
            return "all clips"
        return ", ".join([*self.stages, *(["audio states"] if self.states else [])])

    def as_row(self) -> dict:
        return {"source": self.source, "states": self.states, "stages": list(self.stages)}


@dataclass(frozen=True, slots=True)
class Task:
    """A source to prepare: all of it, or what is outdated in its recorded row."""

    source: Source
    row: Mapping | None = None
    outdated: Outdated = Outdated()

    def __str__(self) -> str:
        return str(self.source)


def outdated_by(before: Mapping, now: Mapping) -> Outdated:
    """What other parameters outdate."""
    found = Outdated()
    for name in differences(before, now):
        stage = name.partition(".")[0]
        if name == STAGES:
            then, today = before[STAGES], now[STAGES]
            same = without_stored(then) == without_stored(today)
            others = ({*then} ^ {*today}) & FROM_STORED.keys()
            found |= Outdated(source=not same, stages=tuple(sorted(others)))
        elif stage in FROM_STORED:
            found |= Outdated(stages=(stage,))
        else:
            found |= Outdated(states=True) if name == STATES else Outdated(source=True)
    return found


def without_stored(names: Sequence[str]) -> list[str]:
    return [name for name in names if name not in FROM_STORED]


def adopt(input_dir: Path | str, output_dir: Path, stages: Sequence[Stage]) -> None:
    """Let `prepare_clips` make again what other stages outdate in a set, be it all of it.

    Without this it refuses to prepare whole recordings again.
    """
    output_dir = output_dir.resolve()
    if not (output_dir / RECORD_NAME).is_file():
        return
    with locked(output_dir):
        open_record(output_dir, recorded_parameters(input_dir, stages), stages, redo=True)


def recorded_parameters(input_dir: Path | str, stages: Sequence[Stage]) -> dict[str, object]:
    return {INPUT: str(resolved_input(input_dir)), **parameters(stages)}


def open_record(folder: Path, now: dict, stages: Sequence[Stage], *, redo: bool = False) -> Record:
    """The record of a folder, new or existing, in which is noted what these parameters outdate.

    ValueError if they outdate whole recordings, unless `redo`, and for another input.
    """
    if not whole_lines(folder / RECORD_NAME):
        return Record.open(folder, now)
    recorded, record = Record.existing(folder)
    before = of_today(recorded, stages)
    change = outdated_by(before, now)
    own = [stage for stage in stages if stage.name in change.stages]
    if any(not isinstance(stage, FROM_STORED[stage.name][0]) for stage in own):
        change |= Outdated(source=True)  # a stage of the user's, of the same name
    if before.get(INPUT) != now[INPUT]:
        check_same(before, now, folder)
    if change.source and not redo:
        check_same(before, now, folder, otherwise="redo=true to prepare its recordings again, ")
    if change:
        rows = record.rows.values()
        record.change(
            now, [{**row, OUTDATED: (Outdated.of_row(row) | change).as_row()} for row in rows]
        )
        log.info("other parameters outdate %s", change)
    return record


def task_of(
    source: Source, row: Mapping | None, *, whole: bool, before: Mapping | None = None
) -> Task | None:
    """What is left to do for a source of this recorded row; None if nothing is. `whole`: its files
    are there. `before`: the row of another version of the recording."""
    outdated = Outdated() if row is None else Outdated.of_row(row)
    if row is None or not whole or outdated.source:
        return Task(source, row if outdated.source else before)
    return Task(source, row, outdated) if outdated else None


def run_task(stages: Sequence[Stage], task: Task) -> Outcome:
    """Prepare a source, or make again what is outdated in it."""
    # Recordings are what is computed in parallel.
    with single_opencv_thread():
        if task.outdated:
            return made_again(stages, task)
        for clip in task.row["clips"] if task.row else ():
            remove_derived(task.source.output_dir, Path(clip["clip"]).stem)
        return run_source(stages, task.source)


def remove_derived(folder: Path, name: str) -> None:
    """Delete what was made of a clip that will be another one: latents, and states of encoders."""
    for parent in (folder / LATENTS_FOLDER, folder / FEATURES_FOLDER):
        for path in parent.glob(f"*/{name}.safetensors"):
            path.unlink()


def remove_files(folder: Path, before: Mapping, now: Mapping) -> None:
    """Delete the files of clips that a source no longer has."""
    kept = {clip[kind] for clip in now["clips"] for kind in ("clip", "features")}
    for clip in before["clips"]:
        for kind in ("clip", "features"):
            if clip[kind] not in kept:
                (folder / clip[kind]).unlink(missing_ok=True)


def made_again(stages: Sequence[Stage], task: Task) -> Outcome:
    """The recorded outcome of a source, with what is outdated made from its stored clips."""
    assert task.row is not None
    outcome = Outcome.as_recorded(task.row, task.source, task.source.output_dir)
    try:
        clips = [clip_again(stages, clip, task) for clip in outcome.clips]
    except UNEXPECTED as error:
        log.exception("%s: unexpected error", printable(task.source.name))
        return replace(outcome, clips=[], dropped=[*outcome.dropped, failed(task.source, error)])
    return replace(outcome, clips=clips)


def clip_again(stages: Sequence[Stage], clip: Clip, task: Task) -> Clip:
    gone = {name for each in task.outdated.stages for name in FROM_STORED[each][1]}
    wanted = [stage for stage in stages if stage.name in task.outdated.stages]
    measures: Measures = {name: value for name, value in clip.measures.items() if name not in gone}
    if wanted:
        measured = stored(replace(clip, measures=measures), task.source)
        for stage in wanted:
            check_openings(stage, measured, clip)
            (made,) = stage.run(measured)
            assert isinstance(made, AlignedSegment)
            measured = made
        measures = in_order(measured.measures, like=clip.measures)
    if task.outdated.states:
        (write,) = (stage for stage in stages if isinstance(stage, WriteClips))
        with torch.no_grad():
            states = write.audio_encoder(heard(clip))
        save_features(write.audio_encoder, states, load_file(clip.features_path), clip)
    return replace(clip, measures=measures)


def stored(clip: Clip, source: Source) -> AlignedSegment:
    """A clip as it is stored, for stages that measure it: faces and sound are as encoded."""
    features = load_file(clip.features_path)
    openings = features.get("opening")
    return AlignedSegment(
        source=source,
        index=0,
        start_frame=clip.start_frame,
        faces=list(open_clip(clip.path).frames(range(clip.num_frames))),
        turns=features["turn"].numpy(),
        waveform=heard(clip),
        measures=clip.measures,
        openings=None if openings is None else openings.numpy(),
    )


def check_openings(stage: object, measured: AlignedSegment, clip: Clip) -> None:
    if isinstance(stage, MeasureSpeaking) and stage.weights is None and measured.openings is None:
        raise ValueError(
            f"{clip.features_path} does not say how far the mouth is open, as an earlier version "
            "made it: give prepare.lr_asd, or redo=true to prepare the recordings again"
        )


def in_order(measures: Measures, *, like: Mapping) -> Measures:
    """The measures in the order that they had, new ones at the end."""
    known = {name: measures[name] for name in like if name in measures}
    return {**known, **measures}
