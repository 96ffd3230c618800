"""conf/infer.yaml and the presets => the plain objects of the page."""

from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from latentsync.app.engine import Engine
from latentsync.app.presets import Preset
from latentsync.cli.choices import build_detector, choices, choose_device, load_masker
from latentsync.cli.command import conf_dir, register_resolvers
from latentsync.cli.errors import VERSION_BASE
from latentsync.models.lipsync import LipSyncModel
from latentsync.models.precision import make_ready
from latentsync.pipeline import Cache
from latentsync.weights import model_folder

# In the order of the page: from best quality to fastest.
PRESETS = ("official", "best", "balanced", "fast", "draft")


def build_engine(ckpt: str, jobs_dir: Path) -> Engine:
    """The engine of the page: the model, ready to run, and all that the presets need."""
    model = LipSyncModel.from_pretrained(model_folder(ckpt))
    config = composed()
    detector = build_detector(config)
    presets = {name: build_preset(name, usual=config) for name in PRESETS}
    make_ready(model, device=choose_device("auto"))
    return Engine(model, detector, jobs_dir, presets, Cache.of_user(), load_masker(config))


def build_preset(name: str, *, usual: DictConfig) -> Preset:
    """A preset as in `infer.py preset=`; `detector` is set only if it differs from the usual
    one."""
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
    """The config of `infer.py` with these overrides."""
    register_resolvers()
    with initialize_config_dir(str(conf_dir()), version_base=VERSION_BASE):
        return compose("infer", overrides=list(words))
