"""A whole run on files of any name, by paths that do not begin with a slash."""

import shutil
from pathlib import Path

import pytest

from latentsync.diffusion.sampler import Sampler
from latentsync.media.video import probe
from latentsync.models.lipsync import LipSyncModel
from latentsync.pipeline import Choice, lipsync, page_path, report_path, sheet_path
from pipeline.inputs import SeesLight

PLAIN = Choice(min_size=0, min_seconds=0)
NAMES = (
    "2024-01-01T12:30:05",
    "12:30",
    "a::b",
    "${x}",
    " a ",
    "a\nb",
    "\u6d4b\u8bd5 \U0001f600",
    "a" * 228,  # 232 bytes with its suffix, 240 with that of its report
    "\u6d4b" * 81,
)


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_a_run_reads_and_writes_any_name_and_leaves_nothing_else(
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tiny_model: LipSyncModel,
    detector: SeesLight,
    sampler: Sampler,
    video: Path,
    voice: Path,
) -> None:
    source, speech, out = Path(f"{name}.mp4"), Path(f"{name}.wav"), Path(f"out/{name}.mp4")
    monkeypatch.chdir(tmp_path)
    Path("out").mkdir()
    shutil.copy(video, source)
    shutil.copy(voice, speech)
    parts = {"model": tiny_model, "detector": detector, "sampler": sampler, "choice": PLAIN}
    report = lipsync(source, speech, out, **parts)
    assert (report.num_frames, report.num_frames_with_face) == (40, 34)
    written = {out, report_path(out), page_path(out), sheet_path(out)}
    assert set(Path("out").iterdir()) == written
    assert set(Path().iterdir()) == {source, speech, Path("out")}


def test_out_may_stand_in_the_folder_one_is_in(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tiny_model: LipSyncModel,
    detector: SeesLight,
    sampler: Sampler,
    video: Path,
    voice: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    out = Path("2024-01-01T12:30:05.mov")
    lipsync(video, voice, out, model=tiny_model, detector=detector, sampler=sampler)
    assert probe(out).num_frames == 40
