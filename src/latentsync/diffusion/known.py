"""The noise processes a model folder can name."""

from collections.abc import Mapping

from latentsync.diffusion.ddpm import DDPM
from latentsync.diffusion.flow_matching import FlowMatching
from latentsync.diffusion.process import NoiseProcess
from latentsync.registry import Registry

NOISE_PROCESSES: Registry[NoiseProcess] = Registry(
    "noise process", "latentsync.noise_processes", [DDPM, FlowMatching]
)
register_noise_process = NOISE_PROCESSES.register


def registered_noise_process(name: str, values: Mapping[str, object] | None = None) -> NoiseProcess:
    """The registered process of a given name, built from plain values."""
    return NOISE_PROCESSES.find(name).from_config(values or {})
