"""Compares a folder of results with a folder of references of the same names: any real videos.

Both are cropped with the placement of the reference's face, so that pixels are comparable, and both
mouths are measured by landmarks. Only the first `max_frames` of one pair are in memory.
"""

import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torchmetrics import Metric
from tqdm import tqdm

from latentsync.evaluation.aggregate import Row
from latentsync.evaluation.control_rows import ControlRows, OtherVoice, Truth
from latentsync.evaluation.controls import COPIED, SHUFFLED, WIDE_LSE, middle_of
from latentsync.evaluation.cut_alike import Alike, cut_alike
from latentsync.evaluation.evaluator import Evaluator, Faces
from latentsync.evaluation.identity import Identities
from latentsync.evaluation.landmarks import by_landmarks, without_truth
from latentsync.evaluation.lse import LseScorer, wide_curves
from latentsync.evaluation.pair_times import check_sizes, notes_on_time
from latentsync.evaluation.pairs import Failed, Pair, find_pairs
from latentsync.evaluation.report_page import Page
from latentsync.evaluation.setting import AUTO, CROSS, RECONSTRUCTION, ROW_OF, Mel, setting_of
from latentsync.evaluation.speaking import add_speaker
from latentsync.evaluation.sync_embeddings import Heard
from latentsync.evaluation.synthetic_truth import SYNTHETIC_INPUTS, add_synthetic, is_synthetic
from latentsync.evaluation.validity import (
    leave_out_invalid_lse,
    leave_out_invalid_speaker,
    leave_out_invalid_sync,
)
from latentsync.evaluation.views import Files
from latentsync.media.audio import read_waveform
from latentsync.media.container import UNREADABLE
from latentsync.media.mel import mel_spectrogram
from latentsync.media.video import VideoInfo, probe, read_frames
from latentsync.metrics.base import Sample
from latentsync.metrics.mouth import silent_frames
from latentsync.metrics.syncnet_v2 import LseTrack, NoTrack
from latentsync.models.syncnet import StableSyncNet

log = logging.getLogger(__name__)

UNKNOWN = "a reference is a video, and no drawn truth"
LSE_INPUTS = ("lse_curves", WIDE_LSE)


@dataclass(frozen=True, slots=True)
class Measured:
    """The measurements of a pair; `notes`: caveats, one sentence by kind. `truth` and `other` are
    what the controls are made of."""

    pair: Pair
    samples: dict[str, Sample]
    notes: dict[str, str]
    setting: str
    truth: Truth
    other: OtherVoice | None
    identities: Identities


class Comparison:
    """The results of a comparison so far."""

    def __init__(self, metrics: Mapping[str, Metric], evaluator: Evaluator) -> None:
        self.every_row = {name: Row(metrics) for name in (*ROW_OF.values(), "ref")}
        self.controls = ControlRows(metrics, evaluator)
        self.settings: Counter[str] = Counter()
        self.conditions: dict[str, str] = {}
        self.has_synthetic = False  # mouths that are known
        self.is_filmed = True
        self.last_face: tuple[str, Identities] | None = None
        self.files: dict[str, dict[str, Files]] = defaultdict(dict)
        self.failed: list[Failed] = []
        self.notes: dict[str, list[str]] = defaultdict(list)

    @property
    def rows(self) -> dict[str, Row]:
        """The rows that have clips."""
        rows = {name: row for name, row in self.every_row.items() if row.num_clips}
        return {self.shown_name(name): row for name, row in rows.items()}

    def shown_name(self, row: str) -> str:
        """The name of a row where it is the only one of results."""
        return "pred" if len(self.settings) == 1 and row != "ref" else row

    @property
    def page(self) -> Page:
        """What the page shows of single clips."""
        return Page({self.shown_name(name): files for name, files in self.files.items()})

    @property
    def setting(self) -> str:
        """The setting of all pairs."""
        return " and ".join(sorted(self.settings))

    @property
    def num_measured(self) -> int:
        return self.every_row["ref"].num_clips

    @property
    def num_pairs(self) -> int:
        return self.num_measured + len(self.failed)

    def add(self, result: Measured | Failed) -> dict[str, object]:
        """Add one pair; returns its line of pairs.jsonl."""
        if isinstance(result, Failed):
            self.failed.append(result)
            log.warning("%s is left out: %s", result.name, result.reason)
            return result.as_row()
        pair = result.pair
        speaker = pair.speaker or pair.name
        before, self.last_face = self.last_face, (speaker, result.identities)
        if before is not None and before[0] != speaker:
            result.samples["pred"].update(result.identities.against(before[1]))
        row_of = {"pred": ROW_OF[result.setting], "ref": "ref"}
        rows = {
            name: self.every_row[row_of[name]].add(sample, clip=pair.name, speaker=speaker)
            for name, sample in result.samples.items()
        }
        self.conditions[pair.name] = pair.condition
        self.files[ROW_OF[result.setting]][pair.name] = Files(pair.pred, pair.ref)
        self.has_synthetic |= "driving" in result.samples["ref"]
        self.is_filmed &= not (self.has_synthetic or is_synthetic(pair.ref))
        self.settings[result.setting] += 1
        self.controls.add(result.truth, other=result.other)
        for kind, note in result.notes.items():
            self.notes[kind].append(note)
        notes = list(result.notes.values())
        return {"pred": pair.name, "setting": result.setting, "rows": rows, "notes": notes}

    def finish(self, *, trained_on: str | None) -> dict[str, object]:
        """Remove invalid sync figures, log the notes, and return the additions to metrics.json."""
        self.controls.finish()
        every = self.rows | self.controls.named_rows()
        invalid = leave_out_invalid_sync(every, self.rows["ref"], trained_on=trained_on)
        reasons = {
            "lse_not_valid": leave_out_invalid_lse(every, self.rows["ref"]),
            "speaker_not_valid": leave_out_invalid_speaker(
                every, self.rows["ref"], synthetic=not self.is_filmed
            ),
        }
        for notes in self.notes.values():
            log.warning("of %d pairs %d: %s", self.num_measured, len(notes), notes[0])
        return {
            "pairs": self.num_measured,
            "pairs_by_setting": dict(self.settings),
            "failed": [each.as_row() for each in self.failed],
            "notes": [note for notes in self.notes.values() for note in notes],
            "sync_not_valid": invalid,
            **{name: reason for name, reason in reasons.items() if reason is not None},
        }

    def missing(self) -> dict[str, str]:
        """Inputs that no pair has, with reasons."""
        missing = (
            {} if self.has_synthetic else dict.fromkeys(("reading", "driving", "own"), UNKNOWN)
        )
        missing["other_voice_landmarks"] = "no face speaks with two voices here"
        if not self.settings[CROSS]:
            missing["own_landmarks"] = "pred= and ref= speak with the same voice"
        if not self.settings[RECONSTRUCTION]:
            wanted = "pred= speaks with another voice than ref=, whose mouth nobody knows"
            missing |= dict.fromkeys(("driving_lips", "driving_landmarks", "truth"), wanted)
        return missing

    def controls_not_run(self) -> dict[str, str]:
        """The controls that these pairs do not allow, with reasons."""
        reasons = {}
        if not self.settings[CROSS]:
            reasons[COPIED] = "pred= speaks with the sound of ref=: the copied source is the truth"
        if self.num_measured < 2:
            reasons[SHUFFLED] = "it needs two pairs or more"
        return reasons

    def raise_failed(self, path: Path) -> None:
        """ValueError if a pair could not be measured; `path` lists all of them."""
        if not self.failed:
            return
        first = self.failed[0]
        raise ValueError(
            f"{len(self.failed)} of {self.num_pairs} pairs could not be measured, first: "
            f"{first.name} ({first.reason}); all are in {path}"
        )


def compare_folders(
    pred_dir: Path,
    ref_dir: Path,
    *,
    evaluator: Evaluator,
    max_frames: int,
    setting: str = AUTO,
) -> Iterator[Measured | Failed]:
    """Each pair of equal names as soon as it is measured, or why it could not be."""
    found = find_pairs(pred_dir, ref_dir)
    if found.passed_over:
        log.info(
            "%d files of pred=%s are no videos and have no namesake: %s",
            *(len(found.passed_over), pred_dir, ", ".join(found.passed_over[:5])),
        )
    pairs = (replace(pair, setting=setting) for pair in found.pairs)
    every = tqdm([*found.failed, *pairs], desc="compare", unit="video")
    yield from compare_pairs(every, evaluator=evaluator, max_frames=max_frames)


def compare_pairs(
    pairs: Iterable[Pair | Failed], *, evaluator: Evaluator, max_frames: int
) -> Iterator[Measured | Failed]:
    """Each pair as soon as it is measured, or why it could not be."""
    for pair in pairs:
        if isinstance(pair, Failed):
            yield pair
            continue
        try:
            yield compare_pair(pair, evaluator=evaluator, max_frames=max_frames)
        except UNREADABLE as error:
            yield Failed(pair.name, " ".join(str(error).split()))


def compare_pair(pair: Pair, *, evaluator: Evaluator, max_frames: int) -> Measured:
    """The measurements of one pair, for its `pred` and its `ref`."""
    fps, detector = evaluator.model_format.fps, evaluator.detector
    if detector is None:
        raise ValueError("comparing folders needs a face detector: faces=mesh")
    pred, ref = probe(pair.pred), probe(pair.ref)
    check_sizes(pred, ref)
    pred_frames, ref_frames = (
        read_frames(path, fps=fps, num_frames=max_frames) for path in (pair.pred, pair.ref)
    )
    alike = cut_alike(pred_frames, ref_frames, evaluator, detector)
    pred_lips, ref_lips = alike.pred_lips, alike.lips
    alike.check(pair.pred, pair.ref)
    videos = {"pred": pred, "ref": ref}
    waveforms = {name: read_waveform(info.path) for name, info in videos.items() if info.has_audio}
    mels = {name: mel_spectrogram(waveform) for name, waveform in waveforms.items()}
    setting = setting_of(mels) if pair.setting == AUTO else pair.setting
    own = setting == RECONSTRUCTION
    mesh = by_landmarks(pred_lips, ref_lips) if own else without_truth(pred_lips, ref_lips)
    samples = {
        "pred": mesh | evaluator.compare(alike.pred, alike.ref, same_speech=own),
        "ref": Sample(),
    }
    notes = notes_on_time(pred, ref, fps=fps, max_frames=max_frames)
    lse: dict[str, list[LseTrack]] = {}
    if evaluator.lse is not None:
        lse = add_lse(samples, notes, videos, evaluator.lse, max_frames / fps)
    for name, lips in (("pred", pred_lips), ("ref", ref_lips)):
        if name in mels:
            silent = silent_frames(mels[name], len(lips), fps=fps)
            samples[name] |= {"lips": lips, "silent": silent, "speech": waveforms[name]}
    faces = {"pred": alike.pred, "ref": alike.ref}
    add_speaker(samples, notes, evaluator, faces, waveforms, num_frames=len(ref_lips))
    heard: dict[str, Heard] = {}
    if evaluator.syncnet is not None:
        wanting = why_no_sync(evaluator.syncnet, alike.ref, num_frames=len(ref_lips))
        if wanting is None:
            heard = add_sync(samples, evaluator, alike, mels)
        else:
            notes["sync"] = wanting
    tracks = add_synthetic(samples, pair, alike, evaluator)
    known = truth_of(pair, alike, samples["ref"], heard.get("ref"))
    truth = replace(known, lse=lse.get("ref", ()))
    other = None
    if not own:
        sound = heard["pred"].sound if "pred" in heard else None
        other = OtherVoice(tracks, sound, lse.get("pred", ()))
    for name, sample in alike.identities.samples().items():
        samples[name] |= sample
    return Measured(pair, samples, notes, setting, truth, other, alike.identities)


def add_sync(
    samples: Mapping[str, Sample], evaluator: Evaluator, alike: Alike, mels: Mapping[str, Mel]
) -> dict[str, Heard]:
    """Add the cosines of the videos that have sound; returns what SyncNet makes of them."""
    faces = {"pred": alike.pred, "ref": alike.ref}
    heard: dict[str, Heard] = {}
    for name, mel in mels.items():
        # A sound that was encoded alike is embedded once.
        same = next((known for known in heard if torch.equal(mels[known], mel)), None)
        sound = None if same is None else heard[same].sound
        heard[name] = each = evaluator.embed(faces[name], mel, sound=sound)
        samples[name]["sync_cosines"] = evaluator.cosines(each.vision, each.sound)
    return heard


def truth_of(pair: Pair, alike: Alike, sample: Sample, heard: Heard | None) -> Truth:
    """The reference as the truth that the controls spoil."""
    tracks = by_landmarks(alike.lips, alike.lips)
    tracks |= {key: sample[key] for key in (*LSE_INPUTS, *SYNTHETIC_INPUTS) if key in sample}
    return Truth(pair.name, pair.speaker or pair.name, tracks, alike.ref, alike.points, heard)


def add_lse(
    samples: Mapping[str, Sample],
    notes: dict[str, str],
    videos: Mapping[str, VideoInfo],
    scorer: LseScorer,
    seconds: float,
) -> dict[str, list[LseTrack]]:
    """Add the inputs of LSE to the samples, or a note why there are none; returns embeddings."""
    tracks: dict[str, list[LseTrack]] = {}
    for name, info in videos.items():
        if not info.has_audio:
            notes["lse"] = f"no LSE: {info.path} has no sound"
            continue
        try:
            found = scorer.tracks(info.path, seconds=seconds, with_backwards=name == "ref")
            tracks[name] = found
            wide = wide_curves((each.vision, each.sound) for each in found)
            samples[name] |= {"lse_curves": middle_of(wide), WIDE_LSE: wide}
        except NoTrack as error:
            notes["lse"] = f"no LSE: {error}"
    return tracks


def why_no_sync(syncnet: StableSyncNet, faces: Faces, *, num_frames: int) -> str | None:
    """Why sync cannot be scored on these faces of `num_frames` frames, if so."""
    if len(faces) < num_frames:
        # If a face is missing, frames and sound are no longer aligned.
        return f"no sync: only {len(faces)} of {num_frames} frames of the reference show a face"
    if num_frames < syncnet.config.num_frames:
        return f"no sync: it needs {syncnet.config.num_frames} frames or more, got {num_frames}"
    return None
