"""`evaluate.py benchmark=...`: methods on the clips of a prepared set and on lists."""

import json
import re
import shutil
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from latentsync.cli.evaluate import run
from latentsync.cli.names import as_typed
from latentsync.data.synthetic import render_clip
from latentsync.evaluation.pair_list import read_list
from latentsync.faces import Face, FixedDetector
from latentsync.media.video import probe
from latentsync.prepare import Recipe, prepare_clips
from smoke.test_evaluate import POINTS, SeesTheMouth, config_for

NAMES = ("ann", "bob", "cid")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set of three recordings without any truth beside them."""
    folder = tmp_path_factory.mktemp("benchmark")
    (folder / "raw").mkdir()
    for seed, name in enumerate(NAMES):
        render_clip(folder / "raw" / name, seed=300 + seed, seconds=2.2, size=64)
        (folder / "raw" / f"{name}.truth.npz").unlink()
        (folder / "raw" / f"{name}.wav").unlink()
    recipe = Recipe(make_detector=partial(FixedDetector, POINTS), resolution=64, min_seconds=1.0)
    prepare_clips(folder / "raw", folder / "set", stages=recipe.stages())
    return folder / "set"


class SeesTheLevel(SeesTheMouth):
    """Lips as far apart as the mouth's surroundings are bright."""

    def __call__(self, frame: np.ndarray) -> list[Face]:
        marked = frame.copy()
        marked[:, 32] = 255
        (face,) = super().__call__(marked)
        face.points[13], face.points[14] = (32, 40), (32, 40 + frame[44:56, 24:40].mean() / 10)
        return [face]


def benchmark(prepared: Path, out: Path, *words: str) -> dict:
    overrides = [
        "benchmark=set", f"data.path={prepared}", f"out={out}", "compare.resolution=64",
        "evaluator.reader=null", "evaluator.syncnet=null", "evaluator.mesh=true",
        "~faces", "+faces._target_=smoke.test_benchmark.SeesTheLevel",
    ]  # fmt: skip
    run(config_for(prepared, prepared, *overrides, *words))
    return json.loads((out / "metrics.json").read_text())


def copies(video: Path, audio: Path, out: Path) -> None:
    """The source, unchanged; one clip fails."""
    if video.stem.startswith("cid"):
        raise RuntimeError("no mouth")
    shutil.copy(video, out)


def test_a_function_on_a_prepared_set(prepared: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(ValueError, match="2 of 6 pairs could not be measured, first: cid"):
        benchmark(prepared, out, "method=smoke.test_benchmark:copies")
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["pairs_by_setting"] == {"reconstruction": 2, "cross": 2}
    assert metrics["num_failed"] == 2
    assert {each["failed"] for each in metrics["failed"]} == {"RuntimeError: no mouth"}
    # A copy is the truth of its own voice; of another's nobody knows the mouth.
    own, other = (metrics["rows"][f"pred, {whose} voice"] for whose in ("own", "another's"))
    assert own["psnr_inside"] > 25
    assert "psnr_inside" not in other
    assert other["leak_mesh"] > 0.9
    # Both pairs of a recording count as one speaker.
    assert metrics["intervals"]["ref"]["lip_leak"]["num_speakers"] == 2
    for name in ("traits", "closed_in_silence"):
        assert "no drawn truth" in metrics["not_measured"][name]
    page = (out / "report.html").read_text()
    assert "no mouth" in page
    assert 'src="results/ann' in page
    assert "no drawn truth" in page
    assert not re.search(r"(?:src|href)=.https?:|url\(http", page)
    tasks = read_list(out / "list.csv")
    assert [task.setting for task in tasks] == ["reconstruction", "cross"] * 3
    assert tasks[1].audio != tasks[0].audio
    # The clips are the frames as filmed.
    assert probe(tasks[0].video).width == 64
    assert probe(tasks[0].video).num_frames == 24

    # Run again on the same files as a list: the same figures, nothing is made again.
    before = (out / "metrics.json").read_text()
    made = (out / "results").stat().st_mtime_ns
    with pytest.raises(ValueError, match="2 of 6 pairs"):
        benchmark(prepared, out, "method=smoke.test_benchmark:copies")
    assert (out / "metrics.json").read_text() == before
    assert (out / "results").stat().st_mtime_ns >= made


def test_a_command_on_a_list_and_a_folder_of_its_results(prepared: Path, tmp_path: Path) -> None:
    first = tmp_path / "first"
    code = "import shutil, sys; shutil.copy(sys.argv[1], sys.argv[3])"
    words = [sys.executable, "-c", code, "{video}", "{audio}", "{out}"]
    method = "method=[" + ",".join(f"'{word}'" for word in words) + "]"
    one = benchmark(prepared, first, method, "setting=reconstruction", "limit=2")
    assert one["pairs_by_setting"] == {"reconstruction": 2}
    assert one["rows"]["pred"]["psnr_outside"] > 25
    assert one["settings"]["method"] == words
    assert not one["settings"].keys() & {"ckpt", "sampler"}  # of no model here
    # One circle for the cost and the figure of each pair.
    assert (first / "report.html").read_text().count("<circle") == 2
    listed = ["benchmark=list", f"data.path={first / 'list.csv'}"]
    folder = [*listed, f"pred={first / 'results'}"]
    again = benchmark(prepared, tmp_path / "second", *folder)
    assert again["rows"] == one["rows"]
    # Nobody knows how the files of a folder were made.
    assert not again["settings"].keys() & {"method", "ckpt", "sampler"}
    # Bad input: each is a line, and the others are measured.
    names = sorted(path.name for path in (first / "results").iterdir())
    (first / "results" / names[0]).rename(first / "results" / "other.mp4")
    with pytest.raises(ValueError, match=r"1 of 2 pairs .* has no file of this name"):
        benchmark(prepared, tmp_path / "third", *folder)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["benchmark=everything"], "benchmark=everything must be one of drawn, set, list, syncnet"),
        (["data.path=null"], "benchmark=set needs data=: a folder of prepare.py"),
        (["setting=dub"], "setting='dub' must be one of auto, reconstruction, cross"),
        (["method=modle"], "must be model, package"),
        (["method=['cp','{video}','{out}']"], r"lacks \{audio\}"),
    ],
)
def test_what_cannot_be_is_refused(
    prepared: Path, tmp_path: Path, words: list[str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        benchmark(prepared, tmp_path / "out", *words)


def test_a_recording_that_is_gone_is_a_failure_by_name(prepared: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(prepared, moved)
    manifest = moved / "manifest.jsonl"
    manifest.write_text(manifest.read_text().replace("ann.mp4", "gone.mp4"))
    with pytest.raises(ValueError, match=r"1 of 3 pairs .*gone.mp4, which ann"):
        benchmark(
            moved, tmp_path / "out", "method=smoke.test_benchmark:copies_all",
            "setting=reconstruction",
        )  # fmt: skip


def copies_all(video: Path, audio: Path, out: Path) -> None:
    """The source, unchanged."""
    shutil.copy(video, out)


def test_data_is_a_name_and_no_choice_of_a_group() -> None:
    words = as_typed(["benchmark=set", "data=my set, 1", "+x=data=1"], "evaluate")
    assert words == ["benchmark=set", "data.path='my set, 1'", "+x=data=1"]
    assert as_typed(["data=default"], "train") == ["data=default"]
