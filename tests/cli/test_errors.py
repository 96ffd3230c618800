"""Explanations of errors, which never hide the error itself."""

import sys
import tomllib
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import ConfigCompositionException, InstantiationException
from hydra.utils import instantiate

from latentsync.cli import errors
from latentsync.cli.command import conf_dir, register_resolvers
from latentsync.cli.errors import explain, grouped
from latentsync.cli.infer import some_failed
from latentsync.extras import EXTRA_OF, missing_part, needed_parts

ROOT = Path(__file__).parents[2]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def test_every_optional_part_belongs_to_an_extra_that_is_there():
    brought = set(EXTRAS) - {"prepare", "dev", "bench"}
    assert set(EXTRA_OF.values()) == brought


@pytest.mark.parametrize("part", EXTRA_OF)
def test_a_missing_part_says_what_to_type(monkeypatch, part: str):
    monkeypatch.setitem(sys.modules, part, None)
    with pytest.raises(InstantiationException) as raised:
        instantiate({"_target_": f"{part}.inner.Thing"})
    wanted = f"{part} is not installed: pip install 'latentsync[{EXTRA_OF[part]}]'"
    assert explain(raised.value, "train", conf=conf_dir()) == wanted


@pytest.mark.parametrize("part", ["gradio", "lightning", "peft"])
def test_a_command_without_its_part_ends_in_one_line(monkeypatch, capsys, part: str):
    monkeypatch.setitem(sys.modules, part, None)
    with pytest.raises(SystemExit) as end, needed_parts():
        __import__(part)
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith(f"error: {part} is not installed: pip install '")


def test_what_is_no_optional_part_is_a_bug():
    with pytest.raises(ModuleNotFoundError) as raised, needed_parts():
        __import__("no_such_module_of_anybody")
    assert missing_part(raised.value) is None
    assert explain(raised.value, "train", conf=conf_dir()) is None


def test_a_library_that_asks_for_another_is_heard():
    """The message of Lightning's DeepSpeed strategy."""
    error = RuntimeError("you must have DeepSpeed installed: `pip install -U deepspeed`")
    assert missing_part(error) == "deepspeed is not installed: pip install 'latentsync[deepspeed]'"


@pytest.mark.parametrize(
    ("words", "extra"),
    [
        (["launcher=ray"], "ray"),
        (["launcher=submitit"], "submitit"),
        (["hydra/launcher=submitit_local"], "submitit"),
        (["hydra/launcher=ray"], "ray"),
    ],
)
def test_a_launcher_that_is_not_installed_names_its_extra(words, extra: str):
    pytest.importorskip("lightning")
    if extra_is_there(extra):
        pytest.skip(f"the extra {extra} is installed")
    register_resolvers()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"), pytest.raises(Exception) as e:
        compose("train", overrides=words, return_hydra_config=True)
    assert explain(e.value, "train", conf=conf_dir()).endswith(f"pip install 'latentsync[{extra}]'")


def extra_is_there(extra: str) -> bool:
    try:
        __import__(f"hydra_plugins.hydra_{extra}_launcher")
    except ModuleNotFoundError:
        return False
    return True


def test_frames_without_a_name_hide_nothing():
    """Compiled extensions have such frames."""
    scope: dict = {"__builtins__": __builtins__}
    exec("def fail():\n    raise ValueError('of a compiled module')", scope)
    with pytest.raises(ValueError, match="compiled") as raised:
        scope["fail"]()
    assert explain(raised.value, "train", conf=conf_dir()) is None


def test_an_error_in_telling_hides_nothing(tmp_path: Path, monkeypatch):
    def broken(*_: object) -> str:
        raise AttributeError("in telling")

    monkeypatch.setitem(errors.KINDS, OSError, broken)
    assert explain(FileNotFoundError("a"), "train", conf=tmp_path) is None
    error = ConfigCompositionException("Could not override 'a.b'.")
    assert explain(error, "no such command", conf=tmp_path / "nowhere") is None


def test_a_library_that_lists_every_tensor_is_cut_short():
    error = InstantiationException("Error in call to target 'x.Y':\n" + "size mismatch " * 800)
    told = explain(error, "train", conf=conf_dir())
    assert len(told) < 700
    assert told.startswith("Error in call to target 'x.Y': size mismatch")
    assert "HYDRA_FULL_ERROR=1 shows all of it" in told


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("data.train.resolution=64", "say +data.train.resolution=64, with a +"),
        ("data.val.stride=2", "say +data.val.stride=2, with a +"),
        ("trainer.limit_train_batches=2", "say +trainer.limit_train_batches=2, with a +"),
        ("task.optimizer.betas=[0.9,0.99]", "say +task.optimizer.betas=[0.9,0.99], with a +"),
        ("data.train.resolutoin=64", "near: +data.train.resolution"),
        ("data.batchsize=64", "near: data.batch_size"),
        ("zzz=1", "there are: callbacks, ckpt_path, data, "),
    ],
)
def test_an_argument_that_the_config_leaves_out_wants_a_plus(monkeypatch, word: str, said: str):
    register_resolvers()
    words = ["experiment=syncnet", word]
    monkeypatch.setattr(sys, "argv", ["train", *words])
    with (
        initialize_config_dir(str(conf_dir()), version_base="1.3"),
        pytest.raises(ConfigCompositionException) as raised,
    ):
        compose("train", overrides=words)
    told = explain(raised.value, "train", conf=conf_dir())
    assert said in told
    assert word.split("=")[0] in told


def test_names_are_grouped():
    names = ["unet_a", "syncnet", "demo/b", "unet_b", "demo/a"]
    assert grouped(names) == "syncnet; unet_a, unet_b; demo/b, demo/a"
    assert grouped(["b", "a"]) == "a, b"


@pytest.mark.parametrize(
    ("failed", "every", "said"),
    [
        (1, 1, "1 of 1 jobs failed: list.status.csv says why"),
        (3, 3, "3 of 3 jobs failed: list.status.csv says why"),
        (1, 2, "1 of 2 jobs failed, the other one is done: list.status.csv says why"),
        (2, 5, "2 of 5 jobs failed, the other 3 are done: list.status.csv says why"),
    ],
)
def test_failed_jobs_say_what_became_of_the_others(failed: int, every: int, said: str):
    assert some_failed(failed, every, Path("list.csv")) == said
