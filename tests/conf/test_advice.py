"""Overrides suggested by error messages compose, in every experiment that can raise them."""

import re
import shlex

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from conf.test_configs import EXPERIMENTS
from latentsync.cli.command import conf_dir, register_resolvers
from latentsync.losses.perceptual import PerceptualLoss
from latentsync.losses.video_mae import V2_REMEDY


def composed(experiment: str, *words: str) -> DictConfig:
    register_resolvers()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("train", overrides=[f"experiment={experiment}", *words])


def no_backbone() -> str:
    with pytest.raises(ValueError, match="needs VGG-16") as raised:
        PerceptualLoss(None)
    return str(raised.value)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_a_loss_whose_file_is_missing_is_left_out_as_advised(experiment: str) -> None:
    losses = composed(experiment).task.get("losses", {})
    for name, message in (("perceptual", no_backbone()), ("trepa", V2_REMEDY)):
        if name not in losses:
            continue
        words = shlex.split(re.search(r"leave the loss out with (.*)$", message)[1])
        task = composed(experiment, *words).task
        assert set(task.losses) == set(losses) - {name}
