"""Experiments are short configs that compose, with every choice in one word."""

import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from latentsync.cli.command import conf_dir, register_resolvers
from latentsync.cli.names import build
from latentsync.cli.renamed import CONFIGS, option_of_today
from latentsync.cli.train import check_parts
from latentsync.diffusion import FlowMatching

CONF = conf_dir()
FILES = sorted((CONF / "experiment").rglob("*.yaml"))
UNETS = ("unet_stage1", "unet_stage2", "unet_stage2_efficient", "demo/unet_stage1")
MAX_LINES = 24


def composed(*words: str) -> DictConfig:
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", overrides=list(words))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_experiment_is_a_short_file_of_short_lines(path: Path):
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= MAX_LINES
    assert max(map(len, lines)) <= 110


def test_a_name_means_one_thing():
    """Names of preset= are not names of sampler=."""
    presets, samplers = (
        {path.stem for path in (CONF / group).glob("*.yaml")} for group in ("preset", "sampler")
    )
    assert presets
    assert samplers
    assert presets.isdisjoint(samplers)


@pytest.mark.parametrize("experiment", UNETS)
@pytest.mark.parametrize(
    ("word", "names"), [("recon", ["recon"]), ("[recon_masked,sync]", ["recon", "sync"])]
)
def test_losses_are_chosen_by_name(experiment: str, word: str, names: list[str]):
    losses = composed(f"experiment={experiment}", f"losses={word}").task.losses
    assert list(losses) == names
    assert all(set(term) == {"weight", "loss"} for term in losses.values())


def test_an_ablation_is_one_word():
    losses = composed("experiment=unet_stage2", "~task.losses.trepa").task.losses
    assert list(losses) == ["recon", "sync", "perceptual"]


def test_the_audio_encoder_is_chosen_by_name():
    config = composed("experiment=unet_stage1", "audio_encoder=mel", "vae=v")
    assert OmegaConf.to_container(config.task.model.audio_encoder, resolve=True) == {
        "_target_": "latentsync.models.MelAudioEncoder"
    }


def test_the_noise_process_is_chosen_by_name():
    words = ("process=flow_matching", "process.num_train_timesteps=500")
    process = build(composed("experiment=unet_stage1", *words).task.model.process)
    assert isinstance(process, FlowMatching)
    assert process.num_train_timesteps == 500
    published, demo = (
        build(composed(f"experiment={name}").task.model.process)
        for name in ("unet_stage1", "demo/unet_stage1")
    )
    assert (published.prediction_type, demo.prediction_type) == ("epsilon", "sample")


@pytest.mark.parametrize("word", ["process=flow_matching", "audio_encoder=mel"])
@pytest.mark.parametrize("experiment", ["unet_stage2", "demo/unet_stage2", "syncnet"])
def test_a_part_that_would_not_be_used_is_refused(experiment: str, word: str):
    check_parts(composed(f"experiment={experiment}"))
    with pytest.raises(ValueError, match=f"{word.split('=')[0]}= is read where a model is made"):
        check_parts(composed(f"experiment={experiment}", word))


@pytest.mark.parametrize("experiment", ["unet_stage1", "demo/unet_stage1"])
def test_a_seed_gives_the_first_weights_it_always_gave(experiment: str):
    """Loading an encoder also consumes random numbers, so parts must be created in a fixed
    order."""
    drawing = ("audio_encoder", "unet", "codec")
    model = composed(f"experiment={experiment}").task.model
    assert [name for name in model if name in drawing] == list(drawing)


def test_optimizer_and_schedule_are_chosen_by_name():
    task = composed("experiment=syncnet", "schedule=cosine", "optimizer=adamw").task
    assert task.schedule._target_.endswith("cosine_with_min_lr_schedule_with_warmup")
    assert (task.schedule.num_warmup_steps, task.optimizer.lr) == (100, 1e-5)


@pytest.mark.parametrize("path", list(CONFIGS))
def test_a_config_that_has_another_name_now_is_gone(path: str):
    assert not (CONF / f"{path}.yaml").exists()


@pytest.mark.parametrize(
    ("option", "today"),
    [
        ("losses@task.losses", "losses="),
        ("task.loss_weights.sync", "task.losses.sync.weight="),
        ("task.losses.recon.snr_gamma", "task.losses.recon.loss.snr_gamma="),
        ("task.losses.recon.loss.snr_gama", None),
        ("task.model.audio_encoder.folder", "audio_encoder.folder="),
        ("task.official_pairs", "task.pairs.official="),
        ("task.min_offset_frames", "task.pairs.min_offset_frames="),
        ("process@task.model.process", "process="),
        ("task.model.process.scheduler.beta_end", "process.scheduler.beta_end="),
        ("data.train.num_frames", "data.both.num_frames="),
        ("sampler.parity", "preset=official"),
        ("data.train.resolution", None),
        ("metrics.reader", "evaluator.reader="),
        ("data.reader", "data.both.reader="),
        ("data.cache_dir", "data.cache.folder="),
        ("data.num_train_items", "data.train.max_items="),
    ],
)
def test_an_option_that_has_another_name_now_says_which(option: str, today: str | None):
    assert option_of_today(option) == today


# Shapes of networks and settings of solvers are meant to be complete.
TABLES = ("model", "sampler")


def repeats(path: Path) -> list[str]:
    """Values of the config that repeat the default of their signature without a comment."""
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    root = yaml.compose(text)
    return [key.value for key in _repeated(root) if not explained(key.start_mark.line, lines)]


def _repeated(node: yaml.Node | None) -> Iterator[yaml.ScalarNode]:
    if not isinstance(node, yaml.MappingNode):
        return
    values = {key.value: value for key, value in node.value}
    taken = {}
    if "_target_" in values:
        taken = inspect.signature(get_object(values["_target_"].value)).parameters
    for key, value in node.value:
        default = taken[key.value].default if key.value in taken else inspect.Parameter.empty
        plain = yaml.safe_load(yaml.serialize(value))
        default = list(default) if isinstance(default, tuple) else default
        if plain == default and isinstance(plain, bool) == isinstance(default, bool):
            yield key
        yield from _repeated(value)


def explained(line: int, lines: list[str]) -> bool:
    """Whether there is a comment on the line, or directly above it and below the first line."""
    return "#" in lines[line] or (line > 1 and lines[line - 1].lstrip().startswith("#"))


@pytest.mark.parametrize(
    "path",
    [path for path in sorted(CONF.rglob("*/*.yaml")) if path.parent.name not in TABLES],
    ids=lambda path: path.relative_to(CONF).as_posix(),
)
def test_a_value_that_repeats_its_default_says_what_it_is(path: Path):
    if path.parent.name == "adapter":
        pytest.importorskip("peft", reason="the extra `lora` is not installed")
    if path.name == "ray.yaml":
        pytest.importorskip("ray", reason="the extra `ray` is not installed")
    assert repeats(path) == []


def test_a_repeat_is_found(tmp_path: Path):
    path = tmp_path / "a.yaml"
    path.write_text(
        "loss:\n  _target_: latentsync.losses.MaskedReconLoss\n  kept_weight: 0.0\n"
        "  mouth_weight: 3.0  # of the mouth\n  snr_gamma: 5\n"
    )
    assert repeats(path) == ["kept_weight"]
