"""`input=` as a list of recordings: text or CSV, with parts, speakers and splits."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from coded import LOUD, frame_numbers, write_coded_video
from latentsync.data import Clip, read_manifest
from latentsync.data.dataset import to_pixels
from latentsync.media.audio import SAMPLE_RATE, read_waveform
from latentsync.media.video import read_frames
from latentsync.prepare import Split, filter_clips, prepare_clips
from latentsync.prepare.accounts import account_of
from latentsync.prepare.sources import find_sources, seconds_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "recordings"
    write_coded_video(folder / "anna" / "1.mp4", 200, loud=range(110, 120))
    write_coded_video(folder / "ben.mp4", 55, loud=LOUD)
    write_coded_video(folder / "not listed.mp4", 55)
    return folder


def listed(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def dropped(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "dropped.jsonl").read_text().splitlines()]


def numbers_of(clip: Clip) -> list[int]:
    """The frame numbers that a clip of a coded video shows."""
    frames = torch.from_numpy(np.stack([*read_frames(clip.path)])).permute(0, 3, 1, 2)
    return frame_numbers(to_pixels(frames))


def test_a_text_file_lists_what_is_prepared_and_what_is_missing_is_listed_as_dropped(
    folder, recipe, tmp_path
) -> None:
    listing = listed(folder / "some.txt", "# two of three\nben.mp4\n\n./anna/1.mp4\ngone.mp4\n")
    outcomes = prepare_clips(listing, tmp_path / "set", stages=recipe.stages())
    assert [each.source.name for each in outcomes] == ["anna/1.mp4", "ben.mp4", "gone.mp4"]
    assert [Path(clip.source).name for clip in read_manifest(tmp_path / "set")] == [
        "1.mp4",
        "ben.mp4",
    ]
    (row,) = dropped(tmp_path / "set")
    assert row["source"] == "gone.mp4"
    assert "no regular file" in row["reason"]


def test_parts_begin_and_end_at_their_frames_and_bring_their_sound(
    folder, recipe, tmp_path
) -> None:
    listing = listed(
        folder / "parts.csv", "path,start,end\nanna/1.mp4,0:04,6.4\nanna/1.mp4,,2.2\nben.mp4,,\n"
    )
    outcomes = prepare_clips(listing, tmp_path / "set", stages=recipe.stages())
    clips = {
        (Path(clip.source).name, clip.start_frame): clip for clip in read_manifest(tmp_path / "set")
    }
    lengths = {key: clip.num_frames for key, clip in clips.items()}
    assert lengths == {("1.mp4", 100): 60, ("1.mp4", 0): 55, ("ben.mp4", 0): 55}
    later = clips["1.mp4", 100]
    assert numbers_of(later) == [number % 256 for number in range(100, 160)]
    levels = read_waveform(later.path)[: 60 * SAMPLE_RATE // 25].reshape(60, -1).std(dim=1)
    assert [index for index, level in enumerate(levels) if level > 0.2] == list(range(10, 20))
    accounts = [account_of(outcome) for outcome in outcomes]
    assert [round(each.total, 2) for each in accounts] == [2.2, 2.4, 2.2]
    assert [round(each.missing, 2) for each in accounts] == [0, 0, 0]


def test_a_part_beyond_the_recording_is_listed_with_its_bounds(folder, recipe, tmp_path) -> None:
    listing = listed(folder / "parts.csv", "path,start,end\nben.mp4,9,12\nanna/1.mp4,7,20\n")
    with_short = prepare_clips(listing, tmp_path / "set", stages=recipe.stages())
    rows = {row["source"]: row for row in dropped(tmp_path / "set")}
    late = rows["ben.mp4 [9-12]"]
    assert "2.20 s" in late["reason"]
    assert (late["start_seconds"], late["end_seconds"]) == (9, 12)
    short = rows["anna/1.mp4 [7-20]"]
    assert (short["start_seconds"], short["end_seconds"]) == (7, 8)
    assert all(abs(account_of(outcome).missing) < 1e-6 for outcome in with_short)


def test_labels_are_columns_and_other_labels_redo_nothing(folder, recipe, tmp_path) -> None:
    listing = folder / "people.csv"
    text = "path,speaker,split\nanna/1.mp4,Anna,train\nben.mp4,{},val\n"
    listed(listing, text.format("Ben"))
    prepare_clips(listing, tmp_path / "set", stages=recipe.stages())
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "set" / "clips").iterdir()}
    listed(listing, text.format("Benedict"))
    prepare_clips(listing, tmp_path / "set", stages=recipe.stages())
    for again in (False, True):
        if again:
            filter_clips(tmp_path / "set", {})
        found = [
            (clip.measures["speaker"], clip.measures["split"])
            for clip in read_manifest(tmp_path / "set")
        ]
        assert found == [("Anna", "train"), ("Benedict", "val")]
    assert made == {
        path: path.stat().st_mtime_ns for path in (tmp_path / "set" / "clips").iterdir()
    }


def test_speakers_of_a_list_are_not_divided(folder, recipe, tmp_path) -> None:
    write_coded_video(folder / "carl.mp4", 60)
    rows = ["path,speaker", "anna/1.mp4,Anna", "ben.mp4,Carl", "carl.mp4,Carl"]
    listing = listed(folder / "people.csv", "\n".join(rows))
    for seed in range(4):
        outcomes = prepare_clips(
            listing, tmp_path / "set", stages=recipe.stages(), rules=[Split(val=0.3, seed=seed)]
        )
        splits = {clip.measures["speaker"]: set() for each in outcomes for clip in each.clips}
        for each in outcomes:
            for clip in each.clips:
                splits[clip.measures["speaker"]].add(clip.measures["split"])
        assert all(len(found) == 1 for found in splits.values())
        assert set.union(*splits.values()) == {"train", "val"}


def test_a_split_of_the_list_and_one_by_shares_exclude_each_other(folder, recipe, tmp_path) -> None:
    listing = listed(folder / "people.csv", "path,split\nben.mp4,val\nanna/1.mp4,train\n")
    with pytest.raises(ValueError, match="leave its column split out"):
        prepare_clips(listing, tmp_path / "set", stages=recipe.stages(), rules=[Split(val=0.3)])


def test_a_list_may_grow(folder, recipe, tmp_path) -> None:
    listing = listed(folder / "some.txt", "ben.mp4\n")
    prepare_clips(listing, tmp_path / "set", stages=recipe.stages())
    listed(listing, "ben.mp4\nanna/1.mp4\n")
    prepare_clips(listing, tmp_path / "set", stages=recipe.stages())
    assert len(read_manifest(tmp_path / "set")) == 2


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "file,start\nben.mp4,0\n", "first line must name path"),
        ("a.csv", "path,speker\nben.mp4,Ben\n", "may name start, end, speaker, split"),
        ("a.csv", "path,start\nben.mp4,soon\n", "line 2: 'soon' is no time"),
        ("a.csv", "path,start,end\nben.mp4,3,2\n", "line 2: the part ends at 2 s"),
        ("a.csv", "path,start,end\nben.mp4,3\n", "line 2: it has not as many values"),
        ("a.csv", "path,split\nben.mp4,validation\n", "none of train, val, test"),
        ("a.csv", "path,split\n,val\n", "line 2: it names no path"),
        ("a.csv", "path,start,split\nben.mp4,,val\nben.mp4,3,train\n", "recording .*ben.mp4 for"),
        (
            "a.csv",
            "path,speaker,split\nben.mp4,Ben,val\nanna/1.mp4,Ben,train\n",
            "speaker Ben for",
        ),
        ("a.txt", "ben.mp4\n./ben.mp4\n", "line 2: ben.mp4 is listed twice"),
        ("a.txt", "# nothing\n", "lists no recording"),
        ("a.txt", "../set/clips/x.mp4\n", "leads into the output"),
        ("a.mp4", "", "neither a folder of videos nor a list"),
    ],
)
def test_a_list_that_cannot_be_meant_is_one_error(tmp_path, name, text, message) -> None:
    (tmp_path / "recordings").mkdir()
    listing = listed(tmp_path / "recordings" / name, text)
    with pytest.raises(ValueError, match=message):
        find_sources(listing, tmp_path / "set")


def test_times_are_seconds_or_clock_times() -> None:
    times = {"83.5": 83.5, "1:23.5": 83.5, "01:01:23.5": 3683.5, "0": 0.0}
    assert {text: seconds_of(text) for text in times} == times
    for text in ("-1", "1:2:3:4", "nan", "1e9", "1:"):
        with pytest.raises(ValueError, match="is no time"):
            seconds_of(text)
