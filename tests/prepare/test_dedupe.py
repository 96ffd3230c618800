"""Copies in a set: other encodings of a clip are found, other clips of the same speaker are not."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch

from latentsync.data import Clip
from latentsync.data.synthetic import render_clip
from latentsync.media.audio import read_waveform, write_wav
from latentsync.media.video import VideoWriter, read_frames
from latentsync.prepare import Dedupe, Outcome, filter_clips, prepare_clips
from latentsync.prepare.dedupe import alike
from latentsync.prepare.fingerprint import (
    picture_bits,
    share_of_different_bits,
    sound_bits,
    to_bytes,
    to_text,
)
from latentsync.prepare.stage import Source

DEDUPE = Dedupe(max_picture=0.2, max_sound=0.25)
Hashes = tuple[str | None, str | None]


def hashes_of(frames: list[np.ndarray], waveform: torch.Tensor) -> Hashes:
    return to_text(picture_bits(frames)), to_text(sound_bits(waveform))


def difference(first: str | None, second: str | None) -> float:
    assert first is not None
    assert second is not None
    return share_of_different_bits(to_bytes(first), to_bytes(second))


@pytest.fixture(scope="module")
def speakers(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("speakers")
    return [render_clip(folder / str(seed), seed=seed, seconds=4.0, size=128) for seed in (1, 2)]


def halves(path: Path) -> list[tuple[list[np.ndarray], torch.Tensor]]:
    """Two clips of one speaker: the first and the second half of a recording."""
    frames, waveform = list(read_frames(path)), read_waveform(path.with_suffix(".wav"))
    return [(frames[:50], waveform[:32000]), (frames[50:100], waveform[32000:64000])]


def encoded_again(
    frames: list[np.ndarray], waveform: torch.Tensor, path: Path, *, crf: int, scale: int
) -> tuple[list[np.ndarray], torch.Tensor]:
    write_wav(path.with_suffix(".wav"), waveform * 0.5)
    size = frames[0].shape[0] // scale
    sound = path.with_suffix(".wav")
    with VideoWriter(path, fps=25, width=size, height=size, crf=crf, audio=sound) as writer:
        for frame in frames:
            writer.write(np.ascontiguousarray(frame[::scale, ::scale]))
    return list(read_frames(path)), read_waveform(path)[: len(waveform)]


@pytest.mark.parametrize(("crf", "scale"), [(18, 1), (35, 1), (28, 2)])
def test_another_encoding_of_a_clip_is_near(speakers, tmp_path, crf, scale) -> None:
    for path in speakers:
        for number, (frames, waveform) in enumerate(halves(path)):
            copy = encoded_again(
                frames, waveform, tmp_path / f"{path.stem}_{number}.mp4", crf=crf, scale=scale
            )
            before, after = hashes_of(frames, waveform), hashes_of(*copy)
            assert difference(before[0], after[0]) < 0.5 * DEDUPE.max_picture
            assert difference(before[1], after[1]) < 0.5 * DEDUPE.max_sound


def test_other_clips_are_far_by_their_sound_even_of_the_same_speaker(speakers) -> None:
    hashes = [hashes_of(*half) for path in speakers for half in halves(path)]
    for first, second in combinations(hashes, 2):
        assert difference(first[1], second[1]) > 1.5 * DEDUPE.max_sound


def test_silence_has_no_hash() -> None:
    assert sound_bits(torch.zeros(16000)) is None
    assert sound_bits(torch.zeros(10)) is None


def clip(name: str, picture: str | None, sound: str | None) -> Clip:
    measures = {"picture_hash": picture, "sound_hash": sound}
    path = Path(f"/set/clips/{name}.mp4")
    return Clip(path, path, None, 50, f"/raw/{name}", 0, 64, 25.0, measures=measures)


def outcome(*clips: Clip) -> Outcome:
    name = clips[0].name
    return Outcome(Source(Path("/raw") / name, name, name, Path("/set")), list(clips), [], 2.0)


def test_both_hashes_must_agree_and_what_was_not_hashed_stays() -> None:
    rng = np.random.default_rng(0)
    p, q, s, t = (rng.bytes(64).hex() for _ in range(4))
    clips = [
        clip("first", p, s), clip("other_voice", p, t), clip("other_picture", q, s),
        clip("silent", p, None), clip("silent_too", p, None), clip("copy", p, s),
        clip("copy_too", p, s),
    ]  # fmt: skip
    outcomes = DEDUPE([outcome(each) for each in clips])
    kept = [each.name for result in outcomes for each in result.clips]
    assert kept == ["first", "other_voice", "other_picture", "silent", "silent_too"]
    dropped = [part for result in outcomes for part in result.dropped]
    assert [(part.source, part.stage, part.reason, part.clip) for part in dropped] == [
        ("copy", "dedupe", "same as clips/first.mp4", "copy.mp4"),
        ("copy_too", "dedupe", "same as clips/first.mp4", "copy_too.mp4"),
    ]
    assert (dropped[0].start_seconds, dropped[0].end_seconds) == (0.0, 2.0)


def test_pairs_with_a_common_piece_are_all_found_and_few_others() -> None:
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 256, (300, 64), dtype=np.uint8)
    flips = np.unpackbits(hashes[:100], axis=1) ^ (rng.random((100, 512)) < 0.1)
    hashes = np.concatenate([hashes, np.packbits(flips, axis=1)])
    found = set(alike(hashes))
    assert sum((index, index + 300) in found for index in range(100)) > 75
    assert all(first < second for first, second in found)
    assert len(found) < 110


def test_a_copied_recording_is_dropped_from_the_set_and_comes_back(
    raw_dir, recipe, tmp_path
) -> None:
    """The two speakers' first files are the same; their second ones have no sound."""
    prepare_clips(raw_dir, tmp_path / "set", stages=recipe.stages(), rules=[DEDUPE])
    manifest, dropped = (tmp_path / "set" / f"{name}.jsonl" for name in ("manifest", "dropped"))
    assert len(manifest.read_text().splitlines()) == 3
    (line,) = dropped.read_text().splitlines()
    assert '"source": "ben/00001.mp4", "stage": "dedupe"' in line
    filter_clips(tmp_path / "set", {})
    assert len(manifest.read_text().splitlines()) == 4
