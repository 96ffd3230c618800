"""The `config.json` of a model folder: how the model's faces and audio are prepared."""

from dataclasses import dataclass, fields
from pathlib import Path

from latentsync.config_files import fits, read_json, shown
from latentsync.faces import ALIGNERS, mask_names

FORMAT_VERSION = 1
# Integer fields: minimum and maximum.
RANGES = {
    "resolution": (8, 4096),
    "num_frames": (1, 1024),
    "audio_before": (0, 1000),
    "audio_after": (0, 1000),
}
# Other numeric fields.
NUMBERS = {"fps": (1.0, 1000.0), "noise_alpha": (0.0, 1000.0)}
# Fields that older folders lack, which are as their defaults.
LATER_FIELDS = ("reference_mouth",)


@dataclass(frozen=True, slots=True)
class ModelFormat:
    """How a model's faces and audio are prepared; stored in its folder."""

    resolution: int = 256
    num_frames: int = 16
    fps: float = 25.0
    aligner: str = "smooth"
    mask: str = "mask"
    audio_before: int = 4
    audio_after: int = 6
    noise_alpha: float = 1.0
    reference_mouth: bool = True
    """Whether the UNet sees the mouth of the reference; False hides it, see `mouth_shown`."""

    def __post_init__(self) -> None:
        for name, (least, most) in RANGES.items():
            value = getattr(self, name)
            if not least <= value <= most:
                raise ValueError(
                    f"{name} must be a whole number from {least} to {most}, got {value!r}"
                )
        for name, (lowest, highest) in NUMBERS.items():
            value = getattr(self, name)
            if not lowest <= value <= highest:
                raise ValueError(
                    f"{name} must be a number from {lowest:g} to {highest:g}, got {value!r}"
                )
        if self.audio_before + self.audio_after < 1:
            raise ValueError("audio_before and audio_after are both 0: no audio would be heard")
        for name, known in (("aligner", tuple(ALIGNERS)), ("mask", mask_names())):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"no {name} is called {getattr(self, name)!r}; there are {', '.join(known)}"
                )


def read_config(folder: Path) -> dict:
    """The checked `config.json` of a model folder."""
    path = folder / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{folder} is no model folder: it has no config.json")
    config = read_json(path, unchecked=("training",))
    version = config.get("format_version")
    if version != FORMAT_VERSION:
        raise ValueError(
            f"{folder} has model format version {shown(version)}, this program reads "
            f"{FORMAT_VERSION}: export the model again with this version of latentsync"
        )
    # Folders written before processes had names hold the schedule of a DDPM.
    of_process = {"process", "scheduler"} & set(config) or {"scheduler"}
    wanted = {*ModelFormat.__dataclass_fields__} - {*LATER_FIELDS}
    wanted |= {"audio_encoder", *of_process, "training"}
    missing = sorted(wanted - set(config))
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}")
    for name in ("audio_encoder", *of_process, "training"):
        if not isinstance(config[name], dict):
            raise ValueError(f"{path}: {name} is {shown(config[name])}, an object was expected")
    return config


def read_format(config: dict, folder: Path) -> ModelFormat:
    """The part of a folder's config on how faces and audio are prepared."""
    path = folder / "config.json"
    values = {field.name: config.get(field.name, field.default) for field in fields(ModelFormat)}
    for field in fields(ModelFormat):
        if not fits(values[field.name], field.default):
            raise ValueError(
                f"{path}: {field.name} is {shown(values[field.name])}, such as {field.default!r} "
                "was expected"
            )
    try:
        return ModelFormat(**values)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
