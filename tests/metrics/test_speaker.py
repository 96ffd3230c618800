"""The alarm of an active-speaker network: means, shares, and where it means nothing."""

import pytest
import torch

from latentsync.metrics.speaker import ALARM_BELOW, ActiveSpeaker, why_invalid


def test_the_figures_are_the_mean_and_the_share_of_clips_below_the_limit() -> None:
    metric = ActiveSpeaker()
    for scores in ([3.0, 5.0], [1.0, 2.0, 3.0], [4.0], [ALARM_BELOW, ALARM_BELOW]):
        metric.update(torch.tensor(scores))
    figures = metric.compute()
    assert figures["speaker"] == pytest.approx((4 + 2 + 4 + ALARM_BELOW) / 4)
    assert figures["speaker_alarm"] == 0.25
    assert metric.scores() == [4, 2, 4, ALARM_BELOW]


@pytest.mark.parametrize(
    ("own", "synthetic", "valid"),
    [
        ([4.0, 4.0, 4.0, 4.0], False, True),
        ([1.0, 4.0, 4.0, 4.0], False, True),
        ([1.0, 1.0, 4.0, 4.0], False, False),
        ([1.0, 1.0, 1.0], False, True),
        ([4.0, 4.0, 4.0, 4.0], True, False),
    ],
)
def test_it_is_not_valid_on_drawn_faces_nor_where_own_sounds_raise_it(
    own: list[float], synthetic: bool, valid: bool
) -> None:
    reason = why_invalid(own, synthetic=synthetic)
    assert (reason is None) == valid
    assert reason is None or reason.startswith("not valid here")
