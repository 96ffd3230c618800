"""conf/infer.yaml and the presets => the plain objects that the page works with."""

from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from latentsync.app.engine import Engine
from latentsync.app.presets import Preset
from latentsync.cli.choices import build_detector, choices, choose_device
from latentsync.cli.command import conf_dir, register_resolvers
from latentsync.cli.errors import VERSION_BASE
from latentsync.models.lipsync import LipSyncModel
from latentsync.models.precision import make_ready
from latentsync.pipeline import Cache
from latentsync.weights import model_folder

# As the page lists them: from careful to quick.
PRESETS = ("official", "best", "balanced", "fast", "draft")


def build_engine(ckpt: str, jobs_dir: Path) -> Engine:
    """What the page works with: the model, ready, and all that the presets ask for."""
    model = LipSyncModel.from_pretrained(model_folder(ckpt))
    config = composed()
    detector = build_detector(config)
    presets = {name: build_preset(name, usual=config) for name in PRESETS}
    make_ready(model, device=choose_device("auto"))
    return Engine(model, detector, jobs_dir, presets, Cache.of_user())


def build_preset(name: str, *, usual: DictConfig) -> Preset:
    """A preset as `infer.py preset=` has it; its detector only if it is not the usual one."""
    config = composed(f"preset={name}")
    parts = choices(config)
    return Preset(
        name,
        parts["sampler"],
        overlap=config.overlap,
        measure=config.measure,
        encoding=parts["encoding"],
        profile=parts["profile"],
        detector=None if config.faces == usual.faces else build_detector(config),
    )


def composed(*words: str) -> DictConfig:
    """The config of `infer.py` with the words behind it."""
    register_resolvers()
    with initialize_config_dir(str(conf_dir()), version_base=VERSION_BASE):
        return compose("infer", overrides=list(words))
