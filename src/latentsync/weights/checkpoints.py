"""Checkpoints of our training runs => models: tensors and the config.yaml of the run.

Tensors come from the checkpoint, everything else from the config.yaml that the run wrote next to
its checkpoints. It is read as plain values: nothing it names is imported, only the classes below
are built.
"""

from collections.abc import Callable
from pathlib import Path
from typing import cast

import yaml
from diffusers import SchedulerMixin

from latentsync.config_files import made, one_line
from latentsync.diffusion.ddpm import DDPM, SCHEDULES
from latentsync.diffusion.known import NOISE_PROCESSES
from latentsync.diffusion.process import NoiseProcess
from latentsync.models.adapted import ADAPTED_TO, with_vae
from latentsync.models.audio.encoders import AudioEncoder
from latentsync.models.codec import LatentCodec
from latentsync.models.kinds import AUDIO_ENCODERS
from latentsync.models.lipsync import LipSyncModel
from latentsync.models.model_config import ModelFormat
from latentsync.models.syncnet import StableSyncNet
from latentsync.models.unet import UNet
from latentsync.weights.files import LIGHTNING_KEY, State, build, kind_of, load_strictly, read
from latentsync.weights.whisper import load_official_whisper

Node = dict[str, object]


def is_checkpoint(path: Path) -> bool:
    """Whether a file is a Lightning checkpoint."""
    return path.is_file() and path.suffix == ".ckpt"


def load_checkpoint(path: Path | str) -> LipSyncModel | StableSyncNet:
    """The model in a checkpoint of one of our runs, as described by the run's config.yaml.

    If the run averaged its weights (EMA), these are the averaged ones.
    """
    path = Path(path)
    content = read(path)
    if LIGHTNING_KEY not in content:
        raise ValueError(f"{path} is no training checkpoint but a file of kind {kind_of(content)}")
    state = cast(State, content["state_dict"])
    config = run_config(path)
    task = cast(Node, config["task"])
    if "syncnet" in task and "model" not in task:
        given = plain(cast(Node, task["syncnet"]))
        return build(lambda: StableSyncNet(**given), part(state, "syncnet."), path)
    if "model" in task:
        model = lipsync_model(cast(Node, task["model"]), part(state, "unet."), path)
        trained = {"steps": content["global_step"], "seed": config.get("seed")}
        whose = {key: value for key, value in model.training.items() if key == ADAPTED_TO}
        model.training = {**trained, **whose}
        return model
    raise ValueError(
        f"{path} is a {kind_of(content)}: only UNets and SyncNets are exported from checkpoints; "
        "every run leaves its whole network in its model/ folder at its end"
    )


def part(state: State, prefix: str) -> State:
    """The tensors of one network of a checkpoint, in float32 and without the prefix."""
    return {
        key.removeprefix(prefix): value.float() if value.is_floating_point() else value
        for key, value in state.items()
        if key.startswith(prefix)
    }


def lipsync_model(node: Node, state: State, path: Path) -> LipSyncModel:
    """The model of a run's `task.model`, with the UNet of its checkpoint."""
    if str(node["_target_"]).endswith(".with_motion"):
        model = LipSyncModel.with_motion(str(node["folder"]), motion=str(node["motion"]))
        load_strictly(model.unet, state, path)
        return model
    if str(node["_target_"]).endswith(".with_vae"):
        model = adapted_model(node, path)
        load_strictly(model.unet, state, path)
        return model
    config = plain(cast(Node, node["unet"]))
    return LipSyncModel(
        unet=build(lambda: UNet(**config), state, path),
        codec=LatentCodec.from_pretrained(str(cast(Node, node["codec"])["folder"])),
        audio_encoder=audio_encoder(cast(Node, node["audio_encoder"]), path),
        process=noise_process(node, path),
        model_format=ModelFormat(**plain(cast(Node, node["model_format"]))),  # type: ignore[arg-type]
    )


def adapted_model(node: Node, path: Path) -> LipSyncModel:
    """The model that a run with another VAE began with."""
    values = plain(node)
    encoder = values.pop("audio_encoder", None)
    if encoder is not None:
        values["audio_encoder"] = audio_encoder(cast(Node, encoder), path)
    return made(lambda given: with_vae(**given), values, path, what="adapted model")  # type: ignore[arg-type]


def audio_encoder(node: Node, path: Path) -> AudioEncoder:
    """The audio encoder of a run; only registered classes are built."""
    words = str(node["_target_"]).split(".")
    if words[-1] == "load_official_whisper":
        return load_official_whisper(str(node["path"]))
    if words[-1] == "registered_audio_encoder":
        kind = AUDIO_ENCODERS.find(node.get("name"), where=f"{path}: ")
        return kind.load(str(node.get("folder") or "."))
    loads = words[-1] in ("load", "from_pretrained")  # the former name of `load`
    class_name = words[-2 if loads else -1]
    kinds = [kind for kind in AUDIO_ENCODERS if kind.__name__ == class_name]
    if not kinds:
        raise ValueError(
            f"{path} was trained with the audio encoder {node['_target_']}, which has no name "
            f"here (there are {', '.join(AUDIO_ENCODERS.names())}): import the module that "
            "registers it before, or take the model/ folder that its run wrote"
        )
    make: Callable[..., AudioEncoder] = kinds[0].load if loads else kinds[0]
    return make(**plain(node))


def noise_process(model: Node, path: Path) -> NoiseProcess:
    """The noise process of a run; the configs of older runs have only a DDPM schedule."""
    if "process" not in model:
        return DDPM(scheduler(cast(Node, model["scheduler"]), path))
    node = cast(Node, model["process"])
    class_name = str(node["_target_"]).rsplit(".", 1)[-1]
    if class_name == "registered_noise_process":
        kind = NOISE_PROCESSES.find(node.get("name"), where=f"{path}: ")
        return made(kind.from_config, node.get("values") or {}, path, what="noise process")  # type: ignore[arg-type]
    if class_name == DDPM.__name__:
        return DDPM(scheduler(cast(Node, node["scheduler"]), path))
    kinds = [kind for kind in NOISE_PROCESSES if kind.__name__ == class_name]
    if not kinds:
        raise ValueError(
            f"{path} was trained with the noise process {node['_target_']}, which has no name "
            f"here (there are {', '.join(NOISE_PROCESSES.names())}): import the module that "
            "registers it before, or take the model/ folder that its run wrote"
        )
    return made(kinds[0].from_config, plain(node), path, what="noise process")


def scheduler(node: Node, path: Path) -> SchedulerMixin:
    """The noise schedule of a run."""
    class_name = str(node["_target_"]).rsplit(".", 1)[-1]
    kinds = {kind.__name__: kind for kind in SCHEDULES.values()}
    if class_name not in kinds:
        raise ValueError(
            f"{path} was trained with the scheduler {node['_target_']}; a model can have "
            + ", ".join(kinds)
        )
    return kinds[class_name](**plain(node))


def run_config(checkpoint: Path) -> Node:
    """The config of the run that wrote a checkpoint."""
    path = checkpoint.resolve().parents[1] / "config.yaml"
    if not path.is_file():
        raise FileNotFoundError(
            f"{checkpoint} says nothing about its model but tensors, and {path}, which its run "
            "wrote, is not there: keep checkpoints in the folder of their run"
        )
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid YAML: {one_line(error)}") from error
    if not isinstance(config, dict) or not isinstance(config.get("task"), dict):
        raise ValueError(f"{path} is not the config of a training: it has no task")
    return cast(Node, config)


def plain(node: Node) -> Node:
    """The values of a config node without `_target_` and other special keys."""
    return {key: value for key, value in node.items() if not key.startswith("_")}
