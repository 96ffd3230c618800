"""`python prepare.py input=raw/ output=data/my_set`: videos to clips, then latents, and audio
states of further encoders."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import cast

from omegaconf import DictConfig, OmegaConf, open_dict

from latentsync.cli.names import build
from latentsync.data.remote import is_remote
from latentsync.prepare import (
    Dedupe,
    Limit,
    Split,
    Stage,
    adopt,
    check_apart,
    encode_audio,
    encode_latents,
    filter_clips,
    limits_of,
    prepare_clips,
    working_copy,
    write_shards,
)

log = logging.getLogger(__name__)


def make_clips(config: DictConfig) -> None:
    stages = build_stages(config)
    given = input_of(config)
    if config.redo:
        adopt(given, Path(config.output), stages)
    outcomes = prepare_clips(
        given,
        Path(config.output),
        stages=stages,
        limits=build_limits(config),
        rules=build_rules(config),
        max_error_rate=config.max_error_rate,
        executor=build(config.executor),
        progress=config.progress,
    )
    num_clips = sum(len(outcome.clips) for outcome in outcomes)
    if not num_clips:
        raise ValueError(
            f"no clip came of {len(outcomes)} files of {config.input}: "
            f"{config.output}/dropped.jsonl says why of each"
        )
    log.info("%d clips of %d files: %s/report.html", num_clips, len(outcomes), config.output)


def build_stages(config: DictConfig) -> list[Stage]:
    """The selected stages of conf/prepare/stages, in order."""
    # Partials, because every process builds its own detector and encoder.
    makers = {"faces": {"_partial_": True}, "audio_encoder": {"_partial_": True}}
    with open_dict(config):
        given = cast(DictConfig, OmegaConf.merge(config, makers))
    return list(build(given.prepare.stages).values())


def build_limits(config: DictConfig) -> dict[str, Limit]:
    """The limits of measures of conf/prepare; `~prepare.limits` has none."""
    named = config.prepare.get("limits") or OmegaConf.create({})
    return limits_of(cast(dict, OmegaConf.to_container(named, resolve=True)))


def build_rules(config: DictConfig) -> list[Dedupe | Split]:
    """What conf/prepare says about all clips of a set together."""
    given = cast(dict, OmegaConf.to_container(config.prepare, resolve=True))
    kinds: dict[str, type[Dedupe | Split]] = {"dedupe": Dedupe, "split": Split}
    return [kinds[name](**given[name]) for name in kinds if given.get(name)]


def filter_set(config: DictConfig) -> None:
    outcomes = filter_clips(Path(config.output), build_limits(config), rules=build_rules(config))
    num_clips = sum(len(outcome.clips) for outcome in outcomes)
    if not num_clips:
        raise ValueError(
            f"no clip of {config.output} is within the limits: {config.output}/dropped.jsonl says "
            "why of each; give others to get clips back"
        )
    log.info("%d clips are within the limits: %s/report.html", num_clips, config.output)


def make_latents(config: DictConfig) -> None:
    folder = encode_latents(
        Path(config.output),
        Path(config.vae),
        mask=config.mask,
        device=config.device,
        dtype=config.dtype,
        progress=config.progress,
    )
    log.info("latents are in %s", folder)


def make_features(config: DictConfig) -> None:
    encoder = build(config.audio_encoder)
    encoder.to(config.device)
    folder = encode_audio(Path(config.output), encoder, progress=config.progress)
    log.info("audio states are in %s", folder)


def make_shards(config: DictConfig) -> None:
    folder = write_shards(
        Path(config.output), megabytes=config.shard_megabytes, progress=config.progress
    )
    log.info("archives are in %s", folder)


STAGES: dict[str, Callable[[DictConfig], None]] = {
    "clips": make_clips,
    "filter": filter_set,
    "latents": make_latents,
    "features": make_features,
    "shards": make_shards,
}


def run(config: DictConfig) -> None:
    """Run one stage of preparation; with the URL of a store as `output`, in a working folder."""
    if config.stage not in STAGES:
        raise ValueError(f"no stage is called {config.stage!r}; there are {', '.join(STAGES)}")
    url = str(config.output)
    if not is_remote(url):
        if config.work_dir is not None:
            raise ValueError(f"work_dir= is for an output in a store: {url} is made where it is")
        STAGES[config.stage](config)
        return
    if config.stage == "clips":
        check_apart(input_of(config), url)
    work_dir = None if config.work_dir is None else Path(config.work_dir)
    with working_copy(url, work_dir, progress=config.progress) as folder:
        config.output = str(folder)
        STAGES[config.stage](config)


def input_of(config: DictConfig) -> Path | str:
    return str(config.input) if is_remote(config.input) else Path(config.input)
