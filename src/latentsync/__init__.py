"""Lip synchronisation by latent diffusion."""

from pathlib import Path
from typing import TYPE_CHECKING

from latentsync.lazy import names_at_first_use

if TYPE_CHECKING:
    from latentsync.models.lipsync import LipSyncModel
    from latentsync.pipeline import lipsync
else:
    # `import latentsync` alone does not load torch.
    __getattr__ = names_at_first_use(__name__)

__all__ = ["LipSyncModel", "demo_model_dir", "lipsync", "shipped_dir"]


def shipped_dir(in_wheel: str, in_clone: str) -> Path:
    """A folder that hatch_build.py puts inside the wheel and that is next to src/ in a clone."""
    package_dir = Path(__file__).resolve().parent
    installed = package_dir / in_wheel
    if installed.is_dir():
        return installed
    return package_dir.parents[1] / in_clone


def demo_model_dir() -> Path:
    """The model folder shipped with the project."""
    return shipped_dir("demo_model", "experiments/demo/model")
