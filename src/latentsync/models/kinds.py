"""What a model folder can hold by name: audio encoders, and noise processes.

A folder says "whisper" or "flow_matching", never a class to import: what is not registered is
refused.
"""

from collections.abc import Mapping
from pathlib import Path

from latentsync.config_files import made
from latentsync.diffusion.ddpm import DDPM
from latentsync.diffusion.known import NOISE_PROCESSES
from latentsync.diffusion.process import NoiseProcess
from latentsync.models.audio.encoders import AudioEncoder, MelAudioEncoder
from latentsync.models.audio.hubert import HubertAudioEncoder
from latentsync.models.audio.whisper import WhisperAudioEncoder
from latentsync.registry import Registry

AUDIO_ENCODERS: Registry[AudioEncoder] = Registry(
    "audio encoder",
    "latentsync.audio_encoders",
    [MelAudioEncoder, WhisperAudioEncoder, HubertAudioEncoder],
)
register_audio_encoder = AUDIO_ENCODERS.register


def registered_audio_encoder(name: str, folder: Path | str | None = None) -> AudioEncoder:
    """The encoder of a name, with the weights of a folder if it has any."""
    return AUDIO_ENCODERS.find(name).load(Path() if folder is None else Path(folder))


def described_process(process: NoiseProcess) -> dict[str, object]:
    """What a model's config says of its noise process; ValueError if no folder can hold it."""
    name = NOISE_PROCESSES.check(process)
    if isinstance(process, DDPM):
        # Where format 1 has always had it, so that earlier programs read the folder.
        return {"process": {"name": name}, "scheduler": process.to_config()}
    return {"process": {**process.to_config(), "name": name}}


def process_from(config: Mapping[str, object], path: Path) -> NoiseProcess:
    """The process that `described_process` described, in the config file `path`.

    Folders written before processes had a name hold a DDPM.
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
