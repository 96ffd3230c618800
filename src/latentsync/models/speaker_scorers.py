"""Score how likely each face of a video speaks in every slot: with LR-ASD, or by mouth motion and
loudness.

Scorers use a grid of 25 slots per second of the video: slot k shows the picture at (k + 1/2) / 25
seconds, and its sound is from k / 25 to (k + 1) / 25.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int, UInt8
from numpy.lib.stride_tricks import sliding_window_view
from torch import Tensor

from latentsync.faces.tracking.survey import Survey, Track
from latentsync.media.audio import SAMPLE_RATE
from latentsync.media.frame import Picture
from latentsync.media.frame_reader import FrameTimes
from latentsync.media.mfcc import HOP, WINDOW, mfcc
from latentsync.media.silence import BLOCK_SECONDS, SilenceGate, levels_db
from latentsync.models.lr_asd import LRASD, REACH, ROWS_PER_FRAME, SIDE, SPEAKING

SLOTS_PER_SECOND = 25
SAMPLES_PER_SLOT = SAMPLE_RATE // SLOTS_PER_SECOND

# Numbers of stored frames, ascending => their pictures.
ReadPictures = Callable[[Sequence[int]], Iterator[Picture]]


# Side of LR-ASD's square crop, relative to the longer side of the face's box.
CROP_SCALE = 1.2
STEADY_SLOTS = 13  # boxes are smoothed by a median of this width
OUTSIDE_LEVEL = 110
ROUNDING = 1e-6  # pixels: the crop's edge is rounded down
# Slots per piece, 6 s; the recurrent network restarts with each piece, because over longer
# stretches its scores drift.
PIECE_SLOTS = 150
SCORE_SLOTS = 5
MAX_SCORE = 4.0

# Scoring without a network. The opening of a mouth is the gap of the lips over the distance of the
# eyes; this standard deviation over half a second separates moving from still mouths of real
# people.
SPREAD_SLOTS, STILL_SPREAD = 13, 0.012
MAX_MOTION = 1.5  # opening the mouth wider does not mean speaking more
FIT_SLOTS, FIT_WEIGHT, MAX_LAG_SLOTS = 75, 2.0, 5
# Unrelated sound correlates with n slots of a mouth, at the best lag, by about this over sqrt(n).
FOREIGN_FIT = 1.8
FLOOR_DB, MIN_RANGE_DB = -60.0, 1.0
MIN_SLOTS = 12
SILENT_SCORE, UNKNOWN_SCORE = -2.0, -4.0


@dataclass(frozen=True, slots=True)
class FaceSlots:
    """A track from slot `first` on: boxes without gaps, openings with NaN where unknown."""

    person: int
    first: int
    boxes: Float[np.ndarray, "n 4"]
    openings: Float[np.ndarray, " n"]

    @property
    def end(self) -> int:
        return self.first + len(self.boxes)


@dataclass(frozen=True, slots=True)
class FilmSlots:
    """`numbers` are the stored frames shown in each slot; `waveform` is the video's own sound, 16
    kHz in [-1, 1]; `cuts` marks the first slot of every shot."""

    numbers: Int[np.ndarray, " n"]
    cuts: Bool[np.ndarray, " n"]
    faces: list[FaceSlots]
    waveform: Float[Tensor, " t"]
    read: ReadPictures

    def __len__(self) -> int:
        return len(self.numbers)

    @classmethod
    def of(
        cls,
        survey: Survey,
        times: FrameTimes,
        waveform: Float[Tensor, " t"],
        read: ReadPictures,
    ) -> "FilmSlots":
        num_slots = max(1, round(times.seconds * SLOTS_PER_SECOND))
        middles = (np.arange(num_slots) + 0.5) / SLOTS_PER_SECOND
        starts = times.starts * float(times.time_base)
        numbers = (np.searchsorted(starts, middles, side="right") - 1).clip(0)
        firsts = np.array([shot.first for shot in survey.shots])
        shots = np.searchsorted(firsts, numbers, side="right")
        cuts = np.diff(shots, prepend=shots[:1] - 1) != 0
        faces = [_on_slots(track, numbers) for track in survey.tracks]
        return cls(numbers, cuts, [face for face in faces if face is not None], waveform, read)


def film_of_faces(
    faces: Sequence[UInt8[np.ndarray, "r r 3"]],
    waveform: Float[Tensor, " t"],
    *,
    fps: float,
    openings: Float[np.ndarray, " f"] | None = None,
) -> FilmSlots:
    """An aligned clip as scorers take it: one face, as large as the picture."""
    num_slots = max(1, round(len(faces) / fps * SLOTS_PER_SECOND))
    middles = (np.arange(num_slots) + 0.5) / SLOTS_PER_SECOND
    numbers = (middles * fps).astype(int).clip(max=len(faces) - 1)

    def read(wanted: Sequence[int]) -> Iterator[Picture]:
        return (Picture.of(faces[number]) for number in wanted)

    boxes = np.tile(whole_box(faces[0].shape[0]), (num_slots, 1))
    known = np.full(num_slots, np.nan) if openings is None else openings[numbers]
    face = FaceSlots(0, 0, boxes, known)
    return FilmSlots(numbers, np.arange(num_slots) == 0, [face], waveform, read)


def whole_box(size: int) -> Float[np.ndarray, "4"]:
    """The box whose crop is the whole aligned face."""
    half = (size / 2 - ROUNDING) / CROP_SCALE
    return np.array([size / 2 - half, size / 2 - half, size / 2 + half, size / 2 + half])


def _on_slots(track: Track, numbers: Int[np.ndarray, " n"]) -> FaceSlots | None:
    """The track's slots; None if no slot shows it."""
    first, end = np.searchsorted(numbers, [track.first, track.end]).tolist()
    if first == end:
        return None
    seen = np.flatnonzero(np.isfinite(track.boxes[:, 0]))
    placements = numbers[first:end] - track.first
    boxes = [np.interp(placements, seen, side[seen]) for side in track.boxes.T]
    return FaceSlots(
        track.person, first, np.stack(boxes, axis=1), track.openings[placements].astype(float)
    )


class Undecided(ValueError):
    """Nothing in a film tells who speaks."""


@runtime_checkable
class ActiveSpeakerScorer(Protocol):
    def __call__(self, film: FilmSlots) -> list[Float[np.ndarray, " _"]]:
        """For each face of the film, a score for each of its slots: a logit, above 0 if it is
        speaking. Undecided if this cannot be determined."""


class LRASDScorer:
    """LR-ASD on every face of a film with the film's own sound; holds 6 s of each face in
    memory."""

    def __init__(self, net: LRASD, *, device: torch.device | str = "cpu") -> None:
        self.net, self.device = net.to(device).eval(), torch.device(device)

    @torch.inference_mode()
    def __call__(self, film: FilmSlots) -> list[Float[np.ndarray, " _"]]:
        cepstra = film_cepstra(film)
        squares = [crop_squares(face.boxes) for face in film.faces]
        seen = [_Buffer() for _ in film.faces]
        here = np.zeros(len(film), dtype=bool)
        for face in film.faces:
            here[face.first : face.end] = True
        slots = np.flatnonzero(here)
        pictures = film.read(film.numbers[slots].tolist())
        for slot, picture in zip(slots.tolist(), pictures, strict=True):
            for face, square, buffer in zip(film.faces, squares, seen, strict=True):
                if face.first <= slot < face.end:
                    buffer.crops.append(cut_square(picture, square[slot - face.first]))
                    if self._is_due(buffer, face):
                        self._hear(buffer, face, cepstra)
        return [np.concatenate(buffer.scores) for buffer in seen]

    def _is_due(self, buffer: "_Buffer", face: FaceSlots) -> bool:
        num_seen = buffer.first + len(buffer.crops)
        ends = num_seen == len(face.boxes)
        return ends or num_seen == buffer.scored + PIECE_SLOTS + REACH

    def _hear(self, buffer: "_Buffer", face: FaceSlots, cepstra: Float32[Tensor, "n 13"]) -> None:
        """Score the slots in the buffer, and drop those that later pieces do not need as
        context."""
        num_seen = buffer.first + len(buffer.crops)
        ends = num_seen == len(face.boxes)
        first, end = buffer.scored, num_seen if ends else num_seen - REACH
        rows = cepstra[
            (face.first + buffer.first) * ROWS_PER_FRAME : (face.first + num_seen) * ROWS_PER_FRAME
        ]
        crops = torch.from_numpy(np.stack(buffer.crops)).to(self.device).float()
        heard = self.net.encode_audio(rows[None].to(self.device))
        shown = self.net.encode_pictures(crops[None])
        new = slice(first - buffer.first, end - buffer.first)
        logits = self.net.classify(heard[:, new], shown[:, new])
        buffer.scores.append(logits[0, :, SPEAKING].float().cpu().numpy().astype(float))
        keep_from = max(end - REACH, buffer.first)
        buffer.crops = buffer.crops[keep_from - buffer.first :]
        buffer.first, buffer.scored = keep_from, end


class _Buffer:
    """Crops of a face from its slot `first` on; those before `scored` have been scored."""

    def __init__(self) -> None:
        self.crops: list[UInt8[np.ndarray, "112 112"]] = []
        self.scores: list[Float[np.ndarray, " _"]] = []
        self.first = self.scored = 0


def film_cepstra(film: FilmSlots) -> Float32[Tensor, "n 13"]:
    """Cepstral coefficients, four rows per slot; silence after the end of the sound."""
    num_samples = len(film) * SAMPLES_PER_SLOT + WINDOW - HOP
    sound = film.waveform[:num_samples]
    sound = torch.nn.functional.pad(sound, (0, num_samples - len(sound)))
    return mfcc(sound).float()


def crop_squares(boxes: Float[np.ndarray, "n 4"]) -> Float[np.ndarray, "n 3"]:
    """Centre x, y and half the side of LR-ASD's crop for each box, smoothed."""
    sizes = boxes[:, 2:] - boxes[:, :2]
    middles = (boxes[:, :2] + boxes[:, 2:]) / 2
    squares = np.column_stack([middles, CROP_SCALE / 2 * sizes.max(axis=1)])
    padded = np.pad(squares, ((STEADY_SLOTS // 2, STEADY_SLOTS // 2), (0, 0)), mode="edge")
    return np.median(sliding_window_view(padded, STEADY_SLOTS, axis=0), axis=-1)


def cut_square(picture: Picture, square: Float[np.ndarray, "3"]) -> UInt8[np.ndarray, "112 112"]:
    """Grey levels of a square of the picture, which may extend beyond it."""
    x, y, half = square
    low = np.floor([x - half, y - half]).astype(int)
    side = max(round(2 * half), 1)
    height, width = picture.shape[:2]
    x0, y0 = np.clip(low, 0, (width, height)).tolist()
    x1, y1 = np.clip(low + side, 0, (width, height)).tolist()
    grey = np.full((side, side), OUTSIDE_LEVEL, dtype=np.uint8)
    if x0 < x1 and y0 < y1:
        part = cv2.cvtColor(picture.rgb((x0, y0, x1, y1)), cv2.COLOR_RGB2GRAY)
        grey[y0 - low[1] : y1 - low[1], x0 - low[0] : x1 - low[0]] = part
    return cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)


class MouthMotionScorer:
    """Scores mouths that open and close in correlation with the loudness; needs neither a network
    nor a second pass.

    Scores are below 0 for mouths that are still or seen too briefly, and for all faces while the
    film is silent. Less accurate than LR-ASD: chewing, laughing or silent mouthing count as speech.
    """

    def __call__(self, film: FilmSlots) -> list[Float[np.ndarray, " _"]]:
        """Undecided for films without sound or without measured mouths."""
        known = [np.isfinite(face.openings) for face in film.faces]
        if not any(each.any() for each in known):
            raise Undecided(
                "faces.select=speaker needs to see mouths open, which this detector's points do "
                "not tell: take faces=mesh, or name a person (faces.select=0; plan=true lists them)"
            )
        levels = levels_db(film.waveform, SAMPLE_RATE)
        loud, silent = _of_slots(levels, len(film)), ~heard_slots(film.waveform, len(film))
        if silent.all() or np.ptp(loud) < MIN_RANGE_DB or max(map(np.sum, known)) < MIN_SLOTS:
            raise Undecided(
                "faces.select=speaker cannot tell who speaks: the video's sound does not change, "
                f"or no mouth is seen in {MIN_SLOTS} slots of 1/25 s; name a person "
                "(faces.select=0; plan=true lists them)"
            )
        return [_motion_scores(face, loud, silent) for face in film.faces]


def heard_slots(waveform: Float[Tensor, " t"], num_slots: int) -> Bool[np.ndarray, " k"]:
    """The slots that are not silent."""
    silent = SilenceGate().silent_at(levels_db(waveform, SAMPLE_RATE))
    return _of_slots(silent.astype(float), num_slots) <= 0.5


def _of_slots(blocks: Float[np.ndarray, " n"], num_slots: int) -> Float[np.ndarray, " k"]:
    """Means of each slot's 10 ms blocks; the last block is repeated after the end."""
    per_slot = round(1 / SLOTS_PER_SECOND / BLOCK_SECONDS)
    missing = max(num_slots * per_slot - len(blocks), 0)
    padded = np.pad(blocks, (0, missing), mode="edge")[: num_slots * per_slot]
    return padded.reshape(num_slots, per_slot).mean(axis=1)


def _motion_scores(
    face: FaceSlots, loud: Float[np.ndarray, " k"], silent: Bool[np.ndarray, " k"]
) -> Float[np.ndarray, " n"]:
    known = np.isfinite(face.openings)
    if known.sum() < MIN_SLOTS:
        return np.full(len(known), UNKNOWN_SCORE)
    openings = np.interp(np.arange(len(known)), np.flatnonzero(known), face.openings[known])
    mean = moving_mean(openings, SPREAD_SLOTS)
    spread = np.sqrt((moving_mean(openings**2, SPREAD_SLOTS) - mean**2).clip(min=1e-8))
    moves = np.log(spread / STILL_SPREAD).clip(max=MAX_MOTION)
    scores = moves + FIT_WEIGHT * loudness_fit(openings, loud, face.first)
    heard = ~silent[face.first : face.end]
    return np.where(heard, scores, np.minimum(scores, SILENT_SCORE))


def loudness_fit(
    openings: Float[np.ndarray, " n"], loud: Float[np.ndarray, " k"], first: int
) -> Float[np.ndarray, " n"]:
    """Correlation of the mouth with the loudness around each slot, at the best lag, minus what
    unrelated sound would reach there, which is more the fewer slots are seen."""
    placements = np.arange(len(openings)) + first
    best = np.full(len(openings), -1.0)
    for lag in range(-MAX_LAG_SLOTS, MAX_LAG_SLOTS + 1):
        level = loud[(placements + lag).clip(0, len(loud) - 1)].clip(min=FLOOR_DB)
        best = np.maximum(best, local_correlation(openings, level, FIT_SLOTS))
    num_seen = np.convolve(np.ones(len(openings)), np.ones(FIT_SLOTS))[FIT_SLOTS // 2 :]
    return best - FOREIGN_FIT / np.sqrt(num_seen[: len(openings)])


def local_correlation(
    a: Float[np.ndarray, " n"], b: Float[np.ndarray, " n"], width: int
) -> Float[np.ndarray, " n"]:
    """Pearson's r over a window around each slot; 0 if either signal is constant."""
    mean_a, mean_b = moving_mean(a, width), moving_mean(b, width)
    both = moving_mean(a * b, width) - mean_a * mean_b
    spread_a, spread_b = moving_mean(a**2, width) - mean_a**2, moving_mean(b**2, width) - mean_b**2
    product = spread_a * spread_b
    return np.where(product > 1e-9, both / np.sqrt(product.clip(min=1e-9)), 0.0)


def moving_mean(values: Float[np.ndarray, " n"], width: int) -> Float[np.ndarray, " n"]:
    """Moving mean, over fewer values at the ends."""
    middle = slice(width // 2, width // 2 + len(values))
    sums = np.convolve(values, np.ones(width))[middle]
    return sums / np.convolve(np.ones(len(values)), np.ones(width))[middle]


def score_matrix(
    faces: Sequence[FaceSlots],
    scores: Sequence[Float[np.ndarray, " _"]],
    persons: Sequence[int],
    num_slots: int,
) -> Float[np.ndarray, "n p"]:
    """One column of smoothed scores per person, -inf where they are not on screen."""
    matrix = np.full((num_slots, len(persons)), -np.inf)
    for face, of_face in zip(faces, scores, strict=True):
        column = matrix[face.first : face.end, persons.index(face.person)]
        steady = moving_mean(of_face, SCORE_SLOTS).clip(-MAX_SCORE, MAX_SCORE)
        np.maximum(column, steady, out=column)
    return matrix
