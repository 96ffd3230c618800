"""CSIM from vectors whose cosines are known."""

import numpy as np
import pytest
import torch

from latentsync.evaluation.identity import STRIDE, Identities
from latentsync.faces import Face
from latentsync.metrics.identity import IdentitySimilarity, OtherIdentity

FACE = Face(np.array([0.0, 0, 8, 8]), np.zeros((5, 2)), 1.0, "five")


class ByColour:
    """The colour of a picture as its embedding; black has none."""

    limit = 1.0
    cache_key = "colour"

    def __call__(self, frame: np.ndarray, face: Face) -> np.ndarray | None:
        return frame[0, 0].astype(float) if frame.any() else None


def picture(*colour: int) -> np.ndarray:
    return np.full((8, 8, 3), colour, np.uint8)


def looked(pairs: list[tuple[np.ndarray, np.ndarray]]) -> Identities:
    identities = Identities(ByColour())
    for pred, ref in pairs:
        for _ in range(STRIDE):
            identities.look(pred, ref, FACE)
    return identities


def test_the_cosine_with_the_same_frame_and_its_two_controls() -> None:
    red, green, mixed = picture(9, 0, 0), picture(0, 9, 0), picture(9, 9, 0)
    clip = looked([(red, red), (mixed, red), (green, red), (picture(0, 0, 0), red)])
    samples = clip.samples()
    half = np.sqrt(0.5)
    assert samples["pred"]["identity"].tolist() == pytest.approx([1, half, 0])
    assert samples["ref"]["identity"].tolist() == pytest.approx([1, 1, 1])
    against = clip.against(looked([(green, green)]))
    assert against["other_identity"].tolist() == pytest.approx([0, half, 1])
    # The reference changes in its middle: another person half a clip away.
    changed = looked([(red, red), (red, green)]).samples()
    assert changed["ref"]["identity"].tolist() == pytest.approx([0, 0])


def test_without_a_network_or_a_face_there_is_nothing() -> None:
    nothing = Identities(None)
    nothing.look(picture(1, 1, 1), picture(1, 1, 1), FACE)
    assert nothing.samples() == {"pred": {}, "ref": {}}
    assert nothing.against(nothing) == {}
    one = looked([(picture(1, 0, 0), picture(1, 0, 0))])
    assert one.samples()["ref"] == {}  # nothing is half a clip away
    assert one.against(nothing) == {}


def test_figures_are_means_over_clips_of_means_over_frames() -> None:
    csim, other = IdentitySimilarity(), OtherIdentity()
    for cosines in (torch.tensor([1.0, 0.5]), torch.tensor([0.25])):
        csim.update(identity=cosines)
        other.update(other_identity=-cosines)
    assert csim.compute() == {"csim": 0.5}
    assert other.compute() == {"csim_other": -0.5}
