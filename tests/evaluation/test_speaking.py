"""The active-speaker alarm in an evaluation: what it is given, and where it is left out."""

from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from latentsync.evaluation.aggregate import Row, why_not_measured
from latentsync.evaluation.control_rows import Truth
from latentsync.evaluation.evaluator import Evaluator
from latentsync.evaluation.folders import Comparison, Measured
from latentsync.evaluation.identity import Identities
from latentsync.evaluation.pairs import Pair
from latentsync.evaluation.setting import CROSS
from latentsync.evaluation.speaking import add_speaker
from latentsync.evaluation.validity import leave_out_invalid_speaker
from latentsync.metrics.speaker import ActiveSpeaker
from latentsync.metrics.sync import NOT_VALID
from latentsync.models.lr_asd import LRASD
from latentsync.models.model_config import ModelFormat
from latentsync.models.speaker_scorers import LRASDScorer

NUM_FRAMES = 50
SIDE = 128


def evaluator(scorer: LRASDScorer | None) -> Evaluator:
    form = ModelFormat(resolution=SIDE, aligner="smooth")
    return Evaluator(form, None, None, None, speaker=scorer)


@pytest.fixture(scope="module")
def scorer() -> LRASDScorer:
    torch.manual_seed(0)
    net = LRASD()
    # Whatever it sees and hears, the face speaks with a logit of 3.
    with torch.no_grad():
        net.head.weight.zero_()
        net.head.bias.copy_(torch.tensor([0.0, 3.0]))
    return LRASDScorer(net)


@pytest.fixture
def faces(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, (NUM_FRAMES, SIDE, SIDE, 3), np.uint8)


def added(
    scorer: LRASDScorer, faces: np.ndarray, sound: torch.Tensor, *, num_frames: int = NUM_FRAMES
) -> tuple[dict, dict]:
    samples: dict[str, dict] = {"pred": {}, "ref": {}}
    notes: dict[str, str] = {}
    add_speaker(
        samples,
        notes,
        evaluator(scorer),
        {"pred": faces, "ref": faces},
        {"pred": sound},
        num_frames=num_frames,
    )
    return samples, notes


def test_each_slot_that_is_heard_has_a_logit(scorer: LRASDScorer, faces: np.ndarray) -> None:
    sound = torch.zeros(640 * NUM_FRAMES)
    first = 640 * 20
    sound[first:] = 0.3 * torch.sin(torch.arange(len(sound) - first) * 0.2)
    samples, notes = added(scorer, faces, sound)
    scores = samples["pred"]["speaker_scores"]
    assert 30 <= len(scores) <= 34
    assert scores.numpy() == pytest.approx(3)
    assert samples["ref"] == {}
    assert notes == {}


def test_a_missing_face_or_a_silent_sound_is_a_note(scorer: LRASDScorer, faces: np.ndarray) -> None:
    silence = torch.zeros(640 * NUM_FRAMES)
    samples, notes = added(scorer, faces, silence)
    assert samples["pred"] == {}
    assert "less than 1 s" in notes["speaker"]
    _, notes = added(scorer, faces, silence, num_frames=NUM_FRAMES + 1)
    assert "only 50 of 51 frames" in notes["speaker"]


def test_on_drawn_faces_every_row_says_that_it_is_not_valid() -> None:
    metrics = {"speaker": ActiveSpeaker()}
    rows = {name: Row(metrics) for name in ("pred", "ref")}
    for name, row in rows.items():
        row.add({"speaker_scores": torch.full((40,), 4.0)}, clip=name, speaker=name)
    assert leave_out_invalid_speaker(rows, rows["ref"], synthetic=False) is None
    assert rows["pred"].summary()["speaker"] == 4
    assert "drawn" in str(leave_out_invalid_speaker(rows, rows["ref"], synthetic=True))
    for row in rows.values():
        assert row.summary()["speaker"] == row.summary()["speaker_alarm"] == NOT_VALID


def test_without_weights_it_is_listed_with_what_to_fetch() -> None:
    metrics = {"speaker": ActiveSpeaker()}
    reason = why_not_measured(metrics, evaluator(None).missing())["speaker"]
    assert "evaluator.lr_asd is null" in reason
    assert "pretrain_AVA.model" in reason


@pytest.mark.parametrize("drawn", [True, False])
def test_a_drawn_reference_is_known_by_what_lies_beside_it(drawn: bool, tmp_path: Path) -> None:
    """Also between two folders, where nothing else of what was drawn is read."""
    if drawn:
        (tmp_path / "ref.truth.npz").touch()
    pair = Pair(tmp_path / "pred.mp4", tmp_path / "ref.mp4")
    comparison = Comparison({"speaker": ActiveSpeaker()}, evaluator(None))
    comparison.controls = Mock(comparison.controls)
    comparison.controls.named_rows.return_value = {}
    scores = {"speaker_scores": torch.full((40,), 4.0)}
    comparison.add(
        Measured(
            pair, {"pred": scores, "ref": scores}, {}, CROSS, Mock(Truth), None, Mock(Identities)
        )
    )
    found = comparison.finish(trained_on=None)
    assert ("speaker_not_valid" in found) is drawn
    assert (comparison.rows["pred"].summary()["speaker"] == NOT_VALID) is drawn
