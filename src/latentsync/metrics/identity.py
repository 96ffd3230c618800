"""Whether the face is still that of the same person: cosines of embeddings of faces (CSIM)."""

from jaxtyping import Float
from torch import Tensor

from latentsync.metrics.base import Figure, MeanOverClips

SOURCE = "cosine of face embeddings; faces=yunet: SFace (Zhong et al. 2021)"


class IdentitySimilarity(MeanOverClips):
    """CSIM: the mean cosine with the face in the same frames of the reference.

    In the row of the references: with the same person half a clip away, which is the most.
    """

    needs = frozenset({"identity"})
    figures = (Figure("csim", "CSIM", "cosine", "higher", -1.0, 1.0, SOURCE),)

    def update(self, identity: Float[Tensor, " n"]) -> None:
        """Add one clip."""
        self.add(identity.nanmean()[None])


class OtherIdentity(MeanOverClips):
    """The mean cosine with another speaker's face: the lower control of CSIM."""

    needs = frozenset({"other_identity"})
    figures = (
        Figure("csim_other", "CSIM, another person", "cosine", "-", -1.0, 1.0, SOURCE),
    )  # fmt: skip

    def update(self, other_identity: Float[Tensor, " n"]) -> None:
        """Add one clip."""
        self.add(other_identity.nanmean()[None])
