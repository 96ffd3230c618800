"""Config groups => the objects that `lipsync` takes."""

import re
from collections.abc import Iterator
from pathlib import Path

import torch
from hydra import compose
from omegaconf import DictConfig, OmegaConf

from latentsync.cli.names import build
from latentsync.faces import FaceDetector
from latentsync.faces.occlusion import OcclusionMasker, default_masker
from latentsync.models.speaker_scorers import ActiveSpeakerScorer
from latentsync.pipeline import (
    PROFILES,
    Choice,
    Encoding,
    LRASDScorer,
    Profile,
    SilenceGate,
    SpeakerChoice,
    Timing,
)
from latentsync.pipeline.reporting.report import custom_preset
from latentsync.weights import load_official_lr_asd

# The keys set by files in conf/preset/.
OF_A_PRESET = ("sampler", "overlap", "crf", "encoding", "dtype", "measure", "profile")
# Names of persons and turns in `assign`.
SPEECH = re.compile(r"(turn)?(\d+)")
OF_CHOICE = frozenset(Choice.__dataclass_fields__)


def choices(config: DictConfig) -> dict:
    """The config's groups as arguments of `lipsync`; ValueError for invalid values."""
    if not isinstance(config.seed, int):
        raise ValueError(f"seed={config.seed} must be a whole number")
    plain = OmegaConf.to_container(config, resolve=True)
    assert isinstance(plain, dict), "a config file is a mapping"
    chosen = {name: value for name, value in plain["faces"].items() if name in OF_CHOICE}
    chosen["select"] = "speaker" if config.turns is not None else selection(chosen["select"])
    return {
        "sampler": build(config.sampler),
        "choice": Choice(**chosen),
        "timing": Timing(**plain["timing"]),
        "encoding": Encoding(crf=config.crf, **plain["encoding"]),
        "silence": SilenceGate(plain["silence"]),
        "profile": profile_called(plain["profile"]),
    }


def profile_called(name: object) -> Profile:
    """The profile with this name; ValueError if there is none."""
    if name not in PROFILES:
        raise ValueError(f"profile={name} must be one of {', '.join(PROFILES)}")
    return PROFILES[str(name)]


def selection(value: object) -> str | int | tuple[float, float]:
    """The checked value of `faces.select`."""
    if value in ("largest", "all", "speaker"):
        return str(value)
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, list) and len(value) == 2:
        return float(value[0]), float(value[1])
    raise ValueError(
        f"faces.select={value} must be largest, all, speaker, a person's number, or [x,y]"
    )


def assigned(config: DictConfig) -> dict[int | str, Path]:
    """Paths of the voices of individual persons (by number) and turns (by name)."""
    voices: dict[int | str, Path] = {}
    for name, path in config.assign.items():
        named = SPEECH.fullmatch(str(name))
        if named is None:
            raise ValueError(
                f"assign={{{name}: ...}} must name a person by number, or a turn (turn0, ...)"
            )
        voices[str(name) if named[1] else int(named[2])] = Path(path)
    return voices


def chosen_speakers(config: DictConfig, scorer: ActiveSpeakerScorer | None) -> SpeakerChoice:
    """How speakers are determined; ValueError if options conflict."""
    if config.turns is None:
        return SpeakerChoice(scorer)
    if config.plan not in (None, True):
        raise ValueError("plan= has turns of its own: leave out turns=, or edit the plan")
    if config.faces.select not in ("largest", "speaker"):
        raise ValueError(
            f"turns= says who is redrawn when: leave out faces.select={config.faces.select}"
        )
    return SpeakerChoice(rttm=Path(config.turns))


def build_detector(config: DictConfig) -> FaceDetector:
    """The face detector; other keys of the group select which faces are redrawn."""
    return build(config.faces, without=OF_CHOICE | {"speaker", "segmenter"})


def load_scorer(config: DictConfig) -> ActiveSpeakerScorer | None:
    """LR-ASD from the file in faces.speaker; None if none is given."""
    weights = config.faces.speaker.weights
    if weights is None:
        return None
    return LRASDScorer(load_official_lr_asd(weights), device=choose_device(config.device))


def load_masker(config: DictConfig) -> OcclusionMasker | None:
    """Segments hands in front of mouths, or the user's own segmenter; None if switched off."""
    faces = config.faces
    if faces.occlusion == "off":
        if faces.segmenter is not None:
            raise ValueError("faces.segmenter is of no use with faces.occlusion=off: leave one out")
        return None
    return default_masker(segmenter=faces.segmenter)


def preset_of(config: DictConfig) -> str:
    """The preset's name, and any values of it that were overridden."""
    own = compose("infer", overrides=[f"preset={config.preset}"])
    preset, chosen = (
        {key: value for group in OF_A_PRESET for key, value in _flat(group, each[group])}
        for each in (own, config)
    )
    return custom_preset(config.preset, preset, chosen)


def _flat(name: str, value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, DictConfig):
        for key, item in value.items():
            yield from _flat(f"{name}.{key!s}", item)
    else:
        yield name, value


def choose_device(name: str) -> torch.device:
    """The device called `name`; "auto" is the first GPU, or the CPU."""
    has_cuda = torch.cuda.is_available()
    if name == "auto":
        return torch.device("cuda" if has_cuda else "cpu")
    kinds = {"cpu": True, "cuda": has_cuda, "mps": torch.backends.mps.is_available()}
    if not kinds.get(name.split(":")[0], False):
        there = ", ".join(kind for kind, is_there in kinds.items() if is_there)
        raise ValueError(f"device={name} is not on this machine; there is: {there}, or auto")
    return torch.device(name)


def choose_dtype(name: str) -> torch.dtype | None:
    """The dtype called `name`; None, for auto, means the fastest on the device."""
    named = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if name != "auto" and name not in named:
        raise ValueError(f"dtype={name} must be one of auto, {', '.join(named)}")
    return named.get(name)
