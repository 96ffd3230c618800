"""Audio states and the windows around frames."""

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import WhisperConfig

from latentsync.models import Frozen, MelAudioEncoder, WhisperAudioEncoder, frame_tokens


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


def test_whisper_windows_begin_anew_after_thirty_seconds(whisper: WhisperAudioEncoder) -> None:
    """The official quirk: what is said in the first window does not reach the second."""
    generator = torch.Generator().manual_seed(0)
    quiet = torch.randn(31 * 16000, generator=generator).clamp(-1, 1) * 0.1
    other = torch.cat([quiet[: 29 * 16000].flip(0), quiet[29 * 16000 :]])
    states, changed = whisper(quiet), whisper(other)
    assert len(states) == 31 * 50
    torch.testing.assert_close(states[1500:], changed[1500:], atol=1e-5, rtol=0)
    assert (states[1400:1500] - changed[1400:1500]).abs().max() > 1e-4


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
    alone = WhisperAudioEncoder.from_pretrained(tmp_path)
    torch.testing.assert_close(alone(waveform), whisper(waveform))

    whole = {f"model.encoder.{key}": value for key, value in encoder.state_dict().items()}
    save_file(whole | {"model.decoder.x": torch.zeros(1)}, tmp_path / "model.safetensors")
    part = WhisperAudioEncoder.from_pretrained(tmp_path)
    torch.testing.assert_close(part(waveform), whisper(waveform))


def test_a_folder_without_whisper_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"it has no config\.json; put the files"):
        WhisperAudioEncoder.from_pretrained(tmp_path)


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
