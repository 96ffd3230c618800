"""The command line of infer.py: a whole run, the synthetic demo, and errors."""

import csv
import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from latentsync import demo_model_dir
from latentsync.cli.choices import choose_device
from latentsync.cli.infer import only_warnings_on_stderr
from latentsync.faces.detectors.model_files import default_cache
from latentsync.media.video import read_frames
from pipeline.inputs import POINTS, build_tiny_model, picture, write_video, write_voice
from pipeline.test_damage_told import cut_video

INFER = Path(__file__).parents[2] / "infer.py"
FACES = f"faces.points={POINTS}".replace(" ", "")
TINY = ("ckpt=model", "faces=fixed", FACES, "faces.min_size=0", "device=cpu", "cache=false")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, a video of 1 s and a voice of 1.5 s."""
    folder = tmp_path_factory.mktemp("a folder with spaces")
    build_tiny_model().save_pretrained(folder / "model")
    write_video(folder / "face.mp4", [picture(index) for index in range(25)])
    write_voice(folder / "voice.wav", 1.5)
    return folder


def infer(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(INFER), *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_a_video_and_a_voice_become_a_video_and_a_report(inputs: Path, tmp_path: Path):
    out = tmp_path / "out.mp4"
    done = infer(
        inputs,
        "video=face.mp4",
        "audio=voice.wav",
        "ckpt=model",
        f"out='{out}'",
        "faces=fixed",
        FACES,
        "faces.min_size=0",
        "sampler=dpmpp",
        "sampler.num_steps=2",
        "seed=5",
        "device=cpu",
    )
    assert done.returncode == 0, done.stderr
    assert sum(1 for _ in read_frames(out)) == 38
    report = json.loads((tmp_path / "out.report.json").read_text())
    assert report["num_frames_with_face"] == 38
    assert (report["seed"], report["sampler"]["scheduler"]) == (5, "dpmpp")
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"out.mp4", "out.report.json", "out.report.png", "out.report.html"}
    assert {path.name for path in inputs.iterdir()} == {"model", "face.mp4", "voice.wav"}


def test_a_plan_is_printed_and_its_page_is_all_that_is_made(inputs: Path, tmp_path: Path):
    before, out = sorted(inputs.rglob("*")), tmp_path / "a <b> & c.mp4"
    words = ("video=face.mp4", "audio=voice.wav", "plan=true", f"out='{out}'")
    done = infer(inputs, *words, *TINY)
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert plan["num_frames"] == 25
    assert [face["edit"] for face in plan["shots"][0]["faces"]] == [True]
    assert plan["expected"]["windows"] == 3  # 38 slots: 0-16, 12-28, 22-38
    assert sorted(inputs.rglob("*")) == before
    (page,) = tmp_path.iterdir()
    assert page.name == "a <b> & c.plan.html"
    assert str(page) in done.stderr
    text = page.read_text()
    assert "<h1>Plan of face.mp4</h1>" in text
    # All that is shown of the one person is embedded in the page.
    assert text.count('<img src="data:image/jpeg;base64,') == 1
    assert "http" not in text
    assert 'class="drawn" x="0.000%" width="100.000%"' in text


def test_a_plan_is_of_the_same_request(inputs: Path):
    done = infer(inputs, "video=face.mp4", "audio=voice.wav", "plan=true", "reference=next", *TINY)
    assert done.returncode == 2
    assert "reference=next must be one of" in done.stderr


def test_the_page_of_a_plan_replaces_nobodys_file(inputs: Path, tmp_path: Path):
    (tmp_path / "out.plan.html").write_text("my notes")
    out = f"out='{tmp_path / 'out.mp4'}'"
    done = infer(inputs, "video=face.mp4", "audio=voice.wav", "plan=true", out, *TINY)
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if "out.plan.html" in line]
    assert "is not the page of a plan: move it away" in line
    assert (tmp_path / "out.plan.html").read_text() == "my notes"


def test_a_plan_warns_of_damage_and_stays_a_plan(inputs: Path, tmp_path: Path):
    video, voice = cut_video(tmp_path, np.random.default_rng(0))
    done = infer(inputs, f"video={video}", f"audio={voice}", "plan=true", *TINY)
    assert done.returncode == 0, done.stderr
    assert 20 < json.loads(done.stdout)["num_frames"] < 40
    (warning,) = [line for line in done.stderr.splitlines() if "nothing to read from 1." in line]
    assert f"{video}: the video: " in warning


def test_what_is_logged_for_a_plan_is_back_on_standard_output(capsys: pytest.CaptureFixture[str]):
    log, handler = logging.getLogger("latentsync.of_a_test"), logging.StreamHandler(sys.stdout)
    logging.getLogger().addHandler(handler)
    try:
        with pytest.raises(ValueError, match="no plan"), only_warnings_on_stderr():
            log.warning("damaged")
            log.info("not told")
            raise ValueError("no plan")
        log.warning("afterwards")
    finally:
        logging.getLogger().removeHandler(handler)
    said = capsys.readouterr()
    assert (said.out, said.err) == ("afterwards\n", "damaged\n")
    assert logging.getLogger("latentsync").level == logging.NOTSET


def test_a_list_of_jobs_is_worked_off_and_goes_on(inputs: Path, tmp_path: Path):
    jobs = tmp_path / "jobs.csv"
    face, voice = inputs / "face.mp4", inputs / "voice.wav"
    jobs.write_text(
        "video,audio,out,preset,seed\n"
        f"{face},{voice},a.mp4,draft,1\n"
        f"{face},{voice},b.mp4,drafty,1\n"
        f"{face},none.wav,c.mp4,draft,1\n"
        f"{face},{voice},d.mp4,draft,2\n"
    )
    done = infer(inputs, f"jobs='{jobs}'", *TINY)
    assert done.returncode == 2
    assert "2 of 4 jobs failed" in done.stderr
    with (tmp_path / "jobs.status.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["status"] for row in rows] == ["done", "failed", "failed", "done"]
    assert "drafty" in rows[1]["message"]
    assert "none.wav" in rows[2]["message"]
    assert {path.name for path in tmp_path.glob("*.mp4")} == {"a.mp4", "d.mp4"}
    made = (tmp_path / "a.mp4").stat().st_mtime_ns
    jobs.write_text(jobs.read_text().replace("drafty", "draft").replace("none.wav", str(voice)))
    again = infer(inputs, f"jobs='{jobs}'", *TINY)
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "a.mp4").stat().st_mtime_ns == made
    assert {path.name for path in tmp_path.glob("*.mp4")} == {"a.mp4", "b.mp4", "c.mp4", "d.mp4"}


@pytest.mark.parametrize("way", ["words", "list"])
def test_names_are_taken_as_they_are_typed(inputs: Path, tmp_path: Path, way: str):
    """By the command itself, from the folder they are in; configs would read 2024 as a number."""
    odd = " ${x} it's, {1} #2 12:30 \u6d4b\u8bd5"
    video, audio, out = f"{odd}.mp4", f"{odd}.wav", f"out{odd}.mp4"
    shutil.copy(inputs / "face.mp4", tmp_path / video)
    shutil.copy(inputs / "voice.wav", tmp_path / audio)
    for name in ("2024", odd):
        shutil.copytree(inputs / "model", tmp_path / name)
    if way == "words":
        words = [f"video={video}", f"audio={audio}", f"out={out}", f"ckpt={odd}"]
        words.append(f"assign.0={audio}")
    else:
        with (tmp_path / "1.csv").open("w", encoding="utf-8", newline="") as file:
            table = csv.writer(file, quoting=csv.QUOTE_ALL)
            table.writerows([["video", "audio", "out", "assign.0"], [video, audio, out, audio]])
        words = ["jobs=1.csv", "ckpt=2024"]
    done = infer(tmp_path, *words, *TINY[1:], "preset=draft")
    assert done.returncode == 0, done.stderr
    assert sum(1 for _ in read_frames(tmp_path / out)) == 38


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["video=face.mp4", "audio=voice.wav", "faces.select=nobody"], "faces.select=nobody"),
        (["video=face.mp4", "audio=voice.wav", "preset=quick"], "preset"),
        (["video=face.mp4", "audio=voice.wav", "silence=loud"], "silence=loud"),
        (["video=none.mp4", "audio=voice.wav"], "none.mp4"),
        (["video=face.mp4", "audio=voice.wav", "sampler.num_step=3"], "sampler.num_steps"),
        (["video=face.mp4", "audio=voice.wav", "ckpt=nowhere"], "nowhere"),
    ],
    ids=["select", "preset", "silence", "missing", "override", "ckpt"],
)
def test_wrong_words_get_one_line_and_status_2(inputs: Path, words: list[str], said: str):
    before = sorted(inputs.rglob("*"))
    done = infer(inputs, *words, "faces=fixed", FACES, "faces.min_size=0")
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert [path for path in sorted(inputs.rglob("*")) if path.is_file()] == [
        path for path in before if path.is_file()
    ]


def test_a_device_that_is_not_there_is_named():
    assert choose_device("cpu").type == "cpu"
    with pytest.raises(ValueError, match="device=tpu is not on this machine; there is: cpu"):
        choose_device("tpu")


@pytest.mark.skipif(not demo_model_dir().is_dir(), reason="experiments/demo/model is not there")
@pytest.mark.skipif(not default_cache().is_dir(), reason="the face models are not fetched")
def test_without_a_word_a_drawn_clip_speaks_with_another_voice(tmp_path: Path):
    done = infer(tmp_path, "demo.seconds=2", "sampler.num_steps=4")
    assert done.returncode == 0, done.stderr
    (report_path,) = tmp_path.glob("experiments/infer/*/out.report.json")
    report = json.loads(report_path.read_text())
    assert report["num_frames"] == report["num_frames_with_face"] == 50
    assert (report_path.parent / "out.mp4").is_file()
