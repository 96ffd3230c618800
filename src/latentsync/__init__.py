"""Lip synchronisation by latent diffusion."""

from importlib import import_module
from pathlib import Path

__all__ = ["LipSyncModel", "demo_model_dir", "lipsync", "shipped_dir"]

_HOMES = {"LipSyncModel": "latentsync.models.lipsync", "lipsync": "latentsync.pipeline"}


def __getattr__(name: str) -> object:
    """The two big names, imported at first use: `import latentsync` alone loads no torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'latentsync' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def shipped_dir(in_wheel: str, in_clone: str) -> Path:
    """A folder that hatch_build.py puts inside the wheel and that stands beside src/ in a clone."""
    package_dir = Path(__file__).resolve().parent
    installed = package_dir / in_wheel
    if installed.is_dir():
        return installed
    return package_dir.parents[1] / in_clone


def demo_model_dir() -> Path:
    """The model folder that the project ships."""
    return shipped_dir("demo_model", "experiments/demo/model")
