"""The examples in docs/extending.md work as written."""

import re
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from latentsync.cli.command import conf_dir, register_resolvers
from latentsync.cli.names import build
from latentsync.losses import check_losses
from losses.guesses import guess

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"
ROW = re.compile(r"^\| (an? [a-z ]+) \| (\d): (.+?) \| ", re.MULTILINE)
# Code blocks that are files or parts of one; commands are blocks without a language.
PLACE = re.compile(r"^```(?:python|py|yaml|toml)\n", re.MULTILINE)
MOST = 3
FILE = re.compile(r"```(?:python|yaml)\n# (\S+)\n(.*?)```", re.DOTALL)


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The page's files, written to a folder on Python's path."""
    for name, content in FILE.findall(PAGE.read_text(encoding="utf-8")):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path / "my_conf"


def composed(extra: Path, *words: str) -> DictConfig:
    register_resolvers()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("train", overrides=[f"hydra.searchpath=['file://{extra}']", *words])


def test_a_loss_is_a_class_and_a_file(written: Path, generator: torch.Generator):
    config = composed(written, "experiment=unet_stage2", "losses=[recon,motion]")
    losses = build(config.task.losses)
    check_losses(losses)
    assert list(losses) == ["recon", "motion"]
    target = torch.randn(1, 4, 3, 8, 8, generator=generator)
    denoised = guess(target, timesteps=[0])
    still = denoised.pixels.mean(dim=1, keepdim=True).expand_as(denoised.pixels)
    value = losses["motion"]["loss"](denoised, {"pixels": still})
    torch.testing.assert_close(value, denoised.pixels.diff(dim=1).abs().mean())
    assert losses["motion"]["loss"](denoised, {"pixels": denoised.pixels}) == 0


def test_an_experiment_is_a_file(written: Path):
    config = composed(written, "experiment=motion")
    assert list(config.task.losses) == ["recon", "sync", "motion"]
    assert (config.name, config.task.optimizer.lr) == ("motion", 2e-5)
    assert config.task.schedule.num_warmup_steps == 1000
    # The base is unchanged: the published stage 2.
    assert config.task.trainable == ["motion_modules.", "attentions."]


PARTS = ROW.findall(PAGE.read_text(encoding="utf-8"))


def test_the_page_has_every_door() -> None:
    assert {name.split(" ", 1)[1] for name, _, _ in PARTS} == {
        "loss",
        "experiment",
        "face detector",
        "audio encoder",
        "noise process",
        "preparation stage",
        "metric",
    }


@pytest.mark.parametrize(("name", "count", "places"), PARTS, ids=[name for name, *_ in PARTS])
def test_a_part_takes_as_many_places_as_the_table_says(name: str, count: str, places: str):
    """Its chapter shows them, and the tests of the chapter use no others."""
    chapters = PAGE.read_text(encoding="utf-8").split("\n## ")
    (chapter,) = (each for each in chapters if each.lower().startswith(name))
    assert len(PLACE.findall(chapter)) == int(count) == len(places.split(", ")) <= MOST
