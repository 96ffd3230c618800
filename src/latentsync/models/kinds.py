"""What a model folder can hold by name: the kinds of audio encoders, and of noise schedules.

A folder says "whisper" or "ddpm", never a class to import: what is not in these tables is refused.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    LCMScheduler,
    PNDMScheduler,
    SchedulerMixin,
    UniPCMultistepScheduler,
)

from latentsync.models.audio.encoders import AudioEncoder, MelAudioEncoder, WhisperAudioEncoder
from latentsync.models.config_files import check_types, defaults_of, made, shown

# Training needs `alphas_cumprod` and noise of variance 1, which these have.
SCHEDULES: dict[str, type[SchedulerMixin]] = {
    "ddim": DDIMScheduler,
    "ddpm": DDPMScheduler,
    "dpmpp": DPMSolverMultistepScheduler,
    "lcm": LCMScheduler,
    "pndm": PNDMScheduler,
    "unipc": UniPCMultistepScheduler,
}
PREDICTION_TYPES = ("epsilon", "sample", "v_prediction")


@dataclass(frozen=True, slots=True)
class EncoderKind:
    """How the audio encoders of one class are written to a folder of their own, and read."""

    type: type[AudioEncoder]
    save: Callable[[AudioEncoder, Path], None]
    load: Callable[[Path], AudioEncoder]


def _nothing_to_save(encoder: AudioEncoder, folder: Path) -> None:
    """Mel has no weights."""


def _save_whisper(encoder: AudioEncoder, folder: Path) -> None:
    assert isinstance(encoder, WhisperAudioEncoder)
    encoder.save_pretrained(folder)


AUDIO_ENCODERS: dict[str, EncoderKind] = {
    "mel": EncoderKind(MelAudioEncoder, _nothing_to_save, lambda _: MelAudioEncoder()),
    "whisper": EncoderKind(WhisperAudioEncoder, _save_whisper, WhisperAudioEncoder.from_pretrained),
}


def register_audio_encoder(
    name: str,
    encoder_type: type[AudioEncoder],
    *,
    save: Callable[[AudioEncoder, Path], None],
    load: Callable[[Path], AudioEncoder],
) -> None:
    """Let model folders hold audio encoders of another class, under a name of its own.

    `save` writes one to a folder, which it makes; `load` gives it back. The module that defines the
    class says this when it is imported, in whatever program trains with it or loads its models.
    """
    known = AUDIO_ENCODERS.get(name)
    if known is not None and known.type is not encoder_type:
        raise ValueError(f"an audio encoder is called {name!r} already: {known.type.__name__}")
    AUDIO_ENCODERS[name] = EncoderKind(encoder_type, save, load)


def encoder_kind(encoder: AudioEncoder) -> str:
    """The name of an audio encoder's class; ValueError if no folder can hold it."""
    for name, kind in AUDIO_ENCODERS.items():
        if type(encoder) is kind.type:
            return name
    raise ValueError(
        f"no model folder can hold a {type(encoder).__name__}, so a model with it could not be "
        f"saved; there are {', '.join(AUDIO_ENCODERS)}: give its class a name, with "
        "latentsync.models.register_audio_encoder in the module that defines it"
    )


def scheduler_kind(scheduler: SchedulerMixin) -> str:
    """The name of a noise schedule's class; ValueError if no folder can hold it."""
    for name, kind in SCHEDULES.items():
        if type(scheduler) is kind:
            return name
    known = ", ".join(kind.__name__ for kind in SCHEDULES.values())
    raise ValueError(
        f"a model cannot be trained or saved with a {type(scheduler).__name__}; there are {known}"
    )


def schedule_of(scheduler: SchedulerMixin) -> dict[str, object]:
    """The class, by name, and the plain values of a schedule, without those of one library
    version."""
    kind = scheduler_kind(scheduler)
    config = scheduler.config.items()
    return {"name": kind, **{key: value for key, value in config if not key.startswith("_")}}


def scheduler_from(config: Mapping[str, object], path: Path) -> SchedulerMixin:
    """The schedule that `schedule_of` described, in the config file `path`.

    Folders written before classes had a name hold a DDIM's values.
    """
    name = config.get("name", "ddim")
    if not isinstance(name, str) or name not in SCHEDULES:
        raise ValueError(
            f"{path}: no scheduler is called {shown(name)}; there are {', '.join(SCHEDULES)}"
        )
    kind = SCHEDULES[name]
    values = {key: value for key, value in config.items() if key != "name"}
    check_types(values, defaults_of(kind.__init__), path)
    num_timesteps = values.get("num_train_timesteps", 1000)
    if not isinstance(num_timesteps, int) or num_timesteps < 1:
        raise ValueError(
            f"{path}: num_train_timesteps must be 1 or more, got {shown(num_timesteps)}"
        )
    scheduler = made(kind.from_config, values, path, what=kind.__name__)
    prediction = scheduler.config.prediction_type
    if prediction not in PREDICTION_TYPES:
        raise ValueError(
            f"{path}: prediction_type must be {', '.join(PREDICTION_TYPES)}, got {prediction!r}"
        )
    signal = scheduler.alphas_cumprod
    if not bool(torch.all((signal >= 0) & (signal <= 1))):
        raise ValueError(
            f"{path}: the scheduler's betas leave no noise schedule (beta_start "
            f"{scheduler.config.beta_start}, beta_end {scheduler.config.beta_end})"
        )
    return scheduler
