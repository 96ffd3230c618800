"""Results that depend on inputs only are computed once, and found by content, never by name."""

import errno
import os
import threading
from collections.abc import Callable
from copy import copy
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from latentsync.diffusion import DDPM, FlowMatching
from latentsync.diffusion.sampler import Sampler
from latentsync.faces import FixedDetector
from latentsync.media.audio import write_wav
from latentsync.media.silence import SilenceGate
from latentsync.models.lipsync import LipSyncModel
from latentsync.models.unet import UNet
from latentsync.pipeline import Choice, lipsync
from latentsync.pipeline.analysis import analyze_video, encode_speech
from latentsync.pipeline.cache import Cache, content_hash, model_hash, network_hash
from latentsync.pipeline.checks import Source
from pipeline.inputs import POINTS, picture, write_video, write_voice


class Counting(FixedDetector):
    """Counts its frames (as its parent does), and declares its results to be cacheable."""

    cache_key = "counting"


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def look(video: Path, cache: Cache, *, aligner: str = "smooth") -> tuple[Counting, object]:
    detector = Counting(POINTS)
    return detector, analyze_video(
        Source.of(video), detector, aligner, 32, cache=cache, progress=False
    )


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
    cache = Cache(tmp_path / "cache", max_bytes=3000)
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


def test_models_of_the_same_weights_are_told_apart_by_what_else_they_generate_by(
    tiny_model: LipSyncModel,
):
    ddpm = tiny_model.process.to_config()
    other = {
        "process": [
            FlowMatching(),
            FlowMatching(num_train_timesteps=500),
            DDPM.from_config({**ddpm, "prediction_type": "v_prediction"}),
            DDPM.from_config({**ddpm, "beta_end": 0.03}),
        ],
        "format": [replace(tiny_model.format, audio_after=tiny_model.format.audio_after + 1)],
    }
    hashes = [model_hash(tiny_model)]
    for part, values in other.items():
        for value in values:
            model = copy(tiny_model)
            setattr(model, part, value)
            hashes.append(model_hash(model))
    assert len(set(hashes)) == len(hashes)
    same = copy(tiny_model)
    same.process = DDPM.from_config(tiny_model.process.to_config())
    assert model_hash(same) == hashes[0]


def test_a_file_that_changed_has_another_hash(tmp_path: Path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"one")
    before = content_hash(path)
    path.write_bytes(b"other")
    assert content_hash(path) != before


def test_a_noisy_silence_sounds_like_no_sound_at_all(tmp_path: Path, tiny_model: LipSyncModel):
    """The tokens in the middle of a noisy pause equal those of digital silence."""
    time = torch.arange(3 * 16000) / 16000
    tone = 0.5 * torch.sin(2 * torch.pi * 220 * time)
    tone[16000:32000] = 0
    noise = 0.003 * torch.randn(48000, generator=torch.Generator().manual_seed(0))
    write_wav(tmp_path / "noisy.wav", tone + noise)
    write_wav(tmp_path / "nothing.wav", torch.zeros(48000))
    slots = torch.arange(34, 41)

    def tokens(name: str, mode: str) -> torch.Tensor:
        gate = SilenceGate(mode)
        voice = encode_speech(tmp_path / name, tiny_model, gate, overlap=True, cache=None)
        return voice.tokens.tokens(slots)

    nothing = tokens("nothing.wav", "off")
    torch.testing.assert_close(tokens("noisy.wav", "closed"), nothing)
    assert (tokens("noisy.wav", "off") - nothing).abs().max() > 0.1


def empty(path: Path) -> None:
    path.write_bytes(b"")


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip(path: Path) -> None:
    whole = bytearray(path.read_bytes())
    whole[8:24] = b"\xff" * 16
    path.write_bytes(bytes(whole))


def of_others(path: Path) -> None:
    save_file({"other": torch.zeros(2)}, path)


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def vanish(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("spoil", [empty, cut, flip, of_others, make_folder, vanish])
def test_damaged_files_are_made_anew(
    tmp_path: Path,
    tiny_model: LipSyncModel,
    caplog: pytest.LogCaptureFixture,
    spoil: Callable[[Path], None],
):
    video = write_video(tmp_path / "a.mp4", [picture(index) for index in range(20)])
    voice = write_voice(tmp_path / "voice.wav", 0.8)
    folder = tmp_path / "cache"

    def run(name: str) -> bytes:
        lipsync(
            video,
            voice,
            tmp_path / name,
            model=tiny_model,
            detector=Counting(POINTS),
            sampler=Sampler(num_steps=1, guidance_scale=1.0),
            choice=Choice(min_size=0),
            cache=Cache(folder),
        )
        return (tmp_path / name).read_bytes()

    whole = run("first.mp4")
    # States of the tiny model's mel are not cached.
    Cache(folder).tensor("states", "key", make=lambda: torch.ones(40))
    spoiled = sorted(folder.iterdir())
    kinds = {path.name.split("-")[0] for path in spoiled}
    assert kinds == {"states", "faces", "times", "latents"}
    for path in spoiled:
        spoil(path)
    assert run("second.mp4") == whole
    warned = [each for each in caplog.records if "cannot be" in each.getMessage()]
    assert len(warned) == (0 if spoil is vanish else 1)
    made = Cache(folder).tensor("states", "key", make=lambda: torch.ones(40))
    assert made.tolist() == [1] * 40
    if spoil is not make_folder:
        assert all(path.stat().st_size > 64 for path in spoiled), "it is written again"


def full(_: object, path: Path) -> None:
    raise OSError(errno.ENOSPC, "No space left on device", str(path))


def refused(_: object, path: Path) -> None:
    raise SafetensorError("Error while serializing: I/O error: No space left on device")


@pytest.mark.parametrize("fail", [full, refused])
def test_a_full_disk_costs_the_cache_and_not_the_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, fail: Callable
):
    cache = Cache(tmp_path / "cache")
    for _ in range(3):
        assert not cache.write(cache.path("states", "a"), partial(fail, None))
    assert len(caplog.records) == 1
    assert "cache=false" in caplog.text
    assert not list(cache.folder.iterdir())


def file_in_its_place(folder: Path) -> None:
    folder.write_text("mine")


def read_only(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o500)


def in_a_file(folder: Path) -> None:
    folder.parent.write_text("mine")


@pytest.mark.parametrize("spoil", [file_in_its_place, read_only, in_a_file])
def test_a_folder_that_cannot_be_written_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, spoil: Callable[[Path], None]
):
    folder = tmp_path / "place" / "cache"
    if spoil is not in_a_file:
        folder.parent.mkdir()
    spoil(folder)
    cache = Cache(folder)
    if spoil is read_only and os.geteuid() == 0:
        pytest.skip("root may write anywhere")
    video = write_video(tmp_path / "a.mp4", [picture(index) for index in range(5)])
    for _ in range(2):
        detector, found = look(video, cache)
        assert detector.num_calls == 5
        assert found.survey.num_frames == 5
        assert cache.tensor("states", "a", make=lambda: torch.ones(2)).tolist() == [1, 1]
    assert sum("cannot be written" in each.getMessage() for each in caplog.records) == 1


def test_files_that_are_removed_at_any_time_never_fail_a_reader(tmp_path: Path):
    """Six readers and writers of a cache with room for one or two of their four files."""
    cache = Cache(tmp_path / "cache", max_bytes=1000)
    values = {str(index): torch.full((100,), float(index)) for index in range(4)}
    failed = []

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        try:
            for index in rng.integers(0, 4, 150):
                name = str(index)
                found = cache.tensor("states", name, make=lambda name=name: values[name])
                assert torch.equal(found, values[name])
        except BaseException as error:
            failed.append(error)
            raise

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
