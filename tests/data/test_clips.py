"""Manifests can be moved, and errors in them are reported."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from latentsync.data import Clip, attach_latents, read_manifest, write_manifest


def test_clips_are_what_was_filmed(clips: list[Clip]):
    assert [clip.num_frames for clip in clips] == [60, 75, 90]
    assert {(clip.fps, clip.resolution, clip.start_frame) for clip in clips} == {(25.0, 64, 0)}
    assert [Path(clip.source).name for clip in clips] == ["60.mp4", "75.mp4", "90.mp4"]


def test_writing_and_reading_is_the_identity(clips: list[Clip], data_dir: Path):
    write_manifest(clips, data_dir / "again.jsonl")
    assert read_manifest(data_dir / "again.jsonl") == clips


def test_a_data_set_can_be_moved(data_dir: Path, tmp_path: Path):
    shutil.copytree(data_dir, tmp_path / "moved")
    moved = read_manifest(tmp_path / "moved")
    assert all(clip.path.is_file() and clip.features_path.is_file() for clip in moved)
    assert all(clip.path.is_relative_to(tmp_path) for clip in moved)


def test_a_missing_manifest_says_how_to_make_one(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"prepare\.py"):
        read_manifest(tmp_path)


def test_an_empty_manifest_points_to_the_reasons(tmp_path: Path):
    (tmp_path / "manifest.jsonl").touch()
    with pytest.raises(ValueError, match=r"lists no clip.*dropped\.jsonl"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("line", ["{", "[]", '{"clip": "clips/a.mp4"}', "null"])
def test_a_damaged_line_is_named(data_dir: Path, line: str):
    path = data_dir / "damaged.jsonl"
    path.write_text((data_dir / "manifest.jsonl").read_text() + line + "\n")
    with pytest.raises(ValueError, match="line 4 is not a clip"):
        read_manifest(path)


@pytest.mark.parametrize(
    ("change", "told"),
    [({"resolution": 128}, r"resolution \[64, 128\]"), ({"fps": 30.0}, r"fps \[25.0, 30.0\]")],
)
def test_clips_of_two_sizes_or_rates_do_not_mix(
    clips: list[Clip], data_dir: Path, change: dict[str, float], told: str
):
    write_manifest([clips[0], replace(clips[1], **change)], data_dir / "mixed.jsonl")
    with pytest.raises(ValueError, match=f"mixes clips of {told}"):
        read_manifest(data_dir / "mixed.jsonl")


def test_a_clip_that_was_deleted_is_named(data_dir: Path):
    row = json.loads((data_dir / "manifest.jsonl").read_text().splitlines()[0])
    row["clip"] = "clips/gone.mp4"
    (data_dir / "gone.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(FileNotFoundError, match=r"gone\.mp4"):
        read_manifest(data_dir / "gone.jsonl")


def test_asking_for_latents_that_were_never_made(clips: list[Clip]):
    with pytest.raises(FileNotFoundError, match="no latents folder nowhere"):
        attach_latents(clips, "nowhere")
