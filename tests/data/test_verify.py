"""`python -m latentsync.data`: damage planted in a set is named, a whole set passes."""

import json
import shutil
from pathlib import Path

import pytest

from latentsync.data.__main__ import main

CUT = 3000  # bytes left of a file


@pytest.fixture
def copied(data_dir: Path, tmp_path: Path) -> Path:
    return shutil.copytree(data_dir, tmp_path / "my set")


def shown(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of the command."""
    status = 0
    try:
        main(words)
    except SystemExit as ended:
        status = int(ended.code or 0)
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_a_whole_set_passes(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = shown(["verify", str(copied)], capsys)
    assert status == 0
    assert out.splitlines() == [f"{copied}: 3 clips, 0 damaged files"]


def test_each_damaged_file_is_named(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clips = sorted((copied / "clips").glob("*.mp4"))
    features = sorted((copied / "features").glob("*.safetensors"))
    clips[0].unlink()
    clips[1].write_bytes(clips[1].read_bytes()[:CUT])
    shutil.copy(clips[2], copied / "kept.mp4")
    features[0].write_bytes(features[0].read_bytes()[:CUT])
    manifest = copied / "manifest.jsonl"
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    longer = next(row for row in rows if row["clip"] == f"clips/{clips[2].name}")
    frames = longer["num_frames"]
    longer["num_frames"] += 1
    latents = copied / "latents" / "vae"
    latents.mkdir(parents=True)
    for path in features[1:]:
        shutil.copy(path, latents)
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))

    status, out, _ = shown(["verify", str(copied)], capsys)
    assert status == 1
    assert f"{clips[0]}: does not exist" in out
    assert f"{clips[1]}: " in out
    assert f"{clips[2]}: {frames} frames, the manifest says {frames + 1}" in out
    assert f"{features[0]}: " in out
    assert f"{copied}: 3 clips, 5 damaged files" in out
    assert f"{latents / features[0].name}: does not exist" in out
    assert (copied / "kept.mp4").is_file()


def test_numbers_of_a_set(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dropped = [
        {"source": "x", "stage": stage, "reason": "-"} for stage in ("probe", "align", "probe")
    ]
    (copied / "dropped.jsonl").write_text("".join(json.dumps(row) + "\n" for row in dropped))
    status, out, _ = shown(["stats", str(copied)], capsys)
    figures = dict(
        line.strip().split(maxsplit=1)
        for line in out.splitlines()[1:]
        if "stage" not in line and "seconds" not in line
    )
    assert status == 0
    assert figures == {
        "clips": "3",
        "sources": "3",
        "hours": f"{(60 + 75 + 90) / 25 / 3600:.2f}",
        "resolution": "64",
        "fps": "25",
        "dropped": "3",
    }
    assert "2.40 to 3.60, median 3.00" in out
    assert out.index("- at stage probe") < out.index("- at stage align")


def test_no_set_and_no_clip_are_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, _, told = shown(["stats", str(tmp_path)], capsys)
    assert status == 2
    assert f"no manifest at {tmp_path / 'manifest.jsonl'}" in told
    (tmp_path / "manifest.jsonl").write_text("{}\n")
    status, _, told = shown(["verify", str(tmp_path)], capsys)
    assert status == 2
    assert "line 1 is not a clip" in told
