"""Clips of synthetic speakers unseen in training: reused if present, otherwise drawn and
prepared."""

import logging
from pathlib import Path

from omegaconf import DictConfig

from latentsync.cli.prepare import make_clips
from latentsync.data.manifest import MANIFEST_NAME, read_manifest
from latentsync.data.synthetic import draw_world
from latentsync.evaluation.model import Example, choose_clips, load_example
from latentsync.models.model_config import ModelFormat

log = logging.getLogger(__name__)


def load_examples(config: DictConfig, model_format: ModelFormat) -> list[Example]:
    """The number of test clips the config asks for, at the model's resolution."""
    folder = Path(config.test_set)
    if not (folder / MANIFEST_NAME).is_file():
        draw_and_prepare(config)
    clips = read_manifest(folder)
    if clips[0].resolution < model_format.resolution:
        raise ValueError(
            f"{folder} holds faces of {clips[0].resolution} pixels, the model needs "
            f"{model_format.resolution}: prepare them at that resolution"
        )
    return [
        load_example(clip, resolution=model_format.resolution, max_frames=config.max_frames)
        for clip in choose_clips(clips, config.num_clips, config.seed)
    ]


def draw_and_prepare(config: DictConfig) -> None:
    """Draw `config.world` and prepare it into `config.test_set`; resumes if interrupted."""
    log.info("%s has no clips yet: drawing and preparing them, once", config.test_set)
    draw_world(Path(config.raw), **config.world, progress=True)
    make_clips(config)
