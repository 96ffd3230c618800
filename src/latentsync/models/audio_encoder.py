"""Waveform => states at 50 Hz that the UNet listens to, and the window of them per frame."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, Self, runtime_checkable

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Int
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F
from transformers import WhisperConfig
from transformers.audio_utils import mel_filter_bank
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from latentsync.media.mel import mel_spectrogram
from latentsync.models.frozen import Frozen

STATES_PER_SECOND = 50
# In frames of Whisper's mel, of which two make a state.
WINDOW_MEL_FRAMES = 3000
OVERLAP_MEL_FRAMES = 600
FADE_STATES = 100


@runtime_checkable
class AudioEncoder(Protocol):
    """Anything that turns a 16 kHz waveform into `l` states of width `d`, 50 times a second.

    `parity` asks for the states that the official code makes, where there is a better way.
    """

    def __call__(
        self, waveform: Float[Tensor, " t"], *, parity: bool = False
    ) -> Float[Tensor, "n l d"]: ...


class MelAudioEncoder:
    """Audio states without weights: two log-mel rows of 10 ms per state, in [-1, 1].

    The official code has no such states: `parity` changes nothing.
    """

    def __call__(
        self, waveform: Float[Tensor, " t"], *, parity: bool = False
    ) -> Float[Tensor, "n 2 80"]:
        mel = mel_spectrogram(waveform, hop_length=160) / 4
        num_states = mel.shape[-1] // 2
        return rearrange(mel[:, : 2 * num_states], "m (n l) -> n l m", l=2)


class WhisperAudioEncoder:
    """The states of a Whisper encoder: its input with positions, and every block's output.

    The last one is taken before the final layer norm, as the published UNets were trained with.
    Windows of 30 s are encoded one by one. They overlap and fade into each other, so that no seam
    is heard; in parity they stand side by side, as in the official code. A short one is padded
    with zeros of the normalised mel.
    """

    def __init__(self, encoder: WhisperEncoder) -> None:
        self.net = Frozen(encoder)

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> Self:
        """The encoder of a local Whisper folder in the layout of transformers."""
        folder = Path(folder)
        for name in ("config.json", "model.safetensors"):
            if not (folder / name).is_file():
                raise FileNotFoundError(
                    f"no Whisper in {folder}: it has no {name}; put the files of "
                    "openai/whisper-tiny there, or name the folder that holds them"
                )
        encoder = WhisperEncoder(WhisperConfig.from_pretrained(folder))
        state = encoder_state(load_file(folder / "model.safetensors"))
        encoder.load_state_dict({key: value.float() for key, value in state.items()}, strict=True)
        return cls(encoder)

    @classmethod
    def from_config(cls, config: WhisperConfig) -> Self:
        """An encoder with random weights."""
        return cls(WhisperEncoder(config))

    def to(self, device: torch.device | str) -> Self:
        """Move the network, in place."""
        self.net.to(device)
        return self

    @torch.no_grad()
    def __call__(
        self, waveform: Float[Tensor, " t"], *, parity: bool = False
    ) -> Float[Tensor, "n l d"]:
        encoder = self.net.net
        mel = whisper_mel(waveform, num_bands=encoder.config.num_mel_bins)
        starts = window_starts(mel.shape[1], overlap=0 if parity else OVERLAP_MEL_FRAMES)
        windows = (
            block_states(encoder, mel[:, start : start + WINDOW_MEL_FRAMES]) for start in starts
        )
        return joined(windows, [start // 2 for start in starts])


def window_starts(num_mel_frames: int, *, overlap: int) -> list[int]:
    """Where the windows of 30 s begin that cover a mel.

    With an overlap, each shares at least so much with the one before, and the last one ends with
    the mel, so that it hears 30 s as well.
    """
    if num_mel_frames <= WINDOW_MEL_FRAMES or overlap == 0:
        return list(range(0, num_mel_frames, WINDOW_MEL_FRAMES))
    last = (num_mel_frames - WINDOW_MEL_FRAMES) // 2 * 2
    return [*range(0, last, WINDOW_MEL_FRAMES - overlap), last]


def joined(
    windows: Iterable[Float[Tensor, "_ l d"]], starts: Sequence[int]
) -> Float[Tensor, "n l d"]:
    """The states of windows that begin at the given states, fading where two overlap."""
    whole = []
    tail = None
    for window, start, following in zip(windows, starts, [*starts[1:], None], strict=True):
        if tail is not None:
            window = torch.cat([faded(tail, window[: len(tail)]), window[len(tail) :]])
        step = len(window) if following is None else following - start
        whole.append(window[:step])
        tail = window[step:]
    return torch.cat(whole)


def faded(before: Float[Tensor, "n l d"], after: Float[Tensor, "n l d"]) -> Float[Tensor, "n l d"]:
    """From one to the other within two seconds in the middle, where both know what is around."""
    length = len(before)
    places = torch.arange(length, device=before.device) + 0.5 - length / 2
    weights = (places / min(FADE_STATES, max(length, 1)) + 0.5).clamp(0, 1)[:, None, None]
    return before + weights * (after - before)


def frame_tokens(
    states: Float[Tensor, "n l d"],
    frames: Int[Tensor, " f"],
    *,
    before: int = 4,
    after: int = 6,
    fps: float = 25.0,
) -> Float[Tensor, "f s d"]:
    """The states around each video frame, time outer and layer inner; edges are repeated."""
    centres = (frames.double() * STATES_PER_SECOND / fps).floor().long()
    rows = centres[:, None] + torch.arange(-before, after, device=frames.device)
    return rearrange(states[rows.clamp(0, states.shape[0] - 1)], "f n l d -> f (n l) d")


def num_parity_frames(num_states: int, *, fps: float = 25.0) -> int:
    """How many video frames the official code gives so many states: two more than they last.

    It counts up to the first frame whose centre lies beyond the states, and takes that one too.
    """
    frame = 0
    while int(frame * STATES_PER_SECOND / fps) <= num_states:
        frame += 1
    return frame + 1


def whisper_mel(
    waveform: Float[Tensor, " t"], *, num_bands: int = 80
) -> Float[Tensor, "num_bands n"]:
    """Whisper's log-mel at 100 Hz; its floor is 8 decades of power below the file's maximum."""
    window = torch.hann_window(400, device=waveform.device)
    spectrum = torch.stft(waveform, 400, 160, window=window, return_complex=True)[:, :-1]
    filters = mel_filter_bank(
        num_frequency_bins=201,
        num_mel_filters=num_bands,
        min_frequency=0.0,
        max_frequency=8000.0,
        sampling_rate=16000,
        norm="slaney",
        mel_scale="slaney",
    ).astype(np.float32)
    power = torch.from_numpy(filters).to(waveform.device).T @ spectrum.abs().square()
    log_mel = power.clamp(min=1e-10).log10()
    return (log_mel.clamp(min=log_mel.max() - 8) + 4) / 4


def encoder_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The encoder's part of the tensors of a whole Whisper, or all those of an encoder alone."""
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

    `mel` holds 30 s at most; what the padding behind it makes is cut off.
    """
    weight = encoder.conv1.weight
    padded = F.pad(mel, (0, WINDOW_MEL_FRAMES - mel.shape[1]))[None].to(weight)
    hidden = F.gelu(encoder.conv2(F.gelu(encoder.conv1(padded)))).mT
    states = [hidden + encoder.embed_positions.weight]
    for layer in encoder.layers:
        states.append(layer(states[-1], None))
    return rearrange(torch.stack(states), "l 1 n d -> n l d")[: mel.shape[1] // 2]
