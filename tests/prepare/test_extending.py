"""The preparation stage in docs/extending.md works as documented."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from coded import POINTS, SIZE, coded_sound, write_coded_video
from latentsync.cli import entry
from latentsync.data import read_manifest
from latentsync.media.audio import write_wav
from latentsync.media.video import VideoWriter

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"
FILE = re.compile(r"```(?:python|yaml)\n# (\S+)\n(.*?)```", re.DOTALL)
STAGES = re.compile(r"'(prepare/stages=\[.*?\])'")


@pytest.fixture
def prepare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The page's command, on faces at known points."""
    chapter = PAGE.read_text(encoding="utf-8").split("## A preparation stage")[1]
    for name, content in FILE.findall(chapter.split("\n## ")[0]):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    found = STAGES.search(chapter)
    assert found is not None

    def run(*words: str) -> None:
        own = ["--config-dir", "my_conf", "input=raw", "output=set", found[1]]
        fast = ["faces=fixed", f"faces.points={json.dumps(POINTS)}", "executor=serial"]
        fast += ["~prepare.limits", "prepare.occlusion=null"]  # coded videos are no speech
        monkeypatch.setattr(
            sys, "argv", ["prepare.py", *own, *fast, "resolution=64", "progress=false", *words]
        )
        entry.prepare()

    return run


def write_night(path: Path) -> None:
    """A video of constant level 20."""
    sound_path = path.with_suffix(".wav")
    write_wav(sound_path, coded_sound(60, range(0)))
    with VideoWriter(path, fps=25, width=SIZE, height=SIZE, audio=sound_path) as writer:
        for _ in range(60):
            writer.write(np.full((SIZE, SIZE, 3), 20, np.uint8))
    sound_path.unlink()


def test_a_stage_is_a_class_and_a_file(
    prepare, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    write_coded_video(tmp_path / "raw" / "day.mp4", 60)
    write_night(tmp_path / "raw" / "night.mp4")
    prepare()
    assert [Path(clip.source).name for clip in read_manifest("set")] == ["day.mp4"]
    (dropped,) = map(json.loads, Path("set/dropped.jsonl").read_text().splitlines())
    assert (dropped["source"], dropped["stage"]) == ("night.mp4", "lit")
    assert "level of 20, 50 is the least" in dropped["reason"]
    recorded = json.loads(Path("set/record.jsonl").read_text().splitlines()[0])["parameters"]
    assert recorded["stages"] == ["probe", "resample", "segment", "align", "lit", "write"]
    assert recorded["lit.least"] == 50

    with pytest.raises(SystemExit):
        prepare("prepare.stages.lit.least=60")
    assert "lit.least was 50, is now 60" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        prepare("prepare/stages=[probe,resample,segment,align,write]")
    assert "lit.least was 50, is now null" in capsys.readouterr().err


def test_a_list_that_does_not_fit_together_reads_nothing(
    prepare, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "a.mp4").touch()
    with pytest.raises(SystemExit):
        prepare("prepare/stages=[probe,resample,lit,segment,align,write]")
    assert (
        "the stage lit takes a AlignedSegment and is given a Resampled" in capsys.readouterr().err
    )
    assert not Path("set").exists()
