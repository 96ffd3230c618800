"""Measures of sound are what the formulas of sines and noise say."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from coded import write_coded_video
from latentsync.prepare import AlignedSegment, Limit, MeasureSound, Recipe, prepare_clips
from latentsync.prepare.sound import (
    FLOOR_DB,
    clipping,
    digital_silence,
    level_db,
    loudest_db,
    speech_by_level,
)
from latentsync.prepare.stage import Source

RATE = 16_000


def sine(seconds: float, amplitude: float, hertz: float = 440) -> torch.Tensor:
    time = torch.arange(round(seconds * RATE), dtype=torch.float64) / RATE
    return (amplitude * torch.sin(2 * torch.pi * hertz * time)).float()


@pytest.mark.parametrize("amplitude", [1.0, 0.1, 0.001])
def test_the_level_of_a_sine(amplitude):
    expected = 20 * math.log10(amplitude / math.sqrt(2))
    assert level_db(sine(2, amplitude)) == pytest.approx(expected, abs=0.001)
    assert loudest_db(sine(2, amplitude)) == pytest.approx(expected, abs=0.001)
    assert loudest_db(sine(0.3, amplitude)) == pytest.approx(expected, abs=0.001)


def test_a_quarter_of_a_sound_has_6_db_less_and_its_loudest_second_is_found():
    for before in (0, 3, 6):
        waveform = torch.cat(
            [torch.zeros(before * RATE), sine(2, 0.1), torch.zeros((6 - before) * RATE)]
        )
        assert level_db(waveform) == pytest.approx(level_db(sine(2, 0.1)) - 6.02, abs=0.01)
        assert loudest_db(waveform) == pytest.approx(-23.01, abs=0.01)


def test_digital_silence_is_the_share_of_zeros_and_noise_is_none():
    assert level_db(torch.zeros(RATE)) == loudest_db(torch.zeros(RATE)) == FLOOR_DB
    dither = torch.arange(RATE) % 2 / 32768
    assert digital_silence(torch.cat([sine(3, 0.5), dither])) == pytest.approx(0.25, abs=0.005)
    noise = 0.001 * torch.randn(RATE, generator=torch.Generator().manual_seed(0))
    assert digital_silence(noise) == 0


@pytest.mark.parametrize("gain", [0.9, 1.5, 4.0])
def test_the_clipped_share_of_a_sine(gain):
    """It exceeds 1 outside the arc sine of 1 / gain."""
    expected = 0 if gain < 1 else 1 - 2 / math.pi * math.asin(1 / gain)
    assert clipping(sine(4, gain, 441.7).clamp(-1, 1)) == pytest.approx(expected, abs=0.02)


def test_speech_is_where_it_is_not_silent():
    """A hum 50 dB below the voice is silence; a pause of 0.1 s is none."""
    hum = sine(12, 0.0015, 100)
    voice = torch.zeros(12 * RATE)
    voice[2 * RATE : 5 * RATE] = sine(3, 0.5)
    voice[3 * RATE : round(3.1 * RATE)] = 0
    assert speech_by_level(voice + hum) == pytest.approx(0.25, abs=0.01)
    assert speech_by_level(torch.zeros(RATE)) == 0
    assert speech_by_level(sine(1, 0.5)) == 1


@pytest.mark.filterwarnings("ignore:.*torch.jit.load.*:FutureWarning")
def test_silero_hears_no_speech_in_a_sine():
    pytest.importorskip("silero_vad")
    assert measured(sine(3, 0.5), "silero")["speech_share"] == 0


def measured(waveform: torch.Tensor, vad: str = "level") -> dict:
    source = Source(Path("a"), "a", "a", Path())
    aligned = AlignedSegment(source, 0, 0, [], np.zeros(0), waveform)
    (made,) = MeasureSound(vad=vad).run(aligned)
    return made.measures


def test_a_vad_that_there_is_not_is_refused():
    with pytest.raises(ValueError, match="vad=mine must be one of level, silero"):
        MeasureSound(vad="mine")
    try:
        import silero_vad  # noqa: F401
    except ModuleNotFoundError:
        with pytest.raises(ValueError, match=r"pip install silero-vad, or give prepare\.vad=level"):
            measured(sine(1, 0.5), "silero")


def test_a_soundless_sound_is_dropped_with_its_level(recipe: Recipe, tmp_path):
    write_coded_video(tmp_path / "raw" / "dead.mp4", 55)
    write_coded_video(tmp_path / "raw" / "loud.mp4", 55, loud=range(55))
    limits = {"loudest_db": Limit(min=-50, stage="sound")}
    prepare_clips(tmp_path / "raw", tmp_path / "set", stages=recipe.stages(), limits=limits)
    (kept,) = (tmp_path / "set" / "manifest.jsonl").read_text().splitlines()
    assert json.loads(kept)["loudest_db"] == pytest.approx(-9.03, abs=0.3)  # through AAC
    (line,) = (tmp_path / "set" / "dropped.jsonl").read_text().splitlines()
    dropped = json.loads(line)
    assert (dropped["source"], dropped["stage"]) == ("dead.mp4", "sound")
    assert (dropped["value"], dropped["threshold"]) == (FLOOR_DB, -50)
