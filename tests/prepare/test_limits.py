"""Measures are columns; limits decide over them at the end, and every second is listed."""

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from coded import LOUD, coded_sound, write_coded_video
from latentsync.cli import entry
from latentsync.data import read_manifest
from latentsync.data.clips import Clip
from latentsync.media.audio import write_wav
from latentsync.media.video import VideoWriter
from latentsync.prepare import (
    AlignedSegment,
    Limit,
    Outcome,
    Recipe,
    Stage,
    filter_clips,
    limits_of,
    prepare_clips,
)
from latentsync.prepare.accounts import account_of, accounts_of, covered, unaccounted
from latentsync.prepare.stage import Dropped, Source


@dataclass(kw_only=True)
class Length:
    """Measures what a test knows."""

    name = "length"
    takes = makes = AlignedSegment

    def run(self, aligned):
        yield aligned.with_measures(
            length=len(aligned.faces), unknown=float("nan"), label=f"of {aligned.source.key}"
        )


@pytest.fixture
def stages(recipe: Recipe) -> list[Stage]:
    *rest, last = recipe.stages()
    return [*rest, Length(), last]


def rows_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def listed(folder: Path) -> list[int]:
    return [row["length"] for row in rows_of(folder / "manifest.jsonl")]


def test_measures_are_columns_of_the_manifest_and_survive_a_resume(raw_dir, stages, tmp_path):
    prepare_clips(raw_dir, tmp_path / "set", stages=stages)
    first = (tmp_path / "set" / "manifest.jsonl").read_text()
    assert listed(tmp_path / "set") == [55, 60, 55, 60]
    assert {row["unknown"] for row in rows_of(tmp_path / "set" / "manifest.jsonl")} == {None}
    outcomes = prepare_clips(raw_dir, tmp_path / "set", stages=stages)
    assert (tmp_path / "set" / "manifest.jsonl").read_text() == first
    assert [outcome.clips[0].measures["length"] for outcome in outcomes] == [55, 60, 55, 60]
    assert len(read_manifest(tmp_path / "set")) == 4


def test_a_limit_lists_what_is_beyond_and_another_one_brings_it_back(raw_dir, stages, tmp_path):
    """No file is touched by a limit, and none is made again for another."""
    folder = tmp_path / "set"
    prepare_clips(raw_dir, folder, stages=stages, limits={"length": Limit(max=58, stage="length")})
    files = {path: path.stat().st_mtime_ns for path in folder.rglob("*.mp4")}
    assert len(files) == 4
    assert listed(folder) == [55, 55]
    first, second = rows_of(folder / "dropped.jsonl")
    assert first == {
        "source": "anna/00002.mp4",
        "stage": "length",
        "reason": f"length is 60, 58 is the most (clips/{first['reason'].split('clips/')[1]}",
        "start_frame": 0,
        "start_seconds": 0.0,
        "end_seconds": 2.4,
        "value": 60,
        "threshold": 58,
        "clip": first["reason"].split("clips/")[1].removesuffix(")"),
    }
    assert second["source"] == "ben/00002.mp4"
    assert "| dropped | 2 |" in (folder / "report.md").read_text()

    for limit, kept in [
        (Limit(min=58), [60, 60]), (Limit(), [55, 60, 55, 60]), (Limit(min=55, max=55), [55, 55])
    ]:  # fmt: skip
        filter_clips(folder, {"length": limit})
        assert listed(folder) == kept
    record = (folder / "record.jsonl").read_bytes()
    prepare_clips(raw_dir, folder, stages=stages)
    assert listed(folder) == [55, 60, 55, 60]
    assert (folder / "record.jsonl").read_bytes() == record
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.mp4")} == files


def test_what_was_not_measured_is_not_dropped(raw_dir, recipe, stages, tmp_path, caplog):
    limits = {"unknown": Limit(min=1), "missing": Limit(max=0)}
    prepare_clips(raw_dir, tmp_path / "set", stages=stages, limits=limits)
    assert listed(tmp_path / "set") == [55, 60, 55, 60]
    assert [each.message for each in caplog.records if each.levelname == "WARNING"] == [
        "no clip has the measure missing: its limit does nothing"
    ]
    with pytest.raises(ValueError, match="label is a text"):
        filter_clips(tmp_path / "set", {"label": Limit(min=1)})


def test_a_removed_recording_stays_out_and_a_changed_one_is_the_new_one(stages, tmp_path):
    raw, folder = tmp_path / "raw", tmp_path / "set"
    for name, length in (("gone", 55), ("changed", 56), ("same", 57)):
        write_coded_video(raw / f"{name}.mp4", length)
    prepare_clips(raw, folder, stages=stages)
    (raw / "gone.mp4").unlink()
    write_coded_video(raw / "changed.mp4", 70)
    prepare_clips(raw, folder, stages=stages)
    assert listed(folder) == [70, 57]
    filter_clips(folder, {"length": Limit(max=10)})
    assert listed(folder) == []
    filter_clips(folder, {})
    assert listed(folder) == [70, 57]


def test_the_command_needs_only_the_set(raw_dir, stages, tmp_path, monkeypatch, capsys):
    prepare_clips(raw_dir, tmp_path / "set", stages=stages)

    def run(*words: str) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(
            sys, "argv", ["prepare.py", "stage=filter", "output=set", "~prepare.limits", *words]
        )
        entry.prepare()

    run("+prepare.limits.length.min=58")
    assert listed(tmp_path / "set") == [60, 60]
    with pytest.raises(SystemExit):
        run("+prepare.limits.length.min=580")
    assert "no clip of set is within the limits" in capsys.readouterr().err
    run("prepare.dedupe=null")  # the second speaker's first file is a copy
    assert listed(tmp_path / "set") == [55, 60, 55, 60]
    with pytest.raises(SystemExit):
        run("+prepare.limits.length.least=58")
    assert "a limit has min, max and stage" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run("output=nothing")
    assert "is no finished set" in capsys.readouterr().err


def test_limits_that_let_nothing_pass_are_refused():
    with pytest.raises(ValueError, match="min=2 and max=1 let nothing pass"):
        limits_of({"length": {"min": 2, "max": 1}})


def test_a_set_of_an_earlier_version_is_filtered_too(raw_dir, stages, tmp_path):
    """Its record has neither measures nor lengths."""
    folder = tmp_path / "set"
    prepare_clips(raw_dir, folder, stages=stages)
    first, *rows = rows_of(folder / "record.jsonl")
    for row in rows:
        del row["seconds"], row["clips"][0]["length"]
        for part in row["dropped"]:
            del part["value"], part["threshold"]
    lines = "".join(json.dumps(row) + "\n" for row in [first, *rows])
    (folder / "record.jsonl").write_text(lines)
    outcomes = filter_clips(folder, {"length": Limit(min=58)})
    assert [len(outcome.clips) for outcome in outcomes] == [1, 1, 1, 1]
    assert accounts_of(outcomes) == []


def test_a_measure_is_taken_once():
    source = Source(Path("a"), "a", "a", Path())
    aligned = AlignedSegment(source, 0, 0, [], np.zeros(0), torch.zeros(1), {"level": 1.0})
    for name in ("level", "fps"):
        with pytest.raises(ValueError, match=f"'{name}' has been taken"):
            aligned.with_measures(**{name: 2.0})


@pytest.mark.parametrize(
    ("parts", "seconds"),
    [
        ([], 0),
        ([(0, 4), (4, 10)], 10),
        ([(0, 6), (4, 10)], 10),
        ([(2, 3), (0, 9), (4, 5)], 9),
        ([(8, 12)], 2),
        ([(-1, 1), (5, 6)], 2),
    ],
)
def test_seconds_are_covered_once(parts, seconds):
    assert covered(parts, 10) == pytest.approx(seconds)


def outcome_of(clips: list[tuple[int, int]], parts: list[tuple[int, int]]) -> Outcome:
    source = Source(Path("a"), "a", "a", Path())
    clip = Clip(Path("a.mp4"), Path("a"), None, 0, "a", 0, 64, 25.0)
    return Outcome(
        source,
        [replace(clip, start_frame=first, num_frames=end - first) for first, end in clips],
        [Dropped.part(source, "align", "?", start=a, end=b, fps=25) for a, b in parts],
        10.0,
    )


def test_an_account_says_what_is_missing():
    account = account_of(outcome_of([(0, 100), (50, 150)], [(175, 250)]))
    assert (account.total, account.kept, account.dropped) == (10, 6, pytest.approx(3))
    assert account.missing == pytest.approx(1)
    assert unaccounted([account]) == [account]
    assert not unaccounted(accounts_of([outcome_of([(0, 150)], [(150, 249)])]))
    assert unaccounted(accounts_of([outcome_of([(0, 150)], [(150, 248)])]))


def test_picture_without_sound_and_a_file_shorter_than_its_header_are_listed(recipe, tmp_path):
    write_wav(tmp_path / "short.wav", coded_sound(70, LOUD))
    path = tmp_path / "raw" / "tail.mp4"
    path.parent.mkdir()
    with VideoWriter(path, fps=25, width=128, height=128, audio=tmp_path / "short.wav") as writer:
        for level in range(100):
            writer.write(np.full((128, 128, 3), level, np.uint8))
    outcomes = prepare_clips(path.parent, tmp_path / "set", stages=recipe.stages())
    (row,) = rows_of(tmp_path / "set" / "dropped.jsonl")
    assert (row["stage"], row["reason"]) == ("resample", "picture beyond the end of the sound")
    assert row["end_seconds"] == 4
    (account,) = accounts_of(outcomes)
    assert account.missing == pytest.approx(0, abs=0.001)
    assert account.kept + account.dropped == pytest.approx(4)
    report = (tmp_path / "set" / "report.md").read_text()
    assert "| files with seconds in neither | none |" in report
    assert "of 4.0 |" in report


def test_seconds_that_a_stage_loses_are_reported(raw_dir, recipe, tmp_path, caplog):
    @dataclass(kw_only=True)
    class Loses:
        name = "loses"
        takes = makes = AlignedSegment

        def run(self, aligned):
            if len(aligned.faces) == 55:
                yield aligned

    *rest, last = recipe.stages()
    prepare_clips(raw_dir, tmp_path / "set", stages=[*rest, Loses(), last])
    warnings = [each.message for each in caplog.records if each.levelname == "WARNING"]
    text = "2.40 of 2.40 s are in no clip and not listed as dropped"
    assert warnings == [f"anna/00002.mp4: {text}", f"ben/00002.mp4: {text}"]
    report = (tmp_path / "set" / "report.md").read_text()
    assert "| - `ben/00002.mp4` | 2.40 s |" in report
