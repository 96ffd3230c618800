"""HuBERT and wav2vec 2.0 encoders, from a folder in transformers' layout."""

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from math import prod
from pathlib import Path
from typing import ClassVar, Self

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import HubertConfig, HubertModel, Wav2Vec2Config, Wav2Vec2Model

from latentsync.config_files import check_types, made, misfits, read_json, some
from latentsync.files import publish
from latentsync.media.audio import SAMPLE_RATE
from latentsync.models.audio.stream import StateStream
from latentsync.models.frozen import Frozen, weights_digest

WINDOW_SECONDS = 30
OVERLAP_SECONDS = 6
# Keyed by model_type in the folder's config.json.
KINDS: dict[str, tuple[type[HubertConfig | Wav2Vec2Config], type[HubertModel | Wav2Vec2Model]]] = {
    "hubert": (HubertConfig, HubertModel),
    "wav2vec2": (Wav2Vec2Config, Wav2Vec2Model),
}
# Names of the two parts of a weight-normed tensor in files older than torch's parametrizations.
OLD_KEYS = {
    "pos_conv_embed.conv.weight_g": "pos_conv_embed.conv.parametrizations.weight.original0",
    "pos_conv_embed.conv.weight_v": "pos_conv_embed.conv.parametrizations.weight.original1",
}
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
OWN_CONFIG = "states.json"


class HubertAudioEncoder:
    """Hidden states of a HuBERT or wav2vec 2.0. `layers` selects them: 0 is the input of the first
    block, -1 the output of the last; all of them by default.

    The state rate follows from the network's convolutions, 50 Hz in every published one.
    `normalize` says whether the network was trained on sounds with mean 0 and variance 1. Windows
    of 30 s always overlap and cross-fade: `overlap` has no effect.
    """

    name: ClassVar[str] = "hubert"

    def __init__(
        self,
        net: HubertModel | Wav2Vec2Model,
        *,
        layers: Sequence[int] | None = None,
        normalize: bool = True,
    ) -> None:
        num_states = net.config.num_hidden_layers + 1
        self.layers = list(range(num_states)) if layers is None else list(layers)
        wrong = [layer for layer in self.layers if not -num_states <= layer < num_states]
        if wrong or not self.layers:
            raise ValueError(
                f"layers must be some of 0 to {num_states - 1}, the network's hidden states, "
                f"got {self.layers}"
            )
        self.net = Frozen(net)
        self.normalize = normalize

    @property
    def width(self) -> int:
        return self.net.net.config.hidden_size

    @property
    def rate(self) -> float:
        return SAMPLE_RATE / self._hop

    @property
    def states_name(self) -> str:
        """`hubert-` and a hash of weights and layers, independent of the path."""
        return f"hubert-{weights_digest(self.net.net, self.layers, self.normalize)}"

    @classmethod
    def load(cls, folder: Path | str, *, layers: Sequence[int] | None = None) -> Self:
        """Load a local folder; a folder written by `save` also stores the layers."""
        folder = Path(folder)
        weights = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
        if weights is None or not (folder / "config.json").is_file():
            lacking = "config.json" if weights else " nor ".join(WEIGHTS)
            raise FileNotFoundError(
                f"no HuBERT in {folder}: it has no {lacking}; put the files of "
                "facebook/hubert-base-ls960 or facebook/wav2vec2-base there, or name the folder "
                "that holds them"
            )
        net = load_net(folder / "config.json", weights)
        own, preprocessor = folder / OWN_CONFIG, folder / "preprocessor_config.json"
        stored = read_json(own) if own.is_file() else {}
        given = read_json(preprocessor) if preprocessor.is_file() else {}
        normalize = stored.get("normalize", given.get("do_normalize", True))
        chosen = stored.get("layers") if layers is None else list(layers)
        check_types({"normalize": normalize, "layers": chosen}, {"normalize": True, "layers": []},
                    own)  # fmt: skip
        return made(
            lambda _: cls(net, layers=chosen, normalize=normalize),  # type: ignore[arg-type]
            None, own, what="states of a HuBERT",
        )  # fmt: skip

    def save(self, folder: Path) -> None:
        """Write a folder readable by `load` and by transformers."""
        folder.mkdir(parents=True, exist_ok=True)
        self.net.net.config.save_pretrained(folder)
        own = {"layers": self.layers, "normalize": self.normalize}
        (folder / OWN_CONFIG).write_text(json.dumps(own, indent=2) + "\n", encoding="utf-8")
        state = self.net.net.state_dict()
        with publish(folder / WEIGHTS[0]) as path:
            tensors = {key: value.cpu().contiguous() for key, value in state.items()}
            save_file(tensors, path, metadata={"format": "pt"})

    def to(self, device: torch.device | str) -> Self:
        """Move the network, in place."""
        self.net.to(device)
        return self

    def __call__(
        self, waveform: Float[Tensor, " t"], *, overlap: bool = True
    ) -> Float[Tensor, "n l d"]:
        states = self.stream(waveform, overlap=overlap)
        return states.read(0, len(states))

    def stream(self, waveform: Float[Tensor, " t"], *, overlap: bool = True) -> StateStream:
        num_states = max(1, len(waveform) // self._hop)
        window, shared = (
            max(1, round(seconds * self.rate)) for seconds in (WINDOW_SECONDS, OVERLAP_SECONDS)
        )
        spans = overlapping_spans(num_states, window, overlap=min(shared, window - 1))
        mean, deviation = moments(waveform) if self.normalize else (0.0, 1.0)

        @torch.no_grad()
        def make(index: int) -> Float[Tensor, "n l d"]:
            sound = (self._around(waveform, *spans[index]) - mean) / deviation
            weight = next(self.net.net.parameters())
            answer = self.net.net(sound[None].to(weight), output_hidden_states=True)
            chosen = [answer.hidden_states[layer][0] for layer in self.layers]
            # Back to the device of the sound, where windows cached by earlier runs are too.
            return torch.stack(chosen, dim=1).to(waveform.device)

        return StateStream(spans, make)

    def _around(self, waveform: Float[Tensor, " t"], first: int, end: int) -> Float[Tensor, " t2"]:
        """The sound of the states `first` to `end`, each in the middle of what it hears; silence
        before the beginning and behind the end."""
        margin = self._field - self._hop
        start, stop = first * self._hop - margin // 2, end * self._hop + margin - margin // 2
        inside = waveform[max(0, start) : stop]
        before = max(0, -start)
        return F.pad(inside, (before, stop - start - before - len(inside)))

    @cached_property
    def _hop(self) -> int:
        return prod(self.net.net.config.conv_stride)

    @cached_property
    def _field(self) -> int:
        """Receptive field of one state, in samples."""
        config, field, hop = self.net.net.config, 1, 1
        for kernel, stride in zip(config.conv_kernel, config.conv_stride, strict=True):
            field, hop = field + (kernel - 1) * hop, hop * stride
        return field


def load_net(config_path: Path, weights: Path) -> HubertModel | Wav2Vec2Model:
    """Load the network of a folder; every tensor must exist and fit."""
    values = read_json(config_path)
    kind = values.get("model_type")
    if kind not in KINDS:
        raise ValueError(
            f"{config_path} is of a {kind!r}: audio_encoder=hubert takes {' or '.join(KINDS)}"
        )
    make_config, make_net = KINDS[str(kind)]
    check_types(values, make_config().to_dict(), config_path)
    config = made(make_config.from_dict, values, config_path, what=str(kind))
    with torch.device("meta"):
        outline = made(make_net, config, config_path, what=str(kind))
    state = own_state(read_tensors(weights), outline)
    unfit = misfits(outline.state_dict(), state)
    if unfit:
        raise ValueError(f"{len(unfit)} tensors of {weights} do not fit its config: {some(unfit)}")
    net = make_net(config)
    net.load_state_dict({key: value.float() for key, value in state.items()}, strict=True)
    return net


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file in either format."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, EOFError) as error:
        raise ValueError(f"{path} is damaged or cut short: {error}") from error


def own_state(state: Mapping[str, Tensor], net: nn.Module) -> dict[str, Tensor]:
    """The encoder's tensors under its own names, from a file that may also hold a head.

    The embedding that masks sound in pre-training is not used here; files may lack it.
    """
    for prefix in ("hubert.", "wav2vec2."):
        if any(key.startswith(prefix) for key in state):
            state = {
                key.removeprefix(prefix): value
                for key, value in state.items()
                if key.startswith(prefix)
            }
    for old, new in OLD_KEYS.items():
        state = {key.replace(old, new): value for key, value in state.items()}
    unused = {"masked_spec_embed"}
    own = net.state_dict()
    zeros = {key: torch.zeros(own[key].shape) for key in unused if key in own}
    return {
        **zeros,
        **{key: value for key, value in state.items() if key in own or key not in unused},
    }


def overlapping_spans(num_states: int, window: int, *, overlap: int) -> list[tuple[int, int]]:
    """Windows of states that overlap by so many; the last one ends with the last state."""
    if num_states <= window:
        return [(0, num_states)]
    last = num_states - window
    starts = [*range(0, last, window - overlap), last]
    return [(start, start + window) for start in starts]


def moments(waveform: Float[Tensor, " t"]) -> tuple[float, float]:
    """Mean and standard deviation of a whole sound, with one minute in memory at a time."""
    total = squares = 0.0
    for piece in waveform.split(60 * SAMPLE_RATE):
        total += piece.double().sum().item()
        squares += piece.double().square().sum().item()
    mean = total / max(1, len(waveform))
    variance = squares / max(1, len(waveform)) - mean**2
    return mean, (max(variance, 0.0) + 1e-7) ** 0.5
