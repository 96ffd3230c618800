"""What the drawn truth beside videos and voices adds to the inputs of a pair."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from latentsync.data.synthetic import read_truth
from latentsync.evaluation.cut_alike import Alike
from latentsync.evaluation.evaluator import Evaluator
from latentsync.evaluation.pairs import Pair
from latentsync.evaluation.setting import CROSS
from latentsync.metrics.base import Sample
from latentsync.metrics.correlation import TRAITS

SYNTHETIC_INPUTS = ("reading", "driving")


def add_synthetic(
    samples: Mapping[str, Sample], pair: Pair, alike: Alike, evaluator: Evaluator
) -> Sample:
    """Add readings of both mouths and what their voices want; returns the tracks of the voice.

    Nothing is added to pairs without drawn truth, or where a frame shows no face: frames and truth
    would no longer be aligned.
    """
    own = synthetic_mouth(pair.ref)
    voice = own if pair.voice is None else synthetic_mouth(pair.voice)
    if own is None or voice is None or evaluator.reader is None:
        return {}
    if len(alike.ref) < len(alike.lips):
        return {}
    num_frames = min(len(alike.ref), len(own), len(voice))
    faces = {"pred": alike.pred, "ref": alike.ref}
    wanted = {"pred": voice, "ref": own}
    for name, sample in samples.items():
        sample["reading"] = evaluator.read(faces[name][:num_frames])
        sample["driving"] = wanted[name][:num_frames]
    if pair.setting == CROSS:
        samples["pred"]["own"] = own[:num_frames]
    return {"driving": voice[:num_frames]}


def is_synthetic(path: Path) -> bool:
    """Whether a video or a voice was drawn: what was drawn is written beside it."""
    return path.with_name(f"{path.stem}.truth.npz").is_file()


def synthetic_mouth(path: Path) -> Float[Tensor, "f 4"] | None:
    """The mouth that was drawn for a video or a voice; None if it was not drawn."""
    if not is_synthetic(path):
        return None
    truth = read_truth(path)
    columns = [torch.as_tensor(np.asarray(truth[name])).float() for name in TRAITS]
    return torch.stack(columns, dim=-1)
