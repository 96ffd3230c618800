"""Waveform => states at 50 Hz that the UNet listens to."""

import hashlib
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import ClassVar, Protocol, Self, runtime_checkable

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Int
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F
from transformers import WhisperConfig
from transformers.audio_utils import mel_filter_bank
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from latentsync.config_files import check_types, made, misfits, read_json, some
from latentsync.files import publish
from latentsync.media.mel import mel_spectrogram
from latentsync.models.audio.stream import StateStream
from latentsync.models.frozen import Frozen

STATES_PER_SECOND = 50
# Both mels have 100 columns a second, of which two make a state.
HOP = 160
WINDOW_MEL_FRAMES = 3000
OVERLAP_MEL_FRAMES = 600
# Columns computed beside those asked for: at a cut through the sound, spectra are wrong.
MARGIN_MEL_FRAMES = 4


@runtime_checkable
class AudioEncoder(Protocol):
    """Anything that turns a 16 kHz waveform into `l` states of width `d`, 50 times a second.

    `parity` asks for the states that the official code makes, where there is a better way.
    `stream` gives the same states in windows, made when they are asked for: hours of sound need
    memory for some minutes. It keeps the waveform (which may be mapped from a file) and reads
    slices of it.
    `to` moves its networks, in place; states come back to where the waveform is.
    `save` writes a folder of its own, which it makes if there is anything to write, and `load`
    reads it: model folders hold the encoder there, and know its class by `name`.
    """

    name: ClassVar[str]

    def __call__(
        self, waveform: Float[Tensor, " t"], *, parity: bool = False
    ) -> Float[Tensor, "n l d"]: ...

    def stream(self, waveform: Float[Tensor, " t"], *, parity: bool = False) -> StateStream: ...

    def to(self, device: torch.device | str) -> Self: ...

    def save(self, folder: Path) -> None: ...

    @classmethod
    def load(cls, folder: Path | str) -> Self: ...


class MelAudioEncoder:
    """Audio states without weights: two log-mel rows of 10 ms per state, in [-1, 1].

    The official code has no such states: `parity` changes nothing.
    """

    name: ClassVar[str] = "mel"

    def __call__(
        self, waveform: Float[Tensor, " t"], *, parity: bool = False
    ) -> Float[Tensor, "n 2 80"]:
        states = self.stream(waveform, parity=parity)
        return states.read(0, len(states))

    def stream(self, waveform: Float[Tensor, " t"], *, parity: bool = False) -> StateStream:
        num_states = (len(waveform) // HOP + 1) // 2
        step = WINDOW_MEL_FRAMES // 2
        spans = [
            (start, min(start + step, num_states)) for start in range(0, max(num_states, 1), step)
        ]

        def make(index: int) -> Float[Tensor, "n 2 80"]:
            first, end = (2 * place for place in spans[index])
            sound, skipped = around(waveform, first, end)
            mel = mel_spectrogram(sound, hop_length=HOP)[:, skipped : skipped + end - first] / 4
            return rearrange(mel, "m (n l) -> n l m", l=2)

        return StateStream(spans, make)

    def to(self, device: torch.device | str) -> Self:
        """Nothing to move: what is computed is computed where the waveform is."""
        return self

    def save(self, folder: Path) -> None:
        """Nothing to write."""

    @classmethod
    def load(cls, folder: Path | str) -> Self:
        """An encoder: there is nothing to read."""
        return cls()


class WhisperAudioEncoder:
    """The states of a Whisper encoder: its input with positions, and every block's output.

    The last one is taken before the final layer norm, as the published UNets were trained with.
    Windows of 30 s are encoded one by one. They overlap and fade into each other, so that no seam
    is heard; in parity they stand side by side, as in the official code. A short one is padded
    with zeros of the normalised mel.
    """

    name: ClassVar[str] = "whisper"

    def __init__(self, encoder: WhisperEncoder) -> None:
        self.net = Frozen(encoder)

    @classmethod
    def load(cls, folder: Path | str) -> Self:
        """The encoder of a local Whisper folder in the layout of transformers."""
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
        """Write a folder that `load` reads."""
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
        self, waveform: Float[Tensor, " t"], *, parity: bool = False
    ) -> Float[Tensor, "n l d"]:
        states = self.stream(waveform, parity=parity)
        return states.read(0, len(states))

    def stream(self, waveform: Float[Tensor, " t"], *, parity: bool = False) -> StateStream:
        encoder = self.net.net
        mel = WhisperMel(waveform, num_bands=encoder.config.num_mel_bins)
        starts = window_starts(len(mel), overlap=0 if parity else OVERLAP_MEL_FRAMES)
        spans = [(start, min(start + WINDOW_MEL_FRAMES, len(mel))) for start in starts]

        @torch.no_grad()
        def make(index: int) -> Float[Tensor, "n l d"]:
            # Back to where the sound is: windows of earlier runs lie there too.
            return block_states(encoder, mel.columns(*spans[index])).to(waveform.device)

        return StateStream([(start // 2, end // 2) for start, end in spans], make)


def encoder_name(encoder: AudioEncoder) -> str:
    """Names what an encoder makes of sound: those of one name make the same states.

    A Whisper is named by its weights, wherever they lie. One from elsewhere is named by its class,
    whose weights nobody here can compare.
    """
    if isinstance(encoder, MelAudioEncoder):
        return "mel"
    if not isinstance(encoder, WhisperAudioEncoder):
        return type(encoder).__name__
    digest = hashlib.sha256()
    for name, value in sorted(encoder.net.net.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().float().cpu().contiguous().numpy().tobytes())
    return f"whisper-{digest.hexdigest()[:8]}"


def window_starts(num_mel_frames: int, *, overlap: int) -> list[int]:
    """Where the windows of 30 s begin that cover a mel.

    With an overlap, each shares at least so much with the one before, and the last one ends with
    the mel, so that it hears 30 s as well.
    """
    if num_mel_frames <= WINDOW_MEL_FRAMES or overlap == 0:
        return list(range(0, num_mel_frames, WINDOW_MEL_FRAMES))
    last = (num_mel_frames - WINDOW_MEL_FRAMES) // 2 * 2
    return [*range(0, last, WINDOW_MEL_FRAMES - overlap), last]


class TokenStream:
    """The audio tokens of frames, in any order, cheapest in their own; see `frame_tokens`."""

    def __init__(
        self, states: StateStream, *, before: int = 4, after: int = 6, fps: float = 25.0
    ) -> None:
        self.states = states
        self.before = before
        self.after = after
        self.fps = fps

    def tokens(self, frames: Int[Tensor, " f"]) -> Float[Tensor, "f s d"]:
        """The states around each frame, time outer and layer inner; edges are repeated."""
        rows = token_rows(frames, before=self.before, after=self.after, fps=self.fps)
        rows = rows.clamp(0, len(self.states) - 1)
        needed = rows.unique().tolist()
        breaks = [place for place in range(1, len(needed)) if needed[place] > needed[place - 1] + 1]
        bounds = [0, *breaks, len(needed)]
        states = torch.cat(
            [
                self.states.read(needed[start], needed[stop - 1] + 1)
                for start, stop in pairwise(bounds)
            ]
        )
        places = torch.searchsorted(torch.tensor(needed), rows)
        return rearrange(states[places], "f n l d -> f (n l) d")


def frame_tokens(
    states: Float[Tensor, "n l d"],
    frames: Int[Tensor, " f"],
    *,
    before: int = 4,
    after: int = 6,
    fps: float = 25.0,
) -> Float[Tensor, "f s d"]:
    """The states around each video frame, time outer and layer inner; edges are repeated."""
    rows = token_rows(frames, before=before, after=after, fps=fps)
    return rearrange(states[rows.clamp(0, states.shape[0] - 1)], "f n l d -> f (n l) d")


def token_rows(
    frames: Int[Tensor, " f"], *, before: int, after: int, fps: float
) -> Int[Tensor, "f n"]:
    """Which states stand around each frame; some may lie before the first or behind the last."""
    centres = (frames.double() * STATES_PER_SECOND / fps).floor().long()
    return centres[:, None] + torch.arange(-before, after, device=frames.device)


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
    """The whole log-mel that a Whisper hears, see `WhisperMel`."""
    mel = WhisperMel(waveform, num_bands=num_bands)
    return mel.columns(0, len(mel))


class WhisperMel:
    """Whisper's log-mel at 100 Hz in any stretches; its floor is 8 decades of power below the
    loudest of the whole sound, which is found first."""

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


def around(waveform: Float[Tensor, " t"], first: int, end: int) -> tuple[Float[Tensor, " t2"], int]:
    """The sound that the mel columns `first` to `end` need, and how many columns too early it
    begins."""
    start = max(0, first - MARGIN_MEL_FRAMES)
    return waveform[start * HOP : (end + MARGIN_MEL_FRAMES) * HOP], first - start


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
