"""What an active-speaker network makes of aligned faces and their sound."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from latentsync.evaluation.evaluator import Evaluator, Faces
from latentsync.evaluation.single_thread import single_thread
from latentsync.metrics.base import Sample
from latentsync.models.speaker_scorers import (
    SCORE_SLOTS,
    LRASDScorer,
    film_of_faces,
    heard_slots,
    moving_mean,
)

MIN_HEARD = 25  # slots of 40 ms: less speech tells nothing


@single_thread()
def speaker_scores(
    scorer: LRASDScorer, faces: Faces, waveform: Float[Tensor, " t"], *, fps: float
) -> Float[Tensor, " n"] | None:
    """The logits of the slots in which something is heard; None if too little is."""
    film = film_of_faces(list(faces), waveform, fps=fps)
    heard = heard_slots(film.waveform, len(film))
    if heard.sum() < MIN_HEARD:
        return None
    (scores,) = scorer(film)
    return torch.from_numpy(moving_mean(scores, SCORE_SLOTS)[heard])


def add_speaker(
    samples: Mapping[str, Sample],
    notes: dict[str, str],
    evaluator: Evaluator,
    faces: Mapping[str, Faces],
    waveforms: Mapping[str, Float[Tensor, " t"]],
    *,
    num_frames: int,
) -> None:
    """Add the logits of the videos that have sound, or a note why there are none."""
    if evaluator.speaker is None:
        return
    fps = evaluator.model_format.fps
    for name, waveform in waveforms.items():
        if len(faces[name]) < num_frames:
            notes["speaker"] = (
                f"no active speaker: only {len(faces[name])} of {num_frames} frames of the "
                "reference show a face"
            )
            return
        scores = speaker_scores(evaluator.speaker, faces[name], waveform, fps=fps)
        if scores is None:
            notes["speaker"] = f"no active speaker: less than {MIN_HEARD / fps:g} s are heard"
        else:
            samples[name]["speaker_scores"] = scores
