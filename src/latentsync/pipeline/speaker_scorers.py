"""How much each face of a video speaks in every slot: by LR-ASD, or by mouths and loudness.

Scorers look at a video on a grid of 25 slots a second of its own clock: slot k is what is on screen
at (k + 1/2) / 25 seconds, and heard from k / 25 to (k + 1) / 25.
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

# Pictures of rising numbers of stored frames.
ReadPictures = Callable[[Sequence[int]], Iterator[Picture]]


# Side of the square that LR-ASD sees over the longer side of the face's box.
CROP_SCALE = 1.2
STEADY_SLOTS = 13  # a box is the median over so many
OUTSIDE_LEVEL = 110
# Faces are seen so many slots at a time, 6 s, and the recurrent network starts anew with each: over
# longer stretches its scores drift.
PIECE_SLOTS = 150
SCORE_SLOTS = 5
MAX_SCORE = 4.0

# Mouths without weights. An opening is the gap of the lips over the distance of the eyes; where it
# spreads by this much over half a second, moving and still mouths of real people part.
SPREAD_SLOTS, STILL_SPREAD = 13, 0.012
MAX_MOTION = 1.5  # who opens the mouth wider does not speak more
FIT_SLOTS, FIT_WEIGHT, MAX_LAG_SLOTS = 75, 2.0, 5
# Foreign sound fits n slots of a mouth, at the best lag, by about this over the root of n.
FOREIGN_FIT = 1.8
FLOOR_DB, MIN_RANGE_DB = -60.0, 1.0
MIN_SLOTS = 12
SILENT_SCORE, UNKNOWN_SCORE = -2.0, -4.0


@dataclass(frozen=True, slots=True)
class FaceSlots:
    """A track from slot `first` on: boxes without gaps, openings NaN where nobody knows them."""

    person: int
    first: int
    boxes: Float[np.ndarray, "n 4"]
    openings: Float[np.ndarray, " n"]

    @property
    def end(self) -> int:
        return self.first + len(self.boxes)


@dataclass(frozen=True, slots=True)
class FilmSlots:
    """`numbers` are the stored frames that the slots show; `waveform` is the video's own sound, of
    16 kHz in [-1, 1]; `cuts` marks the first slot of every shot."""

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


def _on_slots(track: Track, numbers: Int[np.ndarray, " n"]) -> FaceSlots | None:
    """The track's slots; None if none of them shows it."""
    first, end = np.searchsorted(numbers, [track.first, track.end]).tolist()
    if first == end:
        return None
    seen = np.flatnonzero(np.isfinite(track.boxes[:, 0]))
    placements = numbers[first:end] - track.first
    boxes = [np.interp(placements, seen, side[seen]) for side in track.boxes.T]
    return FaceSlots(
        track.person, first, np.stack(boxes, axis=1), track.openings[placements].astype(float)
    )


@runtime_checkable
class ActiveSpeakerScorer(Protocol):
    def __call__(self, film: FilmSlots) -> list[Float[np.ndarray, " _"]]:
        """For each of the film's faces a score of every one of its slots: a logit, above 0 where
        it speaks. ValueError where nobody can tell."""


class LRASDScorer:
    """LR-ASD over every face of a film, with the film's own sound; holds 6 s of each face."""

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
        """Score what the buffer holds and no later piece has to see."""
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
    """The crops of a face from its slot `first` on; those before `scored` were scored."""

    def __init__(self) -> None:
        self.crops: list[UInt8[np.ndarray, "112 112"]] = []
        self.scores: list[Float[np.ndarray, " _"]] = []
        self.first = self.scored = 0


def film_cepstra(film: FilmSlots) -> Float32[Tensor, "n 13"]:
    """Four rows a slot; where the sound has ended, silence."""
    num_samples = len(film) * SAMPLES_PER_SLOT + WINDOW - HOP
    sound = film.waveform[:num_samples]
    sound = torch.nn.functional.pad(sound, (0, num_samples - len(sound)))
    return mfcc(sound).float()


def crop_squares(boxes: Float[np.ndarray, "n 4"]) -> Float[np.ndarray, "n 3"]:
    """Middle x, y and half the side of what LR-ASD sees of each box, steadied."""
    sizes = boxes[:, 2:] - boxes[:, :2]
    middles = (boxes[:, :2] + boxes[:, 2:]) / 2
    squares = np.column_stack([middles, CROP_SCALE / 2 * sizes.max(axis=1)])
    padded = np.pad(squares, ((STEADY_SLOTS // 2, STEADY_SLOTS // 2), (0, 0)), mode="edge")
    return np.median(sliding_window_view(padded, STEADY_SLOTS, axis=0), axis=-1)


def cut_square(picture: Picture, square: Float[np.ndarray, "3"]) -> UInt8[np.ndarray, "112 112"]:
    """Grey levels of a square of the picture, which may reach beyond it."""
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
    """Mouths that open and close, and with the loudness; needs no weights and no second look.

    A mouth that is still, or seen for too short to tell, has a score below 0, and everybody where
    the film is silent. It knows less than LR-ASD: of who chews, laughs or mouths along it thinks
    that he speaks.
    """

    def __call__(self, film: FilmSlots) -> list[Float[np.ndarray, " _"]]:
        """ValueError for a film without sound or without mouths."""
        known = [np.isfinite(face.openings) for face in film.faces]
        if not any(each.any() for each in known):
            raise ValueError(
                "faces.select=speaker needs to see mouths open, which this detector's points do "
                "not tell: take faces=mesh, or name a person (faces.select=0; plan=true lists them)"
            )
        levels = levels_db(film.waveform, SAMPLE_RATE)
        loud, silent = _of_slots(levels, len(film)), _of_slots(_silent(levels), len(film)) > 0.5
        if silent.all() or np.ptp(loud) < MIN_RANGE_DB or max(map(np.sum, known)) < MIN_SLOTS:
            raise ValueError(
                "faces.select=speaker cannot tell who speaks: the video's sound does not change, "
                f"or no mouth is seen in {MIN_SLOTS} slots of 1/25 s; name a person "
                "(faces.select=0; plan=true lists them)"
            )
        return [_motion_scores(face, loud, silent) for face in film.faces]


def _silent(levels: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    return SilenceGate().silent_at(levels).astype(float)


def _of_slots(blocks: Float[np.ndarray, " n"], num_slots: int) -> Float[np.ndarray, " k"]:
    """Means of a slot's blocks of 10 ms; after the end, the last one."""
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
    """How well the mouth goes with the loudness around each slot, at the best lag, less what
    foreign sound would reach there; that is more where fewer slots are seen."""
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
    """Pearson's r over the slots around each; 0 where one of the two does not change."""
    mean_a, mean_b = moving_mean(a, width), moving_mean(b, width)
    both = moving_mean(a * b, width) - mean_a * mean_b
    spread_a, spread_b = moving_mean(a**2, width) - mean_a**2, moving_mean(b**2, width) - mean_b**2
    product = spread_a * spread_b
    return np.where(product > 1e-9, both / np.sqrt(product.clip(min=1e-9)), 0.0)


def moving_mean(values: Float[np.ndarray, " n"], width: int) -> Float[np.ndarray, " n"]:
    """Means over so many neighbours, of those that are there."""
    middle = slice(width // 2, width // 2 + len(values))
    sums = np.convolve(values, np.ones(width))[middle]
    return sums / np.convolve(np.ones(len(values)), np.ones(width))[middle]


def score_matrix(
    faces: Sequence[FaceSlots],
    scores: Sequence[Float[np.ndarray, " _"]],
    persons: Sequence[int],
    num_slots: int,
) -> Float[np.ndarray, "n p"]:
    """A column for every person: their scores, steadied, and -inf where they are not on screen."""
    matrix = np.full((num_slots, len(persons)), -np.inf)
    for face, of_face in zip(faces, scores, strict=True):
        column = matrix[face.first : face.end, persons.index(face.person)]
        steady = moving_mean(of_face, SCORE_SLOTS).clip(-MAX_SCORE, MAX_SCORE)
        np.maximum(column, steady, out=column)
    return matrix
