"""Faces of a result and its reference as embeddings, of every so many frames."""

from dataclasses import dataclass, field
from typing import Self

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn.functional import normalize

from latentsync.faces import Face
from latentsync.faces.detectors.base import IdentityEmbedder
from latentsync.metrics.base import Sample

STRIDE = 10


@dataclass(slots=True)
class Identities:
    """The embeddings of both faces in every `STRIDE`-th frame that shows one; the face of the
    reference is where that of the result is, too."""

    embedder: IdentityEmbedder | None
    pred: list[Float[np.ndarray, " d"]] = field(default_factory=list)
    ref: list[Float[np.ndarray, " d"]] = field(default_factory=list)
    seen: int = 0

    def look(
        self,
        pred: UInt8[np.ndarray, "h w 3"],
        ref: UInt8[np.ndarray, "h2 w2 3"],
        face: Face,
    ) -> None:
        """Embed both faces, if it is the turn of this frame; results may repeat an odd last row."""
        if self.embedder is not None and self.seen % STRIDE == 0:
            both = self.embedder(pred, face), self.embedder(ref, face)
            if both[0] is not None and both[1] is not None:
                self.pred.append(both[0])
                self.ref.append(both[1])
        self.seen += 1

    def samples(self) -> dict[str, Sample]:
        """CSIM's inputs for both rows; none without an embedder."""
        if not self.ref:
            return {"pred": {}, "ref": {}}
        pred, ref = unit(self.pred), unit(self.ref)
        away = ref.roll(len(ref) // 2, dims=0)
        own = {"identity": (ref * away).sum(dim=1)} if len(ref) > 1 else {}
        return {"pred": {"identity": (pred * ref).sum(dim=1)}, "ref": own}

    def against(self, other: Self) -> Sample:
        """Cosines of the result with the mean face of another reference."""
        if not self.pred or not other.ref:
            return {}
        return {"other_identity": unit(self.pred) @ unit([unit(other.ref).mean(dim=0).numpy()])[0]}


def unit(vectors: list[Float[np.ndarray, " d"]]) -> Float[Tensor, "n d"]:
    """Vectors of length one."""
    stacked = torch.from_numpy(np.stack(vectors)).double()
    return normalize(stacked, dim=1)
