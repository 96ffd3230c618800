from dataclasses import replace

import pytest
import torch

from latentsync.losses import MaskedReconLoss, ReconLoss
from latentsync.models import Denoised


@pytest.fixture
def denoised(generator) -> Denoised:
    target = torch.randn(2, 4, 3, 8, 8, generator=generator)
    mask = torch.ones(2, 1, 3, 8, 8)
    mask[..., 4:, :] = 0
    return Denoised(
        prediction=target.clone(),
        target=target,
        noisy=target,
        timesteps=torch.zeros(2, dtype=torch.long),
        x0=target,
        mask=mask,
        decode=lambda latents: latents.permute(0, 2, 1, 3, 4)[:, :, :3],
    )


@pytest.mark.parametrize("loss", [ReconLoss(), MaskedReconLoss()])
def test_a_perfect_prediction_costs_nothing(loss, denoised):
    assert loss(denoised, {}).item() == 0


def test_recon_is_the_mean_square(denoised):
    worse = replace(denoised, prediction=denoised.target + 3)
    assert ReconLoss()(worse, {}).item() == pytest.approx(9, rel=1e-6)


def test_masked_recon_does_not_see_the_kept_region(denoised):
    prediction = denoised.target.clone()
    prediction[..., :4, :] += 5
    assert MaskedReconLoss()(replace(denoised, prediction=prediction), {}).item() == 0


def test_masked_recon_weighs_the_mouth(denoised):
    # Painted: 4 rows of 8. The box holds rows 4..6 and columns 2..5: 12 of 32 places count 3-fold.
    loss = MaskedReconLoss(mouth_weight=3.0, mouth_box=(0.5, 0.875, 0.25, 0.75))
    prediction = denoised.target.clone()
    prediction[..., 4:7, 2:6] += 1
    assert loss(replace(denoised, prediction=prediction), {}).item() == pytest.approx(36 / 56)
