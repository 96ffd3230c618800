"""Audio states and the windows around frames."""

import math
import weakref
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import WhisperConfig

from latentsync.media.mel import mel_spectrogram
from latentsync.models import (
    CentredMelAudioEncoder,
    Frozen,
    MelAudioEncoder,
    StateStream,
    TokenStream,
    WhisperAudioEncoder,
    frame_tokens,
    num_official_frames,
)
from latentsync.models.audio.whisper import (
    WhisperMel,
    block_states,
    whisper_mel,
    window_starts,
)


@pytest.fixture(scope="module")
def whisper() -> WhisperAudioEncoder:
    torch.manual_seed(0)
    config = WhisperConfig(
        d_model=16, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=32
    )
    return WhisperAudioEncoder.from_config(config)


def test_tokens_are_rows_around_the_frame_in_time() -> None:
    states = torch.arange(100.0)[:, None, None] * 10 + torch.arange(3)[:, None]  # n 3 1
    tokens = frame_tokens(states, torch.tensor([10]), before=2, after=3)[0, :, 0]
    rows = [18, 19, 20, 21, 22]
    assert tokens.tolist() == [10 * row + layer for row in rows for layer in range(3)]


def test_tokens_repeat_the_edges() -> None:
    states = torch.arange(20.0)[:, None, None]
    tokens = frame_tokens(states, torch.tensor([0, 9]), before=2, after=4)[..., 0]
    assert tokens.tolist() == [[0, 0, 0, 1, 2, 3], [16, 17, 18, 19, 19, 19]]


@pytest.mark.parametrize("fps", [24.0, 30.0, 30000 / 1001])
def test_the_centre_is_the_last_state_that_has_begun(fps: float) -> None:
    states = torch.arange(500.0)[:, None, None]
    frames = torch.arange(200)
    centres = frame_tokens(states, frames, before=0, after=1, fps=fps)[:, 0, 0]
    assert centres.tolist() == [int(frame * 50 / fps) for frame in frames.tolist()]


def test_mel_states_come_fifty_times_a_second_and_know_a_tone() -> None:
    seconds = torch.arange(32000) / 16000
    tone = torch.where(seconds < 1, torch.sin(2 * math.pi * 300 * seconds), torch.zeros(1))
    states = MelAudioEncoder()(tone)
    assert states.shape == (100, 2, 80)
    assert states.abs().max() <= 1
    assert states[10:40].amax() > 0.3
    assert states[60:].amax() < -0.9


def test_whisper_states_come_fifty_times_a_second(whisper: WhisperAudioEncoder) -> None:
    assert whisper(torch.randn(24000) * 0.1).shape == (75, 3, 16)


@pytest.mark.parametrize("fps", [24.0, 25.0, 30.0])
@pytest.mark.parametrize("num_states", [1, 36, 250, 251, 1500, 2400])
def test_parity_counts_frames_past_the_last_state(num_states: int, fps: float) -> None:
    """The first frame whose centre is beyond all states, counted from 0, and one more."""
    assert num_official_frames(num_states, fps=fps) == math.ceil((num_states + 1) * fps / 50) + 1


@pytest.mark.parametrize("num_mel_frames", [1, 2999, 3001, 3002, 3100, 5400, 5403, 9000])
def test_windows_cover_the_sound_and_share_six_seconds(num_mel_frames: int) -> None:
    starts = window_starts(num_mel_frames, overlap=600)
    assert starts[0] == 0
    assert starts[-1] % 2 == 0
    assert starts[-1] + 3000 >= num_mel_frames - 1
    assert all(after - before <= 2400 for before, after in pairwise(starts))
    plain = window_starts(num_mel_frames, overlap=0)
    assert plain == [start for start in range(num_mel_frames) if start % 3000 == 0]


def windows_of(*windows: tuple[int, Tensor]) -> StateStream:
    spans = [(start, start + len(states)) for start, states in windows]
    return StateStream(spans, lambda index: windows[index][1])


def test_windows_that_agree_are_joined_to_what_they_are_cut_from(generator) -> None:
    whole = torch.randn(4000, 2, 3, generator=generator)
    starts = [0, 1200, 2400, 2500]
    stream = windows_of(*((start, whole[start : start + 1500]) for start in starts))
    torch.testing.assert_close(stream.read(0, 4000), whole)
    for first, end in [(0, 1), (1190, 1210), (2390, 2610), (3999, 4000), (1000, 3000), (7, 7)]:
        torch.testing.assert_close(stream.read(first, end), whole[first:end])


def test_windows_that_differ_fade_in_a_straight_line() -> None:
    stream = windows_of(
        *((start, torch.full((1500, 1, 1), level)) for start, level in ((0, 3.0), (1200, 5.0)))
    )
    faded = stream.read(0, 2700)[:, 0, 0]
    assert len(faded) == len(stream) == 2700
    assert faded[:1300].unique().tolist() == [3]  # the overlap is 1200 to 1500, its middle 1350
    assert faded[1400:].unique().tolist() == [5]
    torch.testing.assert_close(faded.diff()[1300:1399], torch.full((99,), 2 / 100))


def test_hours_of_states_keep_few_alive_and_make_each_window_once(generator) -> None:
    made: list[int] = []
    alive = weakref.WeakSet()

    def make(index: int) -> Tensor:
        made.append(index)
        states = torch.full((1500, 1, 1), float(index))
        alive.add(states)
        return states

    num_windows = 3 * 3600 * 50 // 1200
    stream = StateStream([(1200 * i, 1200 * i + 1500) for i in range(num_windows)], make)
    tokens = TokenStream(stream)
    most = 0
    for first in range(0, 12 * 3600 * 25 // 4, 100):  # windows of frames that go back slightly
        frames = torch.arange(max(0, first - 20), first + 16)
        assert tokens.tokens(frames).shape == (len(frames), 10, 1)
        most = max(most, len(alive))
    assert made == list(range(num_windows))
    assert most <= 4  # three cached, one being computed


@pytest.mark.parametrize("seconds", [0.5, 29.99, 30.0, 61.37])
@pytest.mark.parametrize("overlap", [False, True])
def test_tokens_of_a_stream_are_those_of_all_states(
    whisper: WhisperAudioEncoder, generator: torch.Generator, seconds: float, overlap: bool
) -> None:
    waveform = torch.randn(int(seconds * 16000), generator=generator) * 0.1
    frames = torch.tensor([0, 1, 2, 11, 10, int(seconds * 25) - 1, int(seconds * 25) + 2])
    for encoder in (MelAudioEncoder(), whisper):
        states = encoder(waveform, overlap=overlap)
        stream = TokenStream(encoder.stream(waveform, overlap=overlap))
        assert len(stream.states) == len(states)
        torch.testing.assert_close(stream.tokens(frames), frame_tokens(states, frames))


def test_mel_states_have_no_seam_between_blocks(generator: torch.Generator) -> None:
    waveform = torch.randn(75 * 16000 + 77, generator=generator) * 0.1
    mel = mel_spectrogram(waveform, hop_length=160) / 4
    expected = mel.T[: len(mel.T) // 2 * 2].unflatten(0, (-1, 2))
    torch.testing.assert_close(MelAudioEncoder()(waveform), expected, atol=1e-5, rtol=0)


def test_a_mel_in_stretches_is_the_mel_of_the_whole(generator: torch.Generator) -> None:
    """Against torch's own framing of the whole sound; the loudest part sets the floor for the
    rest."""
    waveform = torch.randn(75 * 16000 + 77, generator=generator) * 1e-5
    waveform[70 * 16000 : 71 * 16000] *= 5e4
    spectrum = torch.stft(waveform, 400, 160, window=torch.hann_window(400), return_complex=True)
    mel = WhisperMel(waveform)
    log_power = (mel.filters.T @ spectrum[:, :-1].abs().square()).clamp(min=1e-10).log10()
    expected = (log_power.clamp(min=log_power.max() - 8) + 4) / 4
    assert (expected == expected.min()).float().mean() > 0.5
    for first, end in [(0, 3000), (2998, 3005), (3000, 6000), (7000, len(mel)), (0, len(mel))]:
        torch.testing.assert_close(
            mel.columns(first, end), expected[:, first:end], atol=1e-5, rtol=0
        )


def test_long_sound_has_a_seam_every_thirty_seconds_without_overlap_only(
    whisper: WhisperAudioEncoder,
) -> None:
    waveform = torch.randn(31 * 16000, generator=torch.Generator().manual_seed(0)) * 0.1
    plain, default = whisper(waveform, overlap=False), whisper(waveform)
    assert plain.shape == default.shape == (1550, 3, 16)

    mel = whisper_mel(waveform)
    encoder = whisper.net.net
    with torch.no_grad():
        first, rest, late = (
            block_states(encoder, mel[:, part])
            for part in (slice(3000), slice(3000, None), slice(100, None))
        )
    assert torch.equal(plain, torch.cat([first, rest]))
    # Both windows of the default share states 50 to 1500 and cross-fade around the middle.
    assert torch.equal(default[:725], first[:725])
    torch.testing.assert_close(default[825:], late[775:])

    step, smooth = (states.diff(dim=0).norm(dim=(1, 2)) for states in (plain, default))
    assert step.argmax() == 1499
    assert smooth.max() < 0.5 * step.max()
    assert smooth[1490:1510].max() < 1.5 * smooth[:700].max()


def test_short_sound_is_the_same_without_overlap(whisper: WhisperAudioEncoder) -> None:
    waveform = torch.randn(30 * 16000, generator=torch.Generator().manual_seed(0)) * 0.1
    assert torch.equal(whisper(waveform), whisper(waveform, overlap=False))


def test_states_of_a_wide_whisper_are_those_of_transformers() -> None:
    """As wide as Whisper small, with fewer layers."""
    torch.manual_seed(0)
    config = WhisperConfig(
        d_model=768, encoder_layers=1, encoder_attention_heads=12, encoder_ffn_dim=64
    )
    wide = WhisperAudioEncoder.from_config(config)
    waveform = torch.randn(8000) * 0.1
    states = wide(waveform)
    assert states.shape == (25, 2, 768)
    mel = torch.nn.functional.pad(whisper_mel(waveform), (0, 2950))[None]
    with torch.no_grad():
        first, last = wide.net.net(mel, output_hidden_states=True).hidden_states
        normed = wide.net.net.layer_norm(states[:, 1])
    torch.testing.assert_close(states[:, 0], first[0, :25], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(normed, last[0, :25], atol=1e-5, rtol=1e-4)


def test_the_last_state_is_taken_before_the_final_norm(whisper: WhisperAudioEncoder) -> None:
    waveform = torch.randn(16000) * 0.1
    states = whisper(waveform)
    normed = whisper.net.net.layer_norm(states[:, -1])
    torch.testing.assert_close(normed.mean(dim=1), torch.zeros(50), atol=1e-4, rtol=0)
    assert states[:, -1].mean(dim=1).abs().max() > 1e-2


def test_a_whisper_folder_of_either_layout_loads(
    whisper: WhisperAudioEncoder, tmp_path: Path
) -> None:
    waveform = torch.randn(8000) * 0.1
    encoder = whisper.net.net
    encoder.save_pretrained(tmp_path)
    alone = WhisperAudioEncoder.load(tmp_path)
    torch.testing.assert_close(alone(waveform), whisper(waveform))

    whole = {f"model.encoder.{key}": value for key, value in encoder.state_dict().items()}
    save_file(whole | {"model.decoder.x": torch.zeros(1)}, tmp_path / "model.safetensors")
    part = WhisperAudioEncoder.load(tmp_path)
    torch.testing.assert_close(part(waveform), whisper(waveform))


def test_a_folder_without_whisper_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"it has no config\.json; put the files"):
        WhisperAudioEncoder.load(tmp_path)


def test_frozen_networks_are_no_part_of_their_owner() -> None:
    class Owner(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.judge = Frozen(torch.nn.Linear(2, 1))

    owner = Owner()
    assert not list(owner.parameters())
    assert not owner.state_dict()
    picture = torch.ones(1, 2, requires_grad=True)
    owner.judge(picture).sum().backward()
    torch.testing.assert_close(picture.grad, owner.judge.net.weight)
    assert owner.judge.net.weight.grad is None


def centred(sound: Tensor) -> Tensor:
    return CentredMelAudioEncoder()(sound)


def test_centred_rows_of_speech_have_no_mean() -> None:
    sound = 0.3 * torch.randn(4 * 16_000, generator=torch.Generator().manual_seed(0))
    mean = centred(sound)[5:-5].mean(dim=(0, 1))
    assert mean.abs().max() < 0.01
    assert MelAudioEncoder()(sound)[5:-5].mean(dim=(0, 1)).abs().max() > 0.3


def test_centred_rows_do_not_hear_volume_or_colour() -> None:
    sound = 0.4 * torch.randn(4 * 16_000, generator=torch.Generator().manual_seed(1))
    coloured = 0.5 * sound + 0.3 * sound.roll(1)  # a gain, and fewer of the high frequencies
    found = centred(coloured)[5:-5] - centred(sound)[5:-5]
    plain = (MelAudioEncoder()(coloured) - MelAudioEncoder()(sound))[5:-5]
    assert found.abs().mean() < 0.1 * plain.abs().mean()


def test_centred_rows_do_not_depend_on_pauses() -> None:
    sound = 0.3 * torch.randn(2 * 16_000, generator=torch.Generator().manual_seed(2))
    with_pause = torch.cat([torch.zeros(20 * 16_000), sound])
    assert torch.allclose(centred(with_pause)[-90:-5], centred(sound)[-90:-5], atol=0.02)
    # Silence is far below the speech, not its mean.
    assert centred(with_pause)[:900].max() < -0.2


def test_centred_rows_of_a_long_sound_have_one_mean() -> None:
    # The windows of a stream are 30 s: without the whole sound's mean each would have its own.
    generator = torch.Generator().manual_seed(3)
    sound = torch.cat(
        [level * torch.randn(30 * 16_000, generator=generator) for level in (0.3, 0.15)]
    )
    stream = CentredMelAudioEncoder().stream(sound)
    first, second = stream.read(10, 1490), stream.read(1510, 2990)
    # Half of the amplitude is 6 dB less, of 100 that span [-1, 1].
    assert float((first - second).mean()) == pytest.approx(2 * 6.02 / 100, abs=0.003)
    assert torch.equal(stream.read(1400, 1600), CentredMelAudioEncoder()(sound)[1400:1600])


@pytest.mark.parametrize("num_samples", [1, 700, 16_000])
def test_centred_silence(num_samples: int) -> None:
    states = centred(torch.zeros(num_samples))
    assert not states.any()
    assert len(states) == len(MelAudioEncoder()(torch.zeros(num_samples)))
