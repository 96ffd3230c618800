"""The equations of diffusion that LatentSync adds to a library schedule, and its sampling loop.

A schedule (diffusers) gives `x_t = sqrt(a_t) x0 + sqrt(1 - a_t) noise`, `a_t` its
`alphas_cumprod`. Everything here is in UNet order, "b c f h w".
"""

import logging

from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    LCMScheduler,
    SchedulerMixin,
    UniPCMultistepScheduler,
)
from jaxtyping import Float, Int
from torch import Tensor

log = logging.getLogger(__name__)

SCHEDULERS: dict[str, type[SchedulerMixin]] = {
    "ddim": DDIMScheduler,
    "dpmpp": DPMSolverMultistepScheduler,
    "lcm": LCMScheduler,
    "unipc": UniPCMultistepScheduler,
}


def noised(
    scheduler: SchedulerMixin,
    latents: Float[Tensor, "b c f h w"],
    noise: Float[Tensor, "b c f h w"],
    timesteps: Int[Tensor, " b"],
) -> Float[Tensor, "b c f h w"]:
    """`x_t` of the schedule's training timesteps.

    Not the library's `add_noise`: that of a multistep solver goes by the order of its own steps.
    """
    signal = scheduler.alphas_cumprod.to(latents)[timesteps].view(-1, 1, 1, 1, 1)
    return signal.sqrt() * latents + (1 - signal).sqrt() * noise


def one_step_x0(
    scheduler: SchedulerMixin,
    prediction: Float[Tensor, "b c f h w"],
    timesteps: Int[Tensor, " b"],
    noisy: Float[Tensor, "b c f h w"],
) -> Float[Tensor, "b c f h w"]:
    """The clean latents that a prediction at `timesteps` amounts to, whatever it predicts."""
    kind = scheduler.config.prediction_type
    if kind == "sample":
        return prediction
    signal = scheduler.alphas_cumprod.to(noisy)[timesteps].view(-1, 1, 1, 1, 1)
    if kind == "epsilon":
        return (noisy - (1 - signal).sqrt() * prediction) / signal.sqrt()
    if kind == "v_prediction":
        return signal.sqrt() * noisy - (1 - signal).sqrt() * prediction
    raise ValueError(f"prediction_type must be epsilon, sample or v_prediction, got {kind!r}")


def training_target(
    scheduler: SchedulerMixin,
    latents: Float[Tensor, "b c f h w"],
    noise: Float[Tensor, "b c f h w"],
    timesteps: Int[Tensor, " b"],
) -> Float[Tensor, "b c f h w"]:
    """What the network shall predict, by the schedule's `prediction_type`."""
    kind = scheduler.config.prediction_type
    if kind == "v_prediction":
        # Progressive distillation (arXiv 2202.00512); not every schedule of the library has it.
        signal = scheduler.alphas_cumprod.to(latents)[timesteps].view(-1, 1, 1, 1, 1)
        return signal.sqrt() * noise - (1 - signal).sqrt() * latents
    targets = {"epsilon": noise, "sample": latents}
    if kind not in targets:
        raise ValueError(f"prediction_type must be epsilon, sample or v_prediction, got {kind!r}")
    return targets[kind]
