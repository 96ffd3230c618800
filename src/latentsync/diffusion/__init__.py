"""The noise process: what training adds to faces, and how sampling takes it away again."""

from latentsync.diffusion.noise import mixed_noise, randn_like, stratified_timesteps
from latentsync.diffusion.process import SCHEDULERS, noised, one_step_x0, training_target
from latentsync.diffusion.sampler import Sampler, consistent_step, guided, sampling_steps

__all__ = [
    "SCHEDULERS",
    "Sampler",
    "consistent_step",
    "guided",
    "mixed_noise",
    "noised",
    "one_step_x0",
    "randn_like",
    "sampling_steps",
    "stratified_timesteps",
    "training_target",
]
