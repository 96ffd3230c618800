"""Whisper states and windows equal those of the official audio code."""

from pathlib import Path

import numpy as np
import pytest
import torch

from latentsync.models import WhisperAudioEncoder, frame_tokens, num_official_frames
from latentsync.models.audio.encoders import STATES_PER_SECOND
from latentsync.models.audio.whisper import whisper_mel
from latentsync.weights import load_official_whisper
from official.recipe import DATA, official_shapes, recipe_value

DIMS = {
    "n_mels": 80,
    "n_audio_ctx": 1500,
    "n_audio_state": 384,
    "n_audio_head": 6,
    "n_audio_layer": 4,
}
REAL_WHISPER = Path(__file__).parents[3] / "shared/models/whisper-tiny.en"


@pytest.fixture(scope="module")
def waveform() -> torch.Tensor:
    samples = np.load(DATA / "wav5_samples.npz")["samples"]
    return torch.from_numpy(samples).float() / 32768


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    return dict(np.load(DATA / "whisper_wav5.npz"))


@pytest.fixture(scope="module")
def states(waveform: torch.Tensor, tmp_path_factory: pytest.TempPathFactory) -> torch.Tensor:
    """States of a file in OpenAI's layout, filled by the recipe."""
    path = tmp_path_factory.mktemp("whisper") / "tiny.pt"
    state = {
        name: sinusoids(*shape) if "positional" in name else recipe_value(name, shape)
        for name, shape in official_shapes("whisper_tiny_encoder").items()
    }
    torch.save({"dims": DIMS, "model_state_dict": state}, path)
    return load_official_whisper(path)(waveform)


def sinusoids(length: int, width: int) -> torch.Tensor:
    """Sines in the first half of the channels, cosines in the second, as in Whisper's paper."""
    rates = torch.exp(-np.log(10000) / (width // 2 - 1) * torch.arange(width // 2))
    angles = torch.arange(length)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def test_log_mel(waveform: torch.Tensor, golden: dict[str, np.ndarray]) -> None:
    np.testing.assert_allclose(whisper_mel(waveform)[:, ::10], golden["mel"], atol=1e-4)


def test_states(states: torch.Tensor, golden: dict[str, np.ndarray]) -> None:
    assert states.shape == (250, 5, 384)
    np.testing.assert_allclose(states[::10], golden["feat"], atol=1e-3)


def test_tokens_of_every_frame(states: torch.Tensor, golden: dict[str, np.ndarray]) -> None:
    frames = torch.from_numpy(golden["chunk_pick"])
    tokens = frame_tokens(states, frames)
    assert tokens.shape == (len(frames), 50, 384)
    np.testing.assert_allclose(tokens[:, ::10], golden["chunks_every"], atol=1e-3)


def test_rows_of_every_frame(golden: dict[str, np.ndarray]) -> None:
    rows = torch.arange(250.0)[:, None, None]
    frames = torch.arange(len(golden["chunk_index"]))
    np.testing.assert_array_equal(frame_tokens(rows, frames)[..., 0], golden["chunk_index"])
    assert num_official_frames(250) == len(frames)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": {}}, tmp_path / "unet.pt")
    with pytest.raises(ValueError, match="no OpenAI Whisper file"):
        load_official_whisper(tmp_path / "unet.pt")


@pytest.mark.skipif(not REAL_WHISPER.is_dir(), reason=f"there are no weights in {REAL_WHISPER}")
def test_both_layouts_of_a_real_whisper_give_the_same_states(waveform: torch.Tensor) -> None:
    second = waveform[:16000]
    ours = WhisperAudioEncoder.load(REAL_WHISPER)(second)
    openai = load_official_whisper(REAL_WHISPER / "tiny.en.encoder.pt")(second)
    assert len(ours) == STATES_PER_SECOND
    torch.testing.assert_close(ours, openai, atol=1e-4, rtol=0)
