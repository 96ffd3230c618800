import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, LCMScheduler

from latentsync.diffusion.ddpm import DDPM, SCHEDULES, SOLVERS
from latentsync.diffusion.noise import mixed_noise, stratified_timesteps
from latentsync.diffusion.sampler import Sampler, guided, sampling_steps

SHAPE = (3, 4, 5, 6, 6)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_mixed_noise_has_unit_variance_and_the_stated_correlation(alpha, generator):
    noise = mixed_noise(torch.zeros(64, 4, 2, 16, 16), alpha=alpha, generator=generator)
    first, second = noise[:, :, 0].flatten(), noise[:, :, 1].flatten()
    assert noise.var().item() == pytest.approx(1, abs=0.02)
    correlation = np.corrcoef(first, second)[0, 1]
    assert correlation == pytest.approx(alpha**2 / (1 + alpha**2), abs=0.02)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction"])
def test_a_perfect_prediction_gives_back_the_clean_latents(schedule, kind, generator):
    process = DDPM(
        SCHEDULES[schedule](
            prediction_type=kind, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"
        )
    )
    latents, noise = torch.randn(2, *SHAPE, generator=generator)
    timesteps = torch.tensor([0, 400, 999])
    noisy = process.add_noise(latents, noise, timesteps)
    target = process.target(latents, noise, timesteps)
    torch.testing.assert_close(process.x0(target, timesteps, noisy), latents, atol=2e-4, rtol=1e-3)


def test_noise_and_velocity_are_the_library_s(generator):
    scheduler = DDIMScheduler(prediction_type="v_prediction", beta_schedule="scaled_linear")
    latents, noise = torch.randn(2, *SHAPE, generator=generator)
    timesteps = torch.tensor([0, 400, 999])
    process = DDPM(scheduler)
    pairs = [
        (process.target(latents, noise, timesteps),
         scheduler.get_velocity(latents, noise, timesteps)),
        (process.add_noise(latents, noise, timesteps),
         scheduler.add_noise(latents, noise, timesteps)),
    ]  # fmt: skip
    for ours, theirs in pairs:
        torch.testing.assert_close(ours, theirs, atol=0, rtol=0)


@pytest.mark.parametrize("solver", sorted(SOLVERS))
@pytest.mark.parametrize("num_steps", [1, 5])
def test_sampling_with_a_perfect_predictor_ends_at_the_clean_latents(solver, num_steps, generator):
    schedule = DDIMScheduler(
        prediction_type="sample", clip_sample=False, timestep_spacing="trailing",
        set_alpha_to_one=True,
    )  # fmt: skip
    clean, noise = torch.randn(2, *SHAPE, generator=generator)
    *_, latents = sampling_steps(
        lambda noisy, timestep: clean, noise, Sampler(solver, num_steps).solver(DDPM(schedule))
    )
    torch.testing.assert_close(latents, clean, atol=0.02, rtol=0)


def test_stratified_timesteps_fall_once_into_every_stratum(generator):
    timesteps = stratified_timesteps(10, 1000, generator)
    assert sorted((timesteps // 100).tolist()) == list(range(10))


def test_a_shift_of_timesteps_keeps_the_ends_and_moves_the_median_by_its_formula(generator):
    steps = stratified_timesteps(10_000, 1000, generator, shift=5.0).float()
    # 5 x .5 / (1 + 4 x .5) = .833 in the middle, 5 x .1 / (1 + 4 x .1) = .357 below a tenth
    assert steps.median().item() == pytest.approx(833, abs=2)
    assert steps.quantile(0.1).item() == pytest.approx(357, abs=2)
    assert steps.min() < 2
    assert steps.max() == 999


@pytest.mark.parametrize("shift", [0.0, -1.0])
def test_a_shift_that_is_no_shift_is_refused(shift, generator):
    with pytest.raises(ValueError, match="a shift of timesteps must be above 0"):
        stratified_timesteps(4, 1000, generator, shift=shift)


def test_guidance_of_one_is_the_conditional_and_of_zero_the_unconditional(generator):
    unconditional, conditional = torch.randn(2, 7, generator=generator)
    torch.testing.assert_close(guided(unconditional, conditional, 1.0), conditional)
    torch.testing.assert_close(guided(unconditional, conditional, 0.0), unconditional)
    torch.testing.assert_close(
        guided(unconditional, conditional, 2.0), 2 * conditional - unconditional
    )


@pytest.mark.parametrize(
    ("interval", "guided_steps"),
    [
        ((0, 1), list(range(8))),
        ((0.25, 0.75), [2, 3, 4, 5]),
        ((1 / 8, 3 / 8), [1, 2]),
        ((0, 1 / 3), [0, 1, 2]),
        ((0.5, 0.5), []),
    ],
)
def test_guided_steps_lie_in_the_interval(interval, guided_steps):
    sampler = Sampler(num_steps=8, guidance_interval=interval)
    assert [step for step in range(8) if sampler.is_guided(step)] == guided_steps
    assert sampler.passes() == (8 + len(guided_steps), 0)


def test_without_guidance_no_step_is_guided():
    assert Sampler(num_steps=8, guidance_scale=1.0).passes() == (8, 0)


@pytest.mark.parametrize("solver", sorted(SOLVERS))
def test_frames_that_begin_alike_end_alike(solver, generator):
    """Separate noise per frame would make the mouth flicker."""
    schedule = DDIMScheduler(prediction_type="sample", clip_sample=False)
    noise = torch.randn(2, 4, 1, 6, 6, generator=generator).expand(-1, -1, 3, -1, -1)
    *_, latents = sampling_steps(
        lambda noisy, timestep: noisy.tanh(), noise, Sampler(solver, 4).solver(DDPM(schedule))
    )
    assert torch.equal(latents[:, :, 0], latents[:, :, 1])
    assert not torch.equal(latents[0], latents[1])


@pytest.mark.parametrize("solver", sorted(SOLVERS))
def test_sampling_leaves_the_global_generator_alone(solver, generator):
    schedule = DDIMScheduler(prediction_type="sample", clip_sample=False)
    before = torch.get_rng_state()
    noise = torch.randn(*SHAPE, generator=generator)
    list(
        sampling_steps(
            lambda noisy, _: noisy.tanh(), noise, Sampler(solver, 3).solver(DDPM(schedule))
        )
    )
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction"])
def test_one_consistency_step_is_the_library_s(kind, generator):
    schedule = DDIMScheduler(prediction_type=kind, clip_sample=False)
    noise, answer = torch.randn(2, *SHAPE, generator=generator)
    ours = Sampler("lcm", 1).solver(DDPM(schedule))
    library = LCMScheduler.from_config(schedule.config)
    library.set_timesteps(1)
    (latents,) = sampling_steps(lambda noisy, timestep: answer, noise, ours)
    torch.testing.assert_close(
        latents, library.step(answer, library.timesteps[0], noise).prev_sample
    )


def test_the_consistency_sampler_says_what_it_needs(caplog):
    Sampler("lcm", 4)
    assert "distilled" in caplog.text


def test_an_interval_from_a_config_equals_one_from_python():
    assert Sampler(guidance_interval=[0.25, 0.75]) == Sampler(guidance_interval=(0.25, 0.75))


@pytest.mark.parametrize(
    ("arguments", "value"),
    [
        ({"scheduler": "ddmi"}, "ddmi"),
        ({"num_steps": 0}, "0"),
        ({"guidance_scale": -1.0}, "-1"),
        ({"guidance_interval": (0.7, 0.3)}, "0.7"),
        ({"guidance_interval": (0.0, 1.5)}, "1.5"),
    ],
)
def test_a_wrong_sampler_names_the_value(arguments, value):
    with pytest.raises(ValueError, match=value):
        Sampler(**arguments)


def test_leading_steps_lead_by_one_whatever_the_model_was_trained_with():
    trained_with = DDPM(DDIMScheduler(timestep_spacing="trailing"))
    own, official = (Sampler(num_steps=20, spacing=name) for name in ("model", "leading"))
    assert official.solver(trained_with).timesteps == list(range(951, 0, -50))
    assert own.solver(trained_with).timesteps == list(range(999, 0, -50))


@pytest.mark.parametrize(
    ("scale", "own", "official"), [(0.5, True, False), (1.0, False, False), (1.5, True, True)]
)
def test_the_official_pipeline_guides_above_one_only(scale: float, own: bool, official: bool):
    assert Sampler(guidance_scale=scale).is_guided(0) is own
    assert Sampler(guidance_scale=scale, guides_below_one=False).is_guided(0) is official
