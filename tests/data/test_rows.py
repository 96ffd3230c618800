"""Rows as columns give back the rows, and what is made of them is made when it is asked for."""

import json
import pickle
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from latentsync.data import ClipDataset, read_manifest
from latentsync.data.clips import Clip, attach_latents
from latentsync.data.items import Items
from latentsync.data.mixing import column_of, joined, sets_of
from latentsync.data.rows import Made, Rows

ROWS = [
    {"name": "a", "level": 1, "person": "x"},
    {"name": "b", "level": 2.5, "person": "x"},
    {"name": "c", "level": None, "person": None},
    {"name": "d"},
    {"name": "e", "level": 3, "note": "late", "person": "y"},
    {"name": "f", "level": "a text after numbers", "note": 4},
]
COLUMNS = ("name", "level", "person", "note")


@pytest.fixture
def rows() -> Rows:
    made = Rows()
    for row in ROWS:
        made.append(row)
    return made


def test_what_was_put_in_comes_out_and_what_a_row_lacks_is_none(rows):
    whole = [{name: row.get(name) for name in COLUMNS} for row in ROWS]
    assert [rows[index] for index in range(len(rows))] == whole
    for name in COLUMNS:
        assert list(rows.values(name)) == [row[name] for row in whole]
    assert list(rows.values("other")) == [None] * 6
    chosen = rows.select([4, 0])
    assert [chosen[0], chosen[1]] == [whole[4], whole[0]]


def test_what_is_made_is_a_sequence(rows):
    names = Made(rows, partial(_value, "name"))
    assert list(names) == names == ["a", "b", "c", "d", "e", "f"]
    assert names != ["a", "b"]
    assert (names[-1], names[1:3], len(names[::2])) == ("f", ["b", "c"], 3)
    assert (names[np.int64(2)], names[torch.tensor(0)]) == ("c", "a")
    with pytest.raises(IndexError):
        names[6]
    again = pickle.loads(pickle.dumps(names.changed(str.upper)))  # noqa: S301
    assert again == ["A", "B", "C", "D", "E", "F"]


def _value(name: str, row: dict) -> object:
    return row[name]


def test_a_manifest_is_the_clips_of_its_lines(data_dir: Path):
    lines = (data_dir / "manifest.jsonl").read_text().splitlines()
    clips = [Clip.from_row(json.loads(line), data_dir) for line in lines]
    assert read_manifest(data_dir) == clips
    both = joined([("a", read_manifest(data_dir)), ("b", [replace(clips[0], path=data_dir / "x")])])
    assert list(column_of(both, "num_frames")) == [
        *(clip.num_frames for clip in clips),
        clips[0].num_frames,
    ]
    assert (both[-1].path, both[-2], len(both)) == (data_dir / "x", clips[-1], len(clips) + 1)
    assert [len(each) for each in sets_of(both)] == [len(clips), 1]


def test_latents_are_attached_to_each_when_it_is_made(data_dir: Path, tmp_path: Path):
    clips = read_manifest(data_dir)
    folder = data_dir / "latents" / "vae-of-rows"
    folder.mkdir(parents=True)
    for clip in clips[1:]:
        (folder / f"{clip.name}.safetensors").touch()
    with pytest.raises(FileNotFoundError, match=r"1 of 3 clips have no latents \(first: .*vae-of"):
        attach_latents(clips, "vae-of-rows")
    (folder / f"{clips[0].name}.safetensors").touch()
    attached = attach_latents(clips, "vae-of-rows")
    assert [clip.latents_path for clip in attached] == [
        folder / f"{clip.name}.safetensors" for clip in clips
    ]
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


def test_a_manifest_of_two_sets_is_two_sets(data_dir: Path, tmp_path: Path):
    rows = [json.loads(line) for line in (data_dir / "manifest.jsonl").read_text().splitlines()]
    for name in ("a", "b"):
        (tmp_path / name).symlink_to(data_dir)
    lines = [
        json.dumps(row | {key: f"{name}/{row[key]}" for key in ("clip", "features")}) + "\n"
        for name in ("a", "b")
        for row in rows
    ]
    (tmp_path / "both.jsonl").write_text("".join(lines))
    clips = read_manifest(tmp_path / "both.jsonl")
    assert [each[0].path.parent.parent.name for each in sets_of(clips)] == ["a", "b"]
    items = Items(num_frames=4, with_mel=False)
    whole = ClipDataset(clips, items)
    assert len(whole) == 6
    assert int(whole[5]["clip_index"]) == 5
    assert clips[np.int64(4)] == clips[torch.tensor(4)] == clips[4]
