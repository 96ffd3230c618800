"""Noise processes and sampling: how training adds noise to latents and sampling removes it."""

from latentsync.diffusion.ddpm import DDPM
from latentsync.diffusion.flow_matching import EulerSolver, FlowMatching
from latentsync.diffusion.known import (
    NOISE_PROCESSES,
    register_noise_process,
    registered_noise_process,
)
from latentsync.diffusion.noise import mixed_noise, randn_like, stratified_timesteps
from latentsync.diffusion.process import NoiseProcess, Solver, check_solver, per_clip
from latentsync.diffusion.sampler import Sampler, guided, sampling_steps

__all__ = [
    "DDPM",
    "NOISE_PROCESSES",
    "EulerSolver",
    "FlowMatching",
    "NoiseProcess",
    "Sampler",
    "Solver",
    "check_solver",
    "guided",
    "mixed_noise",
    "per_clip",
    "randn_like",
    "register_noise_process",
    "registered_noise_process",
    "sampling_steps",
    "stratified_timesteps",
]
