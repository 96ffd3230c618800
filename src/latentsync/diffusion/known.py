"""The noise processes that a model folder can name."""

from latentsync.diffusion.ddpm import DDPM
from latentsync.diffusion.flow_matching import FlowMatching
from latentsync.diffusion.process import NoiseProcess
from latentsync.registry import Registry

NOISE_PROCESSES: Registry[NoiseProcess] = Registry(
    "noise process", "latentsync.noise_processes", [DDPM, FlowMatching]
)
register_noise_process = NOISE_PROCESSES.register
