"""Latents of faces outlive a run: the next one on the same video neither crops nor encodes them."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from latentsync.diffusion.sampler import Sampler
from latentsync.media.video import read_frames
from latentsync.models.codec import LatentCodec
from latentsync.models.lipsync import LipSyncModel
from latentsync.pipeline import Cache, Choice, Timing, lipsync, render
from latentsync.pipeline import latent_cache as kept_module
from latentsync.pipeline.compositing import Cut
from latentsync.pipeline.latent_cache import FaceLatents, LatentCache, bytes_per_face
from pipeline.inputs import POINTS, SeesLight, build_tiny_model, picture, write_video, write_voice


class Knows(SeesLight):
    cache_key = "sees light"


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


SHARD = 8


@pytest.fixture(autouse=True)
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_module, "SHARD", SHARD)


@pytest.fixture
def parts() -> dict:
    return {
        "detector": Knows(POINTS),
        "sampler": Sampler(num_steps=1, guidance_scale=1.0),
        "choice": Choice(min_size=0),
        "timing": Timing(tail="cut"),
        "crf": 0,
    }


@pytest.fixture(scope="module")
def long_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """36 frames: more than four files of latents."""
    frames = [picture(0) + np.uint8(index) for index in range(36)]
    return write_video(tmp_path_factory.mktemp("long") / "video.mp4", frames)


class Work:
    """Number of faces cropped and of images encoded."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.num_cut, self.num_encoded = 0, 0
        cut_faces, encode = render.cut_faces, LatentCodec.encode

        def counted_cuts(*args: object) -> Iterator[Cut]:
            for cut in cut_faces(*args):
                self.num_cut += len(cut.faces)
                yield cut

        def counted_encode(codec: LatentCodec, pixels: torch.Tensor, **names: object):
            self.num_encoded += len(pixels)
            return encode(codec, pixels, **names)

        monkeypatch.setattr(render, "cut_faces", counted_cuts)
        monkeypatch.setattr(LatentCodec, "encode", counted_encode)

    def done(self) -> tuple[int, int]:
        done = self.num_cut, self.num_encoded
        self.num_cut = self.num_encoded = 0
        return done


def shown(path: Path) -> np.ndarray:
    return np.stack(list(read_frames(path)))


def test_the_second_run_starts_at_the_network_and_gives_the_same(
    tmp_path: Path, monkeypatch, long_video: Path, cache: Cache, tiny_model, parts: dict
):
    work = Work(monkeypatch)
    voice = write_voice(tmp_path / "voice.wav", 1.32)  # 33 slots
    results = {}
    for name, where in (("none", None), ("cold", cache), ("warm", cache)):
        out = tmp_path / f"{name}.mp4"
        lipsync(long_video, voice, out, model=tiny_model, cache=where, **parts)
        results[name] = shown(out), work.done()
    np.testing.assert_array_equal(results["none"][0], results["cold"][0])
    np.testing.assert_array_equal(results["none"][0], results["warm"][0])
    # Two per face: masked and whole.
    assert results["none"][1] == results["cold"][1] == (33, 66)
    assert results["warm"][1] == (0, 0)


def test_another_voice_encodes_only_what_no_voice_showed_before(
    tmp_path: Path, monkeypatch, long_video: Path, cache: Cache, tiny_model, parts: dict
):
    work = Work(monkeypatch)
    first, second = (write_voice(tmp_path / f"{seconds}.wav", seconds) for seconds in (0.8, 1.2))
    parts |= {"model": tiny_model, "cache": cache}
    lipsync(long_video, first, tmp_path / "first.mp4", **parts)
    assert work.done() == (20, 40)
    lipsync(long_video, second, tmp_path / "second.mp4", **parts)
    assert work.done() == (10, 20)
    # The file of frames 16 to 23 now holds those of both.
    lipsync(long_video, second, tmp_path / "again.mp4", **parts)
    assert work.done() == (0, 0)
    np.testing.assert_array_equal(shown(tmp_path / "second.mp4"), shown(tmp_path / "again.mp4"))


def test_played_to_and_fro_a_run_does_not_read_its_own_files(
    tmp_path: Path, monkeypatch, long_video: Path, cache: Cache, tiny_model, parts: dict
):
    voice = write_voice(tmp_path / "voice.wav", 2.8)
    work = Work(monkeypatch)
    outs = tmp_path / "none.mp4", tmp_path / "cold.mp4"
    for out, where in zip(outs, (None, cache), strict=True):
        lipsync(long_video, voice, out, model=tiny_model, cache=where, **parts)
    np.testing.assert_array_equal(*map(shown, outs))
    assert work.done() == (2 * 70, 4 * 70)


@pytest.mark.parametrize("changed", ["vae", "aligner"])
def test_latents_of_another_kind_are_not_taken(
    tmp_path: Path, long_video: Path, cache: Cache, tiny_model, parts: dict, changed: str
):
    voice = write_voice(tmp_path / "voice.wav", 0.8)
    lipsync(long_video, voice, tmp_path / "a.mp4", model=tiny_model, cache=cache, **parts)
    other = build_tiny_model()
    if changed == "vae":
        with torch.no_grad():
            other.codec.vae.net.encoder.conv_in.weight.mul_(-1)
    else:
        other.format = type(other.format)(**{**vars_of(other), "aligner": "legacy"})
    outs = tmp_path / "kept.mp4", tmp_path / "fresh.mp4"
    for out, where in zip(outs, (cache, None), strict=True):
        lipsync(long_video, voice, out, model=other, cache=where, **parts)
    np.testing.assert_array_equal(*map(shown, outs))
    assert not np.array_equal(shown(tmp_path / "a.mp4"), shown(outs[0]))


def vars_of(model: LipSyncModel) -> dict:
    return {name: getattr(model.format, name) for name in model.format.__dataclass_fields__}


def face(number: int) -> FaceLatents:
    value = torch.tensor(float(number), dtype=torch.bfloat16)
    return FaceLatents(value.expand(4, 2, 2), -value.expand(4, 2, 2), value.float().expand(3, 8, 8))


def keeper(cache: Cache, key: str = "video") -> LatentCache:
    return LatentCache(cache, [key], lambda run, slot: (run, 2 * slot))


def test_faces_come_back_as_they_went(cache: Cache):
    kept = keeper(cache)
    for slot in range(3 * SHARD):
        assert not kept.has(0, slot)
        kept.add(0, slot, face(slot))
    # Most is written along the way; this run reads none of it.
    assert len(list(cache.folder.iterdir())) >= 4
    assert not any(kept.has(0, slot) for slot in range(3 * SHARD))
    kept.close()
    again = keeper(cache)
    for slot in range(3 * SHARD):
        found = again.read(0, slot)
        assert found is not None and found.masked.dtype == torch.bfloat16
        torch.testing.assert_close(found.masked, face(slot).masked)
        torch.testing.assert_close(found.seen, face(slot).seen)
        torch.testing.assert_close(found.cells, face(slot).cells)
    assert again.read(1, 0) is None
    assert again.read(0, 3 * SHARD) is None
    assert not keeper(cache, "another").has(0, 0)
    slots = np.array([0, 5, 3 * SHARD])
    assert again.missing(slots, lambda _: [0]).tolist() == [False, False, True]
    assert again.missing(slots, lambda slot: [0, 1] if slot == 5 else [0]).tolist() == [
        False,
        True,
        True,
    ]


def test_what_would_fill_the_cache_is_not_kept(tmp_path: Path, tiny_model: LipSyncModel):
    size = bytes_per_face(tiny_model)
    cache = Cache(tmp_path / "cache", max_bytes=200 * size)
    for num_faces, is_kept in ((100, True), (101, False)):
        kept = keeper(cache, str(num_faces))
        kept.expect(num_faces, size)
        kept.add(0, 0, face(0))
        kept.close()
        assert keeper(cache, str(num_faces)).has(0, 0) == is_kept


def test_the_size_of_a_face_is_what_it_takes(tmp_path: Path, long_video, tiny_model, parts):
    cache = Cache(tmp_path / "cache")
    voice = write_voice(tmp_path / "voice.wav", 0.64)
    lipsync(long_video, voice, tmp_path / "a.mp4", model=tiny_model, cache=cache, **parts)
    taken = sum(path.stat().st_size for path in cache.folder.glob("latents-*"))
    assert 16 * bytes_per_face(tiny_model) == pytest.approx(taken, rel=0.02)


def test_a_file_that_vanishes_while_in_use_is_still_read(cache: Cache):
    kept = keeper(cache)
    kept.add(0, 0, face(0))
    kept.close()
    again = keeper(cache)
    assert again.has(0, 0)
    for path in cache.folder.iterdir():
        path.unlink()
    found = again.read(0, 0)
    assert found is not None
    torch.testing.assert_close(found.masked, face(0).masked)
    assert not keeper(cache).has(0, 0)
