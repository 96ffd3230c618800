"""Weight files: read without running code, identified by keys, loaded strictly, written whole.

All weight files are read here, so that errors about wrong files are consistent.
"""

import io
import logging
import pickle
import pickletools
import warnings
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TypeVar, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from latentsync.config_files import misfits, some
from latentsync.files import publish

logger = logging.getLogger(__name__)

State = dict[str, Tensor]
Net = TypeVar("Net", bound=nn.Module)

MID_AUDIO_KEY = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"
OLD_MID_AUDIO_KEY = MID_AUDIO_KEY.replace(".attn2.", ".audio_cross_attn.attn.")
VISUAL_INPUT_KEY = "visual_encoder.conv_in.weight"

# Kind of file => keys that identify it, all required; the first match wins.
SIGNATURES: dict[str, tuple[str, ...]] = {
    "UNet": ("conv_in.weight", "conv_out.weight", MID_AUDIO_KEY),
    "UNet of version 1.0": ("conv_in.weight", "conv_out.weight", OLD_MID_AUDIO_KEY),
    "SyncNet": (VISUAL_INPUT_KEY, "audio_encoder.conv_in.weight"),
    "Wav2Lip SyncNet": ("audio_encoder.0.conv_block.0.weight",),
    "SyncNet v2": ("netcnnaud.0.weight", "netcnnlip.0.weight"),
    "S3FD": ("vgg.0.weight", "L2Norm3_3.weight"),
    "LR-ASD": (
        "model.visualEncoder.block1.s_1.weight",
        "model.detector.gru_forward.weight_ih_l0",
    ),
    "VAE": ("encoder.conv_in.weight", "decoder.conv_in.weight", "post_quant_conv.weight"),
    "Whisper": ("encoder.conv1.weight", "encoder.blocks.0.attn.query.weight"),
    "Whisper in the layout of transformers": (
        "model.encoder.conv1.weight",
        "model.encoder.layers.0.fc1.weight",
    ),
    "Stable Diffusion checkpoint": ("model.diffusion_model.input_blocks.0.0.weight",),
}
LIGHTNING_KEY = "pytorch-lightning_version"
# Phrases in torch's errors about pickles that would call or build something.
SIGNS_OF_CODE = (
    "unsupported GLOBAL",
    "Unsupported global",
    "Unsupported class",
    "call reduce",
    "Can only build",
)

# Modules a pickle of weights may import; anything else is reported by name.
WEIGHT_MODULES = ("torch", "collections", "_codecs", "numpy")
MAX_PICKLE_BYTES = 64 << 20
NUM_PICKLES = 5  # of a file written by torch before 1.6

# Prefixes of our training checkpoints => networks.
TASK_NETWORKS = {"unet": "UNet", "syncnet": "SyncNet", "vae": "VAE", "reader": "mouth reader"}


def read(path: Path | str) -> dict[str, object]:
    """The content of a `.safetensors` file or a code-free pickle; large tensors are memory-mapped.

    FileNotFoundError if the path is no file, ValueError if it is truncated, is no weight file or
    would run code.
    """
    path = Path(path)
    if not path.is_file():
        if path.is_dir():
            raise FileNotFoundError(f"{path} is a folder, not a weight file")
        raise FileNotFoundError(f"there is no weight file {path}")
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        mapped = zipfile.is_zipfile(path)
        with warnings.catch_warnings():
            # About the pickle protocol; unreadable files are reported below.
            warnings.filterwarnings("ignore", "Detected pickle protocol", UserWarning)
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except (
        SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, LookupError, TypeError,
        ValueError, AttributeError,
    ) as error:  # fmt: skip
        raise ValueError(_why_unreadable(path, error)) from error
    if not isinstance(content, dict):
        raise ValueError(
            f"{path} holds a {type(content).__name__} where a dict of tensors should be"
        )
    return content


def _why_unreadable(path: Path, error: Exception) -> str:
    named = globals_of(path)
    called = [name for name in named if name.split(".")[0] not in WEIGHT_MODULES]
    if called or any(sign in str(error) for sign in SIGNS_OF_CODE):
        what = f"it names {called[0]}" if called else f"it names {', '.join(named[:3])}"
        return (
            f"{path} holds code, not only tensors, and is not opened ({what}); get the file "
            "anew from its publisher, as .safetensors if there is one"
        )
    lines = [line.strip() for line in str(error).splitlines()]
    # torch suggests opening it with weights_only=False; nobody should.
    own = [line for line in lines if line and "weights_only" not in line]
    reason = own[0] if own else type(error).__name__
    return f"{path} is cut short or is no weight file ({reason}); download it again"


def globals_of(path: Path) -> list[str]:
    """The names a pickle would import, without running it; as far as a broken file can be read."""
    found: list[str] = []
    texts: list[str] = []
    # If it is broken or no pickle at all, what was read so far counts.
    with suppress(ValueError, OSError, zipfile.BadZipFile, LookupError, RuntimeError):
        stream = _pickled(path)
        for _ in range(NUM_PICKLES):
            for opcode, argument, _ in pickletools.genops(stream):
                if opcode.name in ("GLOBAL", "INST"):
                    found.append(str(argument).replace(" ", "."))
                elif opcode.name == "STACK_GLOBAL":
                    found.append(".".join(texts[-2:]))
                elif isinstance(argument, str):
                    texts.append(argument)
    return found


def _pickled(path: Path) -> io.BytesIO:
    """The pickle of a file in either of torch's formats."""
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            return io.BytesIO(file.read(MAX_PICKLE_BYTES))
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith("data.pkl")]
        if not names:
            raise ValueError(f"{path} is a zip archive without a pickle")
        name = names[0]
        with archive.open(name) as member:
            return io.BytesIO(member.read(MAX_PICKLE_BYTES))


def read_state(path: Path | str) -> State:
    """The tensors of a weight file in float32, at the top level or under `state_dict`.

    ValueError for a LoRA, a checkpoint of our own runs, or a file without tensors.
    """
    state = raw_state(path)
    if any(value.dtype in (torch.float16, torch.bfloat16) for value in state.values()):
        logger.info("%s is in half precision: cast to float32", path)
    return {
        key: value.float() if value.is_floating_point() else value for key, value in state.items()
    }


def raw_state(path: Path | str) -> State:
    """As `read_state`, but memory-mapped and in the file's dtypes: cheap for keys and shapes."""
    content = read(path)
    kind = kind_of(content)
    if LIGHTNING_KEY in content:
        raise ValueError(
            f"{path} is a {kind}, not a published file; turn it into one first: "
            f"python -m latentsync.weights export {path} OUT.pt"
        )
    if kind == "LoRA":
        raise ValueError(
            f"{path} is a LoRA: small updates to the weights of a network that it does not hold; "
            "merge it into that network's file first and give the merged file"
        )
    state = cast(State, content.get("state_dict", content))
    if not isinstance(state, Mapping) or not all(
        isinstance(value, Tensor) for value in state.values()
    ):
        what = describe(content) if kind == "unknown" else f"a {kind}"
        raise ValueError(f"{path} holds no state dict but {what}")
    return dict(state)


def kind_of(content: Mapping[str, object]) -> str:
    """The kind of a file by its keys; "unknown" if no signature matches."""
    if LIGHTNING_KEY in content:
        parts = {key.split(".")[0] for key in cast(State, content.get("state_dict", {}))}
        networks = [name for part, name in TASK_NETWORKS.items() if part in parts]
        return (
            f"training checkpoint of a {' and a '.join(networks) or 'network of another program'}"
        )
    if "model_state_dict" in content:
        content = cast(Mapping[str, object], content["model_state_dict"])
    elif isinstance(content.get("state_dict"), Mapping):
        content = cast(Mapping[str, object], content["state_dict"])
    if any(".lora_" in key or key.startswith("lora_") for key in content):
        return "LoRA"
    return next(
        (kind for kind, keys in SIGNATURES.items() if all(key in content for key in keys)),
        "unknown",
    )


def require(state: Mapping[str, Tensor], path: Path | str, kind: str, *keys: str) -> None:
    """Raise ValueError unless the state has all the keys: else it is another kind of network."""
    missing = [key for key in keys if key not in state]
    if not missing:
        return
    found = kind_of(state)
    what = describe(state) if found in (kind, "unknown") else f"a {found}"
    raise ValueError(f"{path} is no official {kind}: it has no {missing[0]}; it holds {what}")


def describe(content: Mapping[str, object]) -> str:
    """The first keys of a file and their number, for error messages."""
    return f"{len(content)} entries ({', '.join(list(content)[:3])}, ...)"


def build(make: Callable[[], Net], state: Mapping[str, Tensor], path: Path | str) -> Net:
    """A new network that uses the tensors of a file directly: no initialisation and no copy."""
    with torch.device("meta"):
        net = make()
    return load_strictly(net, state, path)


def infer(
    reads: Callable[[Mapping[str, Tensor]], dict[str, object]],
    state: Mapping[str, Tensor],
    path: Path | str,
) -> dict[str, object]:
    """The config that `reads` infers from the tensors of a file; it is logged."""
    try:
        config = reads(state)
    except (KeyError, IndexError) as error:
        raise ValueError(
            f"{path} lacks a tensor that its shape is read off ({error}): it is damaged, or of "
            "another network"
        ) from error
    logger.info("%s: its tensors say %s", path, config)
    return config


def load_strictly(net: Net, state: Mapping[str, Tensor], path: Path | str) -> Net:
    """Load a state into a network, in eval mode; ValueError lists the tensors that do not fit.

    A network on the meta device adopts the given tensors, any other one copies them.
    """
    check_fit(net.state_dict(), state, path, type(net).__name__)
    on_meta = any(value.is_meta for value in net.state_dict().values())
    net.load_state_dict(state, strict=True, assign=on_meta)
    return net.eval()


def check_fit(
    own: Mapping[str, Tensor], given: Mapping[str, Tensor], path: Path | str, kind: str
) -> None:
    """Raise ValueError if a tensor is missing, unexpected or of another shape.

    The message has the first five, each with its name, its shape in the file and its shape here.
    """
    unfit = misfits(own, given)
    if unfit:
        raise ValueError(f"{len(unfit)} tensors of {path} do not fit a {kind}: {some(unfit)}")


def write(content: dict[str, object], path: Path | str) -> None:
    """Save with torch; the file appears only once complete."""
    with publish(Path(path)) as partial:
        torch.save(content, partial)


def replace_all(key: str, parts: Mapping[str, str]) -> str:
    """Apply all replacements to a key, in order."""
    for old, new in parts.items():
        key = key.replace(old, new)
    return key
