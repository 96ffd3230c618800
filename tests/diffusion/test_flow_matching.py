"""Flow matching against closed forms and the library's own Euler solver."""

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from latentsync.diffusion import FlowMatching, Sampler, sampling_steps

SHAPE = (3, 4, 5, 6, 6)
TIMESTEPS = torch.tensor([0, 499, 999])


@pytest.fixture
def pair(generator: torch.Generator) -> torch.Tensor:
    return torch.randn(2, *SHAPE, generator=generator)


def test_the_target_gives_back_the_clean_latents(pair: torch.Tensor) -> None:
    latents, noise = pair
    process = FlowMatching()
    noisy = process.add_noise(latents, noise, TIMESTEPS)
    target = process.target(latents, noise, TIMESTEPS)
    torch.testing.assert_close(process.x0(target, TIMESTEPS, noisy), latents, atol=1e-6, rtol=0)


def test_noisy_latents_lie_on_the_line_between_data_and_noise(pair: torch.Tensor) -> None:
    latents, noise = pair
    nearly, half, last = FlowMatching().add_noise(latents, noise, TIMESTEPS)
    torch.testing.assert_close(nearly, 0.999 * latents[0] + 0.001 * noise[0])
    torch.testing.assert_close(half, (latents[1] + noise[1]) / 2)
    torch.testing.assert_close(last, noise[2], atol=0, rtol=0)


def test_the_signal_is_the_share_of_the_variance_that_is_data() -> None:
    signal = FlowMatching().signal(TIMESTEPS, like=torch.zeros(1))
    torch.testing.assert_close(signal, torch.tensor([0.999**2 / (0.999**2 + 1e-6), 0.5, 0.0]))


@pytest.mark.parametrize("num_steps", [1, 3, 20])
def test_euler_on_the_exact_velocity_reaches_the_data(pair: torch.Tensor, num_steps: int) -> None:
    latents, noise = pair
    solver = Sampler("euler", num_steps).solver(FlowMatching())
    *_, reached = sampling_steps(lambda noisy, timestep: noise - latents, noise, solver)
    torch.testing.assert_close(reached, latents, atol=1e-5, rtol=0)
    assert len(solver.timesteps) == num_steps


@pytest.mark.parametrize("num_steps", [1, 4, 20])
def test_euler_is_that_of_the_library(pair: torch.Tensor, num_steps: int) -> None:
    """With the same noise levels; ours are those of trained timesteps."""
    _, noise = pair
    ours = Sampler("euler", num_steps).solver(FlowMatching())
    library = FlowMatchEulerDiscreteScheduler()
    library.set_timesteps(sigmas=[(time + 1) / 1000 for time in ours.timesteps])
    expected = noise
    for time in library.timesteps:
        expected = library.step(expected.tanh(), time, expected).prev_sample
    *_, reached = sampling_steps(lambda noisy, timestep: noisy.tanh(), noise, ours)
    torch.testing.assert_close(reached, expected, atol=1e-5, rtol=0)


def test_steps_begin_at_noise_alone_and_are_of_trained_timesteps() -> None:
    assert Sampler("euler", 4).solver(FlowMatching()).timesteps == [999, 749, 499, 249]
    thirds = Sampler("euler", 3).solver(FlowMatching(num_train_timesteps=100)).timesteps
    assert thirds == [99, 66, 32]


def test_training_meets_every_timestep_alike(generator: torch.Generator) -> None:
    timesteps = FlowMatching(num_train_timesteps=10).sample_timesteps(10, generator)
    assert sorted(timesteps.tolist()) == list(range(10))


def test_more_steps_than_were_trained_are_refused() -> None:
    with pytest.raises(ValueError, match=r"at most the 5 timesteps.*got 6"):
        Sampler("euler", 6).solver(FlowMatching(num_train_timesteps=5))


def test_a_solver_of_another_process_is_refused_and_a_preset_s_is_replaced(
    caplog: pytest.LogCaptureFixture,
) -> None:
    flow = FlowMatching()
    with pytest.raises(ValueError, match=r"flow_matching.*scheduler=euler, got 'dpmpp'"):
        Sampler("dpmpp", 4).solver(flow)
    suited = Sampler("dpmpp", 4, guidance_scale=2.0).suited_to(flow)
    assert suited == Sampler("euler", 4, guidance_scale=2.0)
    assert "flow_matching is not sampled with dpmpp" in caplog.text


def test_the_official_pipeline_has_no_flow() -> None:
    sampler = Sampler(spacing="leading").suited_to(FlowMatching())
    with pytest.raises(ValueError, match=r"no leading timesteps.*preset=official"):
        sampler.solver(FlowMatching())
