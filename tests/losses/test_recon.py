from dataclasses import replace

import pytest
import torch
from diffusers import DDIMScheduler

from latentsync.diffusion import DDPM, FlowMatching
from latentsync.losses import MaskedReconLoss, ReconLoss, min_snr_weight
from latentsync.models import Denoised
from losses.guesses import guess


@pytest.fixture
def denoised(generator) -> Denoised:
    return guess(torch.randn(2, 4, 3, 8, 8, generator=generator))


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
    # Painted: 4 rows of 8. The box is rows 4..6 and columns 2..5: 12 of 32 positions have weight 3.
    loss = MaskedReconLoss(mouth_weight=3.0, mouth_box=(0.5, 0.875, 0.25, 0.75))
    prediction = denoised.target.clone()
    prediction[..., 4:7, 2:6] += 1
    assert loss(replace(denoised, prediction=prediction), {}).item() == pytest.approx(36 / 56)


def test_min_snr_weights_are_one_for_noise_up_to_gamma_and_gamma_over_snr_beyond():
    # SNR = a / (1 - a): 1, 5 and 99 for a = 0.5, 5/6 and 0.99.
    target = torch.zeros(3, 4, 1, 2, 2)
    denoised = guess(target, signal=[0.5, 5 / 6, 0.99])
    torch.testing.assert_close(min_snr_weight(denoised, 5.0), torch.tensor([1, 1, 5 / 99]))
    loss = ReconLoss(snr_gamma=5.0)
    worse = replace(denoised, prediction=target + 2)
    assert loss(worse, {}).item() == pytest.approx(4 * (1 + 1 + 5 / 99) / 3, rel=1e-5)


def test_masked_recon_weighs_clips_like_recon_does():
    target = torch.zeros(2, 4, 1, 8, 8)
    loss = MaskedReconLoss(snr_gamma=5.0, mouth_weight=1.0)
    worse = guess(target, prediction=target + 2, signal=[0.5, 0.99])
    assert loss(worse, {}).item() == pytest.approx(4 * (1 + 5 / 99) / 2, rel=1e-5)


PROCESSES = {
    "flow_prediction": FlowMatching(),
    **{
        kind: DDPM(DDIMScheduler(prediction_type=kind, clip_sample=False))
        for kind in ("epsilon", "sample", "v_prediction")
    },
}


@pytest.mark.parametrize("kind", PROCESSES)
def test_min_snr_weighs_the_error_of_x0_whatever_is_predicted(kind, generator):
    """Two ways: the weighted error of the prediction, and min(SNR, gamma) times that of x0."""
    process = PROCESSES[kind]
    latents = torch.randn(3, 4, 2, 4, 4, generator=generator)
    noise = torch.randn(3, 4, 2, 4, 4, generator=generator)
    timesteps = torch.tensor([20, 400, 800])
    noisy = process.add_noise(latents, noise, timesteps)
    target = process.target(latents, noise, timesteps)
    prediction = target + 0.1 * torch.randn(3, 4, 2, 4, 4, generator=generator)
    signal = process.signal(timesteps, like=latents)
    denoised = guess(target, prediction=prediction, signal=signal.tolist(), prediction_type=kind)
    x0 = process.x0(prediction, timesteps, noisy)
    error = (x0 - latents).square().flatten(1).mean(dim=1)
    expected = ((signal / (1 - signal)).clamp(max=5) * error).mean()
    torch.testing.assert_close(ReconLoss(snr_gamma=5.0)(denoised, {}), expected, rtol=1e-3, atol=0)
