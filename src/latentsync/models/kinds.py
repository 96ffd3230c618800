"""Parts that a model folder stores by name: audio encoders and noise processes.

A folder names "whisper" or "flow_matching", never a class to import; unregistered names are
rejected.
"""

from collections.abc import Mapping
from pathlib import Path

from latentsync.config_files import made
from latentsync.diffusion.ddpm import DDPM
from latentsync.diffusion.known import NOISE_PROCESSES
from latentsync.diffusion.process import NoiseProcess
from latentsync.models.audio.encoders import (
    AudioEncoder,
    CentredMelAudioEncoder,
    MelAudioEncoder,
)
from latentsync.models.audio.hubert import HubertAudioEncoder
from latentsync.models.audio.whisper import WhisperAudioEncoder
from latentsync.registry import Registry

AUDIO_ENCODERS: Registry[AudioEncoder] = Registry(
    "audio encoder",
    "latentsync.audio_encoders",
    [MelAudioEncoder, CentredMelAudioEncoder, WhisperAudioEncoder, HubertAudioEncoder],
)
register_audio_encoder = AUDIO_ENCODERS.register


def registered_audio_encoder(name: str, folder: Path | str | None = None) -> AudioEncoder:
    """The registered encoder of a name, with weights from a folder if it has any."""
    return AUDIO_ENCODERS.find(name).load(Path() if folder is None else Path(folder))


def described_process(process: NoiseProcess) -> dict[str, object]:
    """The config entry of a noise process; ValueError if a model folder cannot store it."""
    name = NOISE_PROCESSES.check(process)
    if isinstance(process, DDPM):
        # Its place in format 1, so that earlier versions can read the folder.
        return {"process": {"name": name}, "scheduler": process.to_config()}
    return {"process": {**process.to_config(), "name": name}}


def process_from(config: Mapping[str, object], path: Path) -> NoiseProcess:
    """The process of an entry made by `described_process`; `path` is the config file, for errors.

    Folders written before processes had names hold a DDPM.
    """
    described = config.get("process", {"name": DDPM.name})
    assert isinstance(described, dict), "read_config lets nothing else pass"
    kind = NOISE_PROCESSES.find(described.get("name"), where=f"{path}: ")
    values = {key: value for key, value in described.items() if key != "name"}
    if kind is DDPM:
        if "scheduler" not in config:
            raise ValueError(f"{path} lacks scheduler")
        values = config["scheduler"]  # type: ignore[assignment]
    return made(kind.from_config, values, path, what="noise process")
