"""The command line of prepare.py."""

import json
import sys
from pathlib import Path

import pytest

from coded import POINTS
from latentsync.cli import entry
from latentsync.data import read_manifest


@pytest.fixture
def prepare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def run(*overrides: str) -> None:
        monkeypatch.chdir(tmp_path)
        words = ["faces=fixed", f"faces.points={json.dumps(POINTS)}", "executor=serial"]
        words += [
            "progress=false",
            "~prepare.limits",
            "prepare.occlusion=null",
        ]  # coded videos are no speech
        monkeypatch.setattr(sys, "argv", ["prepare.py", *words, *overrides])
        entry.prepare()

    return run


def test_a_folder_of_videos_becomes_a_data_set_and_nothing_else_is_written(
    prepare, raw_dir, tmp_path
):
    prepare(f"input={raw_dir}", "output=my set", "resolution=128", "aligner=official")
    clips = read_manifest(tmp_path / "my set")
    assert [(clip.num_frames, clip.resolution) for clip in clips] == [
        (number, 128)
        for number in (55, 60, 60)  # the second 55 are a copy
    ]
    prepare("stage=filter", "output=my set", "prepare.dedupe=null", "prepare.split.val=0.3")
    assert {clip.measures["split"] for clip in read_manifest(tmp_path / "my set")} == {
        "train",
        "val",
    }
    assert len(read_manifest(tmp_path / "my set")) == 4
    assert [path.name for path in tmp_path.iterdir()] == ["my set"]


def test_an_address_is_an_input(prepare, raw_dir, tmp_path):
    prepare(f"input=file://{raw_dir}", "output=set", "resolution=64", "prepare.dedupe=null")
    clips = read_manifest(tmp_path / "set")
    assert [clip.source for clip in clips[:1]] == [f"file://{raw_dir}/anna/00001.mp4"]
    assert len(clips) == 4
    prepare(f"input=file://{raw_dir}", "output=set", "resolution=128", "redo=true")
    assert {clip.resolution for clip in read_manifest(tmp_path / "set")} == {128}


def test_an_address_is_an_output(prepare, raw_dir, tmp_path, monkeypatch):
    monkeypatch.setattr("latentsync.prepare.remote_output.cache_root", lambda: tmp_path / "cache")
    words = ("resolution=64", "prepare.dedupe=null")
    url = f"output=file://{tmp_path}/store/set"
    prepare(f"input={raw_dir}", url, *words)
    prepare(f"input={raw_dir}", "output=local/set", *words)
    prepare("stage=shards", url, "work_dir=work/set")
    prepare("stage=shards", "output=local/set")
    # Times, and an index whose header is in no order.
    unlike = ("record.jsonl", "report.html", "index.safetensors")
    here, there = (
        {
            path.relative_to(folder).as_posix(): None if path.name in unlike else path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file() and not path.name.startswith(".")
        }
        for folder in (tmp_path / "local" / "set", tmp_path / "store" / "set")
    )
    assert there == here
    assert len(here) > 4 * 2
    (cached,) = (tmp_path / "cache" / "prepare").glob("*/set")
    for folder in (cached, tmp_path / "work" / "set"):
        assert len(read_manifest(folder)) == 4


def test_other_parameters_need_redo_if_clips_change(prepare, capsys, raw_dir, tmp_path):
    words = (f"input={raw_dir}", "output=set", "prepare.dedupe=null")
    prepare(*words, "resolution=64", "prepare/stages=[probe,resample,segment,align,write]")
    stages = "prepare/stages=[probe,resample,segment,align,sound,write]"
    prepare(*words, "resolution=64", stages)
    assert all("digital_silence" in clip.measures for clip in read_manifest(tmp_path / "set"))
    with pytest.raises(SystemExit):
        prepare(*words, "resolution=128", stages)
    assert "redo=true" in capsys.readouterr().err
    prepare(*words, "resolution=128", stages, "redo=true")
    assert {clip.resolution for clip in read_manifest(tmp_path / "set")} == {128}


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["input=nowhere", "output=set"], "nowhere is no folder"),
        (["input=memory://raw/a", "output=set"], "memory://raw/a is no folder"),
        (["input=smb://raw/a", "output=set"], "smb://raw/a cannot be opened"),
        (["input=.", "output=smb://sets/a"], "smb://sets/a cannot be opened"),
        (["input=nowhere", "output=file:///sets/a"], "nowhere is no folder"),
        (["stage=shards", "output=s4://sets/a"], "s4://sets/a cannot be opened"),
        (["input=.", "output=set", "work_dir=work"], "work_dir= is for an output in a store"),
        (["output=set"], "input= (a folder of videos of any kind, or a list"),
        (["input=.", "output=set", "stage=train"], "no stage is called 'train'"),
        (["input=.", "output=set", "aligner=none"], "no aligner is called 'none'"),
        (["input=.", "output=set", "resolutoin=64"], "near: resolution"),
        (["stage=latents", "output=set", "vae=vae"], "no manifest at set"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(prepare, capsys, tmp_path, overrides, line):
    with pytest.raises(SystemExit) as exit_info:
        prepare(*overrides)
    assert exit_info.value.code == 2
    message = capsys.readouterr().err.strip()
    assert "\n" not in message
    assert line in message
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_which_no_clip_comes_is_told_with_status_2(prepare, capsys, tmp_path):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "notes.txt").write_text("hello")
    with pytest.raises(SystemExit) as exit_info:
        prepare("input=raw", "output=set")
    assert exit_info.value.code == 2
    assert "no clip came of 1 files of raw: set/dropped.jsonl" in capsys.readouterr().err
    assert "notes.txt" in (tmp_path / "set" / "dropped.jsonl").read_text()
