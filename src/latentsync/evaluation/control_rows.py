"""Measures the controls: the truth of one clip after another, as it is and spoiled."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric

from latentsync.evaluation.aggregate import Row, figures_of
from latentsync.evaluation.controls import (
    CONTROLS,
    COPIED,
    EXAGGERATED,
    FACTOR,
    REVERSED,
    SHIFTS,
    SHUFFLED,
    TRUTH,
    middle_of,
    reversed_in_time,
    shifted,
    with_voice,
)
from latentsync.evaluation.evaluator import Evaluator, Faces
from latentsync.evaluation.exaggerate import exaggerated_faces, exaggerated_points
from latentsync.evaluation.landmarks import by_landmarks, lips_of, points_in_aligned
from latentsync.evaluation.lse import wide_curves
from latentsync.evaluation.model import Spoken
from latentsync.evaluation.single_thread import single_thread
from latentsync.evaluation.sync_embeddings import Heard, Sound, Vision, lower_halves
from latentsync.metrics.base import Sample
from latentsync.metrics.lips import shape_of
from latentsync.metrics.syncnet_v2 import LseTrack


@dataclass(frozen=True, slots=True)
class Truth:
    """An untouched clip: its inputs, its aligned faces and the lips in their pixels, and what
    SyncNet makes of it.

    `heard` is None where sync cannot be scored, `points` where no lips are known.
    """

    clip: str
    speaker: str
    sample: Sample
    faces: Faces
    points: Float[Tensor, "f 40 2"] | None
    heard: Heard | None
    lse: Sequence[LseTrack] = ()


@dataclass(frozen=True, slots=True)
class OtherVoice:
    """The tracks of a voice that is not the clip's own, and what SyncNet hears of it."""

    tracks: Sample
    sound: Sound | None
    lse: Sequence[LseTrack] = ()


@dataclass(frozen=True, slots=True)
class Held:
    """What is kept of a clip to be spoken over by the next one, and to speak over it."""

    clip: str
    speaker: str
    sample: Sample
    vision: Vision | None
    sound: Sound | None
    lse: Sequence[LseTrack]


class ControlRows:
    """The rows of all controls; only metrics of sync are in them."""

    def __init__(self, metrics: Mapping[str, Metric], evaluator: Evaluator) -> None:
        of_sync = {name: each for name, each in metrics.items() if measures_sync(each)}
        self.rows = {name: Row(of_sync) for name in CONTROLS}
        self.evaluator = evaluator
        self._first: Held | None = None
        self._last: Held | None = None

    @single_thread()
    def add(self, truth: Truth, *, other: OtherVoice | None = None) -> None:
        """Add a clip; `other` is the voice that a copy of it would be scored against."""
        heard = truth.heard
        vision, sound = (None, None) if heard is None else (heard.vision, heard.sound)
        held = Held(truth.clip, truth.speaker, truth.sample, vision, sound, truth.lse)
        own = self._spoken(held.sample, held.vision, held.sound)
        self._count(TRUTH, held, own)
        for num_frames, name in SHIFTS.items():
            self._count(name, held, shifted(own, num_frames))
        self._count(REVERSED, held, self._reversed(truth, held))
        self._count(EXAGGERATED, held, self._exaggerated(truth, held))
        if other is not None:
            dubbed = self._dubbed(held, other.tracks, other.sound, other.lse)
            self._count(COPIED, held, dubbed)
        # A list has each clip with two voices, one after the other: its own sound is no other one.
        if self._last is not None and self._last.speaker != held.speaker:
            self._count(SHUFFLED, held, self._spoken_over(held, self._last))
        self._first, self._last = self._first or held, held

    def finish(self) -> None:
        """Speak over the first clip with the last one's sound; call it once, after all clips."""
        if self._first is None or self._last is None:
            return
        if self._first.speaker != self._last.speaker:
            self._count(SHUFFLED, self._first, self._spoken_over(self._first, self._last))

    def named_rows(self) -> dict[str, Row]:
        """The rows under names that no row of results has."""
        return {f"control: {name}": row for name, row in self.rows.items()}

    def _count(self, name: str, held: Held, sample: Sample) -> None:
        self.rows[name].add(sample, clip=held.clip, speaker=held.speaker)

    def _spoken(self, sample: Sample, vision: Vision | None, sound: Sound | None) -> Sample:
        """The inputs with the cosines of these pictures and this sound."""
        if vision is None or sound is None:
            return sample
        return sample | {"sync_cosines": self.evaluator.cosines(vision, sound)}

    def _dubbed(
        self, held: Held, tracks: Sample, sound: Sound | None, lse: Sequence[LseTrack]
    ) -> Sample:
        sample = self._spoken(with_voice(held.sample, tracks), held.vision, sound)
        # Whatever the tracks of the other video are: its sound from the first of them on.
        return sample | lse_inputs((each.vision, lse[0].sound) for each in held.lse if lse)

    def _spoken_over(self, held: Held, other: Held) -> Sample:
        return self._dubbed(held, other.sample, other.sound, other.lse)

    def _reversed(self, truth: Truth, held: Held) -> Sample:
        heard = truth.heard
        vision = None if heard is None else self.evaluator.see(heard.pictures.flip(0))
        sample = self._spoken(reversed_in_time(truth.sample), vision, held.sound)
        pairs = [(each.backwards, each.sound) for each in truth.lse if each.backwards is not None]
        return sample | lse_inputs(pairs)

    def _exaggerated(self, truth: Truth, held: Held) -> Sample:
        if truth.points is None:
            return {}
        faces = exaggerated_faces(truth.faces, truth.points, FACTOR)
        sample = dict(truth.sample)
        if "reading" in sample:
            sample["reading"] = self.evaluator.read(faces)[: len(sample["reading"])]
        if "lips" in sample:
            sample["lips"] = exaggerated_points(sample["lips"], FACTOR)
            sample["landmarks"] = shape_of(sample["lips"])
        vision = None
        if truth.heard is not None:
            assert self.evaluator.syncnet is not None
            vision = self.evaluator.see(lower_halves(self.evaluator.syncnet, faces))
        return self._spoken(sample, vision, held.sound)


def lse_inputs(
    pairs: Iterable[tuple[Float[Tensor, "n d"], Float[Tensor, "m d"]]],
) -> Sample:
    """The inputs of LSE of pictures and sounds as SyncNet v2 embeds them; none of none."""
    given = list(pairs)
    return {"lse_curves": middle_of(wide_curves(given))} if given else {}


def measures_sync(metric: Metric) -> bool:
    """Whether any of its figures must be worse with another sound."""
    return any(figure.sync is not None for figure in figures_of({"": metric}))


def truth_of_synthetic(spoken: Spoken, *, evaluator: Evaluator) -> Truth:
    """The truth of a drawn clip, encoded once."""
    example, faces = spoken.example, spoken.truth
    voice = example.voice
    num_frames = min(len(faces), len(voice.truth))
    sample: Sample = {"driving": voice.truth[:num_frames]}
    if evaluator.reader is not None:
        sample["reading"] = evaluator.read(faces[:num_frames])
    points = None
    if spoken.found is not None:
        lips = lips_of(spoken.found)
        sample |= by_landmarks(lips, lips)
        points = points_in_aligned(spoken.found, faces.shape[1])
    faces = faces[:num_frames]
    can_hear = evaluator.can_hear(num_frames)
    heard = evaluator.embed(faces, voice.mel) if can_hear else None
    return Truth(example.name, example.source, sample, faces, points, heard)


def voice_of_synthetic(spoken: Spoken, *, evaluator: Evaluator) -> OtherVoice:
    """The voice that the source of a drawn clip is dubbed with."""
    voice, lips = spoken.driver.voice, spoken.driver_lips
    tracks = {"driving": voice.truth}
    if lips is not None:
        tracks |= {"driving_lips": lips, "driving_landmarks": shape_of(lips)}
    num_frames = len(voice.truth)
    can_hear = evaluator.can_hear(num_frames)
    return OtherVoice(tracks, evaluator.hear(voice.mel, num_frames) if can_hear else None)
