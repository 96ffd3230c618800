"""Every config composes, and names only what the project or its libraries define."""

import re
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from latentsync.cli.command import conf_dir, register_resolvers
from latentsync.cli.train import build_callbacks
from latentsync.training.callbacks import AveragedWeights

ALLOWED = ("latentsync.", "lightning.", "torch.", "torchmetrics.", "diffusers.", "transformers.")
CONF = conf_dir()
FILES = sorted(CONF.rglob("*.yaml"))
MAINS = sorted(path.stem for path in CONF.glob("*.yaml"))
EXPERIMENTS = sorted(
    path.relative_to(CONF / "experiment").with_suffix("").as_posix()
    for path in (CONF / "experiment").rglob("*.yaml")
)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(CONF).as_posix())
def test_targets_are_allowed(path: Path):
    targets = re.findall(r"_target_:\s*[\"']?([^\s\"',}]+)", path.read_text())
    assert [target for target in targets if not target.startswith(ALLOWED)] == []


@pytest.fixture(autouse=True, scope="module")
def resolvers() -> None:
    register_resolvers()


@pytest.mark.parametrize("name", MAINS)
def test_main_composes(name: str):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        assert OmegaConf.is_dict(compose(name))


CALLBACKS = sorted(path.stem for path in (CONF / "callbacks").glob("*.yaml"))


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_goes_with_all_callbacks(name: str, tmp_path: Path):
    for chosen in CALLBACKS:
        words = [f"experiment={name}", f"callbacks={chosen}", f"paths.run_dir='{tmp_path}'"]
        with initialize_config_dir(str(CONF), version_base="1.3"):
            config = compose("train", overrides=words)
        wanted = OmegaConf.load(CONF / "callbacks" / f"{chosen}.yaml").keys() - {"defaults"}
        built = build_callbacks(config.callbacks)
        assert len(built) >= len(wanted)
        averaged = any(isinstance(callback, AveragedWeights) for callback in built)
        assert averaged == (chosen in ("adapt", "ema", "evaluate", "samples"))


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiment_composes_and_every_interpolation_resolves(name: str):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("train", overrides=[f"experiment={name}"])
    given = OmegaConf.to_yaml(config).replace("???", "given by the user")
    OmegaConf.resolve(OmegaConf.create(given))


@pytest.mark.parametrize("name", ["ddim", "dpmpp_4", "dpmpp_20"])
def test_evaluation_takes_the_steps_of_its_sampler(name: str):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        composed = compose("evaluate", [f"sampler={name}"])
        own = OmegaConf.load(CONF / "sampler" / f"{name}.yaml")
    assert composed.sampler.num_steps == own.num_steps


def test_evaluation_takes_ten_steps_unless_told_otherwise():
    """The figures in experiments/ and docs/evaluation.md were measured with these."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        sampler = compose("evaluate").sampler
    assert (sampler.scheduler, sampler.num_steps, sampler.guidance_scale) == ("ddim", 10, 1.5)
