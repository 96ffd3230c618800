from pathlib import Path

import numpy as np
import pytest
import torch

from latentsync.media.mel import mel_spectrogram, mel_window

GOLDEN_DIR = Path(__file__).parents[1] / "official" / "data"


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    return dict(np.load(GOLDEN_DIR / "melspectrogram_wav5.npz"))


@pytest.fixture(scope="module")
def waveform() -> torch.Tensor:
    samples = np.load(GOLDEN_DIR / "wav5_samples.npz")["samples"]
    return torch.from_numpy(samples).float() / 32768


def test_mel_equals_the_official_one(golden: dict[str, np.ndarray], waveform: torch.Tensor) -> None:
    mel = mel_spectrogram(waveform)
    torch.testing.assert_close(mel, torch.from_numpy(golden["mel"]), atol=1e-5, rtol=0)


def test_blocks_leave_no_seam(waveform: torch.Tensor) -> None:
    # What comes before does not matter: the end of a long sound equals that of a short one.
    long = torch.cat([torch.zeros(4000 * 200), waveform])
    late = mel_spectrogram(long)[:, 4003:]
    torch.testing.assert_close(late, mel_spectrogram(waveform)[:, 3:])


@pytest.mark.parametrize(("hop_length", "rate"), [(200, 80), (160, 100)])
def test_columns_per_second(waveform: torch.Tensor, hop_length: int, rate: int) -> None:
    assert mel_spectrogram(waveform, hop_length=hop_length).shape == (80, 5 * rate + 1)


def test_silence_is_the_floor() -> None:
    assert mel_spectrogram(torch.zeros(1600)).unique().tolist() == [-4.0]


def test_no_sound_is_an_error() -> None:
    with pytest.raises(ValueError, match="empty"):
        mel_spectrogram(torch.zeros(0))


def test_windows_start_and_last_as_the_official_ones(golden: dict[str, np.ndarray]) -> None:
    mel = torch.arange(401.0).expand(80, 401)
    for frame, start in zip(golden["frame_starts"], golden["mel_starts"], strict=True):
        if start < 401:
            assert mel_window(mel, int(frame))[0, 0] == start
    for num_frames in (16, 25, 5):
        length = int(golden[f"mel_window_length_{num_frames}"])
        assert mel_window(mel, 0, num_frames=num_frames).shape == (80, length)


def test_the_last_column_is_held_at_the_end_of_a_clip() -> None:
    window = mel_window(torch.arange(60.0).expand(80, 60), 10)
    assert window[0].tolist() == [*range(32, 60), *[59] * 24]


def test_a_window_outside_the_clip_is_refused() -> None:
    with pytest.raises(AssertionError, match="frame 25 is outside 60"):
        mel_window(torch.zeros(80, 60), 25)


def test_a_long_sound_has_the_columns_of_its_parts():
    """Computed in blocks of 4096 columns (51 s), which do not affect the result."""
    sound = torch.randn(60 * 16_000, generator=torch.Generator().manual_seed(0)) / 10
    whole = mel_spectrogram(sound)
    assert whole.shape == (80, 60 * 80 + 1)
    # From second 50 to 53, with a second on either side that is cut off again.
    part = mel_spectrogram(sound[49 * 16_000 : 54 * 16_000])[:, 80:320]
    torch.testing.assert_close(whole[:, 50 * 80 : 53 * 80], part)
    torch.testing.assert_close(whole[:, :400], mel_spectrogram(sound[: 6 * 16_000])[:, :400])
    torch.testing.assert_close(whole[:, -400:], mel_spectrogram(sound[-6 * 16_000 :])[:, -400:])
