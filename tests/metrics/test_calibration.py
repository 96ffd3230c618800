"""Calibration metrics against torchmetrics, and with synthetic probabilities."""

import numpy as np
import pytest
import torch
from torchmetrics.classification import BinaryAUROC, BinaryCalibrationError

from latentsync.metrics.calibration import CalibrationCounts


def test_it_agrees_with_torchmetrics_on_as_many_pairs_of_each(generator):
    cosines = torch.rand(400, 400, generator=generator).sqrt()
    off = ~torch.eye(400, dtype=torch.bool)
    calibration = CalibrationCounts()
    # In two parts, like batches.
    parts = slice(0, 200), slice(200, 400)
    for part in parts:
        calibration.update(cosines[part, part], off[part, part])
    values = calibration.compute()
    # The library has no weights: repeat every in-sync pair as often as there are off-sync pairs per
    # window.
    own = cosines.diagonal()
    others = torch.cat([cosines[part, part][off[part, part]] for part in parts])
    everything = torch.cat([own.repeat(199), others])
    labels = torch.cat([torch.ones(400 * 199), torch.zeros(400 * 199)]).long()
    error = BinaryCalibrationError(n_bins=10, norm="l1")(everything, labels).item()
    assert values["calibration_error"] == pytest.approx(error, abs=1e-5)
    accuracy = ((everything > 0.5) == labels.bool()).double().mean().item()
    assert values["accuracy"] == pytest.approx(accuracy, abs=1e-9)


def test_in_above_off_of_two_windows_is_counted_pair_by_pair():
    calibration = CalibrationCounts()
    # 0.95 is above 0.85, but 0.65 is not above 0.75.
    calibration.update(torch.tensor([[0.95, 0.85], [0.75, 0.65]]), ~torch.eye(2, dtype=torch.bool))
    assert calibration.compute() == pytest.approx(
        {
            "cosine_in": 0.8,
            "cosine_off": 0.8,
            "accuracy": 0.5,
            "p_in_above_off": 0.5,
            # One pair in each of four bins, either in sync or not: 1, 0, 0, 1.
            "calibration_error": 0.25 * (0.05 + 0.85 + 0.75 + 0.35),
        },
        abs=1e-6,
    )


def test_a_judge_whose_cosine_is_the_chance_of_sync_is_on_the_diagonal(generator):
    # P(in sync | cosine c) = c if in-sync cosines have density 2c and off-sync ones 2(1 - c).
    num, size = 20_000, 1000
    in_sync = torch.rand(num, generator=generator).sqrt()
    off = 1 - torch.rand(num, generator=generator).sqrt()
    calibration = CalibrationCounts()
    for first in range(0, num, size):
        block = slice(first, first + size)
        # Each window with its own sound, and with that of the next one, which is off sync.
        cosines = torch.diag(in_sync[block]) + torch.diag(off[block]).roll(1, 1)
        calibration.update(cosines, torch.eye(size, dtype=torch.bool).roll(1, 1))
    curve = calibration.curve()
    np.testing.assert_allclose(curve.cosine, curve.in_sync, atol=0.03)
    np.testing.assert_allclose(curve.weight, 0.1, atol=0.01)
    values = calibration.compute()
    assert values["calibration_error"] < 0.02
    # The library's equivalent: P(in > off) over all pairs is the area under the ROC.
    labels = torch.cat([torch.ones(num), torch.zeros(num)]).long()
    area = BinaryAUROC()(torch.cat([in_sync, off]), labels).item()
    assert values["p_in_above_off"] == pytest.approx(area, abs=0.01)


def test_without_pairs_off_only_the_cosine_in_sync_is_known():
    calibration = CalibrationCounts()
    calibration.update(torch.tensor([[0.25]]), torch.zeros(1, 1, dtype=torch.bool))
    assert calibration.compute() == {"cosine_in": 0.25}
    calibration.reset()
    assert calibration.compute() == {}
