"""What depends on the inputs alone is made once, and found by content, never by name."""

from pathlib import Path

import numpy as np
import pytest
import torch

from latentsync.faces import FixedDetector
from latentsync.media.audio import write_wav
from latentsync.models.lipsync import LipSyncModel
from latentsync.models.unet import UNet
from latentsync.pipeline.cache import Cache, content_hash, network_hash
from latentsync.pipeline.first_pass import listen, sight
from latentsync.pipeline.silence import SilenceGate
from pipeline.inputs import POINTS, picture, write_video


class Counting(FixedDetector):
    """Counts its frames (as its parent does), and says that what it finds may be kept."""

    cache_key = "counting"


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def look(video: Path, cache: Cache, *, aligner: str = "smooth") -> tuple[Counting, object]:
    detector = Counting(POINTS)
    return detector, sight(video, detector, aligner, 32, cache=cache, progress=False)


def test_a_video_is_looked_at_once_whatever_its_name(tmp_path: Path, cache: Cache):
    video = write_video(tmp_path / "a.mp4", [picture(index) for index in range(20)])
    first, found = look(video, cache)
    assert first.num_calls == 20
    other = tmp_path / "b.mp4"
    other.write_bytes(video.read_bytes())
    again, kept = look(other, cache)
    assert again.num_calls == 0
    for a, b in zip(found.survey.tracks, kept.survey.tracks, strict=True):
        np.testing.assert_array_equal(a.points, b.points)
    np.testing.assert_array_equal(found.times.starts, kept.times.starts)
    assert (found.times.time_base, found.times.end) == (kept.times.time_base, kept.times.end)


def test_another_video_of_the_same_name_is_looked_at(tmp_path: Path, cache: Cache):
    video = write_video(tmp_path / "a.mp4", [picture(index) for index in range(20)])
    look(video, cache)
    video.unlink()
    write_video(video, [picture(index) for index in range(15)])
    detector, found = look(video, cache)
    assert detector.num_calls == 15
    assert found.survey.num_frames == 15


def test_what_was_used_longest_ago_goes_first(tmp_path: Path):
    cache = Cache(tmp_path / "cache", most_bytes=3000)
    for name in ("a", "b"):
        cache.tensor("states", name, make=lambda: torch.zeros(300))
    calls = []
    for name in ("c", "a"):
        cache.tensor("states", name, make=lambda: calls.append(1) or torch.zeros(300))
    assert len(list(cache.folder.iterdir())) == 2
    assert calls == [1, 1]


def test_networks_are_told_apart_by_training_and_alike_otherwise(tiny_model: LipSyncModel):
    net = tiny_model.unet
    twin = UNet.from_config(net.config)
    twin.load_state_dict(net.state_dict())
    assert network_hash(net) == network_hash(twin)
    with torch.no_grad():
        twin.conv_in.bias[0] += 1e-3
    assert network_hash(net) != network_hash(twin)


def test_a_file_that_changed_has_another_hash(tmp_path: Path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"one")
    before = content_hash(path)
    path.write_bytes(b"other")
    assert content_hash(path) != before


def test_a_noisy_silence_sounds_like_no_sound_at_all(tmp_path: Path, tiny_model: LipSyncModel):
    """The tokens in the middle of a noisy pause are those of digital silence."""
    time = torch.arange(3 * 16000) / 16000
    tone = 0.5 * torch.sin(2 * torch.pi * 220 * time)
    tone[16000:32000] = 0
    noise = 0.003 * torch.randn(48000, generator=torch.Generator().manual_seed(0))
    write_wav(tmp_path / "noisy.wav", tone + noise)
    write_wav(tmp_path / "nothing.wav", torch.zeros(48000))
    slots = torch.arange(34, 41)

    def tokens(name: str, mode: str) -> torch.Tensor:
        gate = SilenceGate(mode)
        voice = listen(tmp_path / name, tiny_model, gate, parity=False, cache=None)
        return voice.tokens.tokens(slots)

    nothing = tokens("nothing.wav", "off")
    torch.testing.assert_close(tokens("noisy.wav", "closed"), nothing)
    assert (tokens("noisy.wav", "off") - nothing).abs().max() > 0.1
