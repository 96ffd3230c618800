"""Whisper encoders, from a folder in transformers' layout."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F
from transformers import WhisperConfig
from transformers.audio_utils import mel_filter_bank
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from latentsync.config_files import check_types, made, misfits, read_json, some
from latentsync.files import publish
from latentsync.models.audio.encoders import HOP, STATES_PER_SECOND, WINDOW_MEL_FRAMES, around
from latentsync.models.audio.stream import StateStream
from latentsync.models.frozen import Frozen, weights_digest

OVERLAP_MEL_FRAMES = 600


class WhisperAudioEncoder:
    """The hidden states of a Whisper encoder: its input with positions, and every block's output.

    The last one is taken before the final layer norm, as in the training of the published UNets.
    Windows of 30 s are encoded one by one. They overlap and cross-fade to avoid seams; without
    `overlap` they are adjacent, as in the official code. A short one is padded with zeros of the
    normalised mel.
    """

    name: ClassVar[str] = "whisper"
    rate = float(STATES_PER_SECOND)

    def __init__(self, encoder: WhisperEncoder) -> None:
        self.net = Frozen(encoder)

    @property
    def width(self) -> int:
        return self.net.net.config.d_model

    @property
    def states_name(self) -> str:
        """`whisper-` and a hash of the weights, independent of the path."""
        return f"whisper-{weights_digest(self.net.net)}"

    @classmethod
    def load(cls, folder: Path | str) -> Self:
        """Load a local Whisper folder in transformers' layout."""
        folder = Path(folder)
        for name in ("config.json", "model.safetensors"):
            if not (folder / name).is_file():
                raise FileNotFoundError(
                    f"no Whisper in {folder}: it has no {name}; put the files of "
                    "openai/whisper-tiny there, or name the folder that holds them"
                )
        path = folder / "config.json"
        values = read_json(path)
        check_types(values, WhisperConfig().to_dict(), path)
        config = made(WhisperConfig.from_dict, values, path, what="Whisper")
        with torch.device("meta"):
            outline = made(WhisperEncoder, config, path, what="Whisper")
        try:
            state = encoder_state(load_file(folder / "model.safetensors"))
        except SafetensorError as error:
            raise ValueError(
                f"{folder / 'model.safetensors'} is damaged or cut short: {error}"
            ) from error
        unfit = misfits(outline.state_dict(), state)
        if unfit:
            raise ValueError(
                f"{len(unfit)} tensors of {folder} do not fit its config.json: {some(unfit)}"
            )
        encoder = WhisperEncoder(config)
        encoder.load_state_dict({key: value.float() for key, value in state.items()}, strict=True)
        return cls(encoder)

    def save(self, folder: Path) -> None:
        """Write a folder readable by `load`."""
        folder.mkdir(parents=True, exist_ok=True)
        self.net.net.config.save_pretrained(folder)
        state = self.net.net.state_dict()
        with publish(folder / "model.safetensors") as path:
            tensors = {key: value.cpu().contiguous() for key, value in state.items()}
            save_file(tensors, path, metadata={"format": "pt"})

    @classmethod
    def from_config(cls, config: WhisperConfig) -> Self:
        """An encoder with random weights."""
        return cls(WhisperEncoder(config))

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
        encoder = self.net.net
        mel = WhisperMel(waveform, num_bands=encoder.config.num_mel_bins)
        starts = window_starts(len(mel), overlap=OVERLAP_MEL_FRAMES if overlap else 0)
        spans = [(start, min(start + WINDOW_MEL_FRAMES, len(mel))) for start in starts]

        @torch.no_grad()
        def make(index: int) -> Float[Tensor, "n l d"]:
            # Back to the device of the sound, where windows cached by earlier runs are too.
            return block_states(encoder, mel.columns(*spans[index])).to(waveform.device)

        return StateStream([(start // 2, end // 2) for start, end in spans], make)


def window_starts(num_mel_frames: int, *, overlap: int) -> list[int]:
    """Starts of the 30 s windows that cover a mel.

    With an overlap, each shares at least that much with the previous one, and the last one ends at
    the end of the mel, so that it covers 30 s too.
    """
    if num_mel_frames <= WINDOW_MEL_FRAMES or overlap == 0:
        return list(range(0, num_mel_frames, WINDOW_MEL_FRAMES))
    last = (num_mel_frames - WINDOW_MEL_FRAMES) // 2 * 2
    return [*range(0, last, WINDOW_MEL_FRAMES - overlap), last]


def whisper_mel(
    waveform: Float[Tensor, " t"], *, num_bands: int = 80
) -> Float[Tensor, "num_bands n"]:
    """The whole log-mel input of a Whisper, see `WhisperMel`."""
    mel = WhisperMel(waveform, num_bands=num_bands)
    return mel.columns(0, len(mel))


class WhisperMel:
    """Whisper's log-mel at 100 Hz for any range of columns; its floor is 8 decades of power below
    the maximum of the whole sound, which is found first."""

    def __init__(self, waveform: Float[Tensor, " t"], *, num_bands: int = 80) -> None:
        self.waveform = waveform
        self.filters = torch.from_numpy(
            mel_filter_bank(
                num_frequency_bins=201,
                num_mel_filters=num_bands,
                min_frequency=0.0,
                max_frequency=8000.0,
                sampling_rate=16000,
                norm="slaney",
                mel_scale="slaney",
            ).astype(np.float32)
        ).to(waveform.device)
        self.loudest = max(
            self._log_power(first, min(first + WINDOW_MEL_FRAMES, len(self))).max()
            for first in range(0, len(self), WINDOW_MEL_FRAMES)
        )

    def __len__(self) -> int:
        return len(self.waveform) // HOP

    def columns(self, first: int, end: int) -> Float[Tensor, "bands n"]:
        """The columns `first` to `end` (exclusive), about in [-1, 1.5]."""
        return (self._log_power(first, end).clamp(min=self.loudest - 8) + 4) / 4

    def _log_power(self, first: int, end: int) -> Float[Tensor, "bands n"]:
        sound, skipped = around(self.waveform, first, end)
        window = torch.hann_window(400, device=sound.device)
        spectrum = torch.stft(sound, 400, HOP, window=window, return_complex=True)
        power = spectrum[:, skipped : skipped + end - first].abs().square()
        return (self.filters.T @ power).clamp(min=1e-10).log10()


def encoder_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The encoder's tensors, from those of a whole Whisper or of an encoder alone."""
    for prefix in ("model.encoder.", "encoder."):
        if any(key.startswith(prefix) for key in state):
            return {
                key.removeprefix(prefix): value
                for key, value in state.items()
                if key.startswith(prefix)
            }
    return dict(state)


def block_states(encoder: WhisperEncoder, mel: Float[Tensor, "m n"]) -> Float[Tensor, "n2 l d"]:
    """Embedded input and every block's output, without the encoder's final norm.

    `mel` holds at most 30 s; states of the padding are dropped.
    """
    weight = encoder.conv1.weight
    padded = F.pad(mel, (0, WINDOW_MEL_FRAMES - mel.shape[1]))[None].to(weight)
    hidden = F.gelu(encoder.conv2(F.gelu(encoder.conv1(padded)))).mT
    states = [hidden + encoder.embed_positions.weight]
    for layer in encoder.layers:
        states.append(layer(states[-1], None))
    return rearrange(torch.stack(states), "l 1 n d -> n l d")[: mel.shape[1] // 2]
