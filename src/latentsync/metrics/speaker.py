"""A coarse alarm by an active-speaker network: a face that does not seem to speak its sound.

It is no measure of sync. On nine talking heads of 3.84 s the own sound never raised it, another
head's did in 31 of 72 pairs, and the own sound 400 ms off in 4 of 18; the limit was set on these.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from latentsync.metrics.base import ClipRows, Figure
from latentsync.metrics.sync import NOT_VALID

# Mean logit of what is heard; own sounds of the nine heads had 3.0 to 4.7.
ALARM_BELOW = 2.5
# If half of as many clips raise it with their own sound, the network does not know such faces.
MIN_CLIPS, SHARE_ALARMED = 4, 0.5
SOURCE = "LR-ASD (Liao et al. 2025), pretrain_AVA"


class ActiveSpeaker(ClipRows):
    """The mean logit that a face speaks what is heard, and the share of clips below the limit."""

    needs = frozenset({"speaker_scores"})
    figures = (
        Figure("speaker", "active speaker", "logit", "higher", -torch.inf, torch.inf, SOURCE,
               "{:.2f}"),
        Figure("speaker_alarm", "speaker alarm", "share of clips", "0", 0.0, 1.0,
               f"here: logit < {ALARM_BELOW:g}; coarse, no measure of sync", "{:.0%}"),
    )  # fmt: skip

    def update(self, speaker_scores: Float[Tensor, " n"]) -> None:
        """Add one clip: the logits of the slots of 40 ms in which something is heard."""
        score = speaker_scores.double().mean()
        self.add_rows(torch.stack([score, (score < ALARM_BELOW).double()])[None])

    def scores(self) -> list[float]:
        """The mean logit of every clip."""
        return self.table()[:, 0].tolist()


def why_invalid(own: Sequence[float], *, synthetic: bool) -> str | None:
    """Why the alarm means nothing here, given the references' logits with their own sound."""
    if synthetic:
        return f"{NOT_VALID}: the active-speaker network was made for filmed faces, not drawn ones"
    alarmed = sum(score < ALARM_BELOW for score in own)
    if len(own) < MIN_CLIPS or alarmed < SHARE_ALARMED * len(own):
        return None
    return (
        f"{NOT_VALID}: the active-speaker network raises its alarm in {alarmed} of {len(own)} "
        "references with their own sound. It does not know such faces, or the sound is not theirs"
    )
