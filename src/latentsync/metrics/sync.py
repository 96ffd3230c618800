"""Audio-visual sync scored by our StableSyncNet; not comparable with LSE.

Embeddings of frame windows are compared with audio embeddings at every shift. Nothing is padded:
shifts beyond the clip are ignored.
"""

from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from math import isnan

import torch
from jaxtyping import Float, Int
from torch import Tensor

from latentsync.metrics.base import ClipRows, Figure

MAX_SHIFT = 15
SMALLEST_OFF = 4
# A SyncNet that works on such faces exceeds one of these on clips with their own sound: lead of the
# best shift, or P(in sync > off). Measured with the demo's SyncNet: 24 unseen synthetic clips give
# .45-.66 and .98-1, 56 segments of 45 recorded files .01-.22 and .34-.61.
LEAD = 0.3
SHARE = 0.75
NOT_VALID = "not valid here"
NEAR_OFFSET = 1
SOURCE = "StableSyncNet (arXiv 2412.09262); offset and lead: Chung and Zisserman 2016"


@dataclass(frozen=True, slots=True)
class SyncScore:
    """In-sync cosine, offset in frames, lead of the best shift, and P(in sync > off)."""

    score: float
    offset: int
    confidence: float
    in_over_off: float


def shift_cosines(
    vision: Float[Tensor, "n d"], audio: Float[Tensor, "m d"], starts: Int[Tensor, " n"]
) -> Float[Tensor, "n k"]:
    """Cosine of window `starts[i]` with the sound `shift` frames later, shift = -15..15.

    `audio[j]` belongs to the window that starts at frame j; NaN where the shift is out of range.
    """
    cosines = torch.nn.functional.cosine_similarity(vision[:, None], audio[None], dim=-1)
    columns = starts[:, None] + torch.arange(-MAX_SHIFT, MAX_SHIFT + 1, device=starts.device)
    inside = (columns >= 0) & (columns < len(audio))
    taken = cosines.gather(1, columns.clamp(0, len(audio) - 1))
    return taken.masked_fill(~inside, float("nan"))


def sync_score(
    vision: Float[Tensor, "n d"], audio: Float[Tensor, "m d"], starts: Int[Tensor, " n"]
) -> SyncScore:
    """The clip's score; a positive offset means that the sound leads the picture.

    Signs and confidence (best shift minus median over shifts) as in joonson/syncnet_python.
    """
    return score_of(shift_cosines(vision, audio, starts))


def score_of(cosines: Float[Tensor, "n k"]) -> SyncScore:
    """The score from the windows' cosines at all shifts, as returned by `shift_cosines`."""
    curve = cosines.nanmean(dim=0)
    best = int(torch.where(curve.isnan(), -2.0, curve).argmax())
    return SyncScore(
        score=curve[MAX_SHIFT].item(),
        offset=MAX_SHIFT - best,
        confidence=(curve[best] - curve.nanmedian()).item(),
        in_over_off=in_over_off(cosines),
    )


def why_invalid(
    own: Sequence[SyncScore], *, trained_on: str | None, subject: str = "the references"
) -> str | None:
    """Why SyncNet's scores are meaningless here, given its scores of clips with their own sound.

    None if they are valid or cannot be checked.
    """
    scored = [score for score in own if not isnan(score.in_over_off)]
    if not scored:  # all clips are too short for an off-sync shift
        return None
    lead = sum(score.confidence for score in scored) / len(scored)
    share = sum(score.in_over_off for score in scored) / len(scored)
    if lead >= LEAD or share >= SHARE:
        return None
    learnt = "" if trained_on is None else f", which learnt from {trained_on} faces,"
    return (
        f"{NOT_VALID}: SyncNet{learnt} cannot tell the own sound of {subject} from others "
        f"(P(in>off) {share:.2f}, lead {lead:.2f}; where it can, {SHARE:g} or {LEAD:g} and more). "
        "It does not know such faces, or their sound is not their own"
    )


def in_over_off(cosines: Float[Tensor, "n k"]) -> float:
    """P(cosine in sync > cosine of the same window with the sound >= 4 frames away)."""
    shifts = torch.arange(-MAX_SHIFT, MAX_SHIFT + 1, device=cosines.device)
    off = cosines[:, shifts.abs() >= SMALLEST_OFF]
    wins = (cosines[:, MAX_SHIFT : MAX_SHIFT + 1] > off)[~off.isnan()]
    return wins.float().mean().item()


class SyncFigures(ClipRows):
    """Means of the clips' scores, and the median offset."""

    needs = frozenset({"sync_cosines"})
    figures = (
        Figure("sync", "sync score", "cosine", "higher", -1.0, 1.0, SOURCE, sync="timed"),
        Figure("offset_near", "offset within 1", "share of clips", "higher", 0.0, 1.0, SOURCE,
               "{:.0%}", sync="timed"),
        Figure("in_over_off", "P(in>off)", "probability", "higher", 0.0, 1.0, SOURCE, sync="timed"),
        Figure("sync_confidence", None, "cosine", "higher", 0.0, 2.0, SOURCE, sync="free"),
        Figure("offset", None, "frames", "0", -MAX_SHIFT, MAX_SHIFT, SOURCE, average="median"),
    )  # fmt: skip

    @property
    def width(self) -> int:
        return len(fields(SyncScore))

    def update(self, sync_cosines: Float[Tensor, "n k"]) -> None:
        """Add one clip."""
        self.add_rows(torch.tensor([astuple(score_of(sync_cosines))], dtype=torch.float64))

    def scores(self) -> list[SyncScore]:
        """The scores of the clips so far."""
        return [
            SyncScore(score, int(offset), confidence, in_over_off)
            for score, offset, confidence, in_over_off in self.table().tolist()
        ]

    def compute(self) -> dict[str, float]:
        """The figures by key."""
        scores, offsets, leads, shares = self.table().T
        return {
            "sync": scores.nanmean().item(),
            "sync_confidence": leads.nanmean().item(),
            "in_over_off": shares.nanmean().item(),
            "offset_near": (offsets.abs() <= NEAR_OFFSET).double().mean().item(),
            "offset": offsets.nanmedian().item(),
        }
