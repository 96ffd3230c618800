"""Killed at any point, the same command gives what an undisturbed run gives, and nothing else."""

import json
import os
import shutil
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import numpy as np
import pytest

from latentsync.pipeline import Choice, lipsync, render
from latentsync.pipeline.outputs import parts_folder, written_files
from pipeline.commands import SAID, start_infer
from pipeline.inputs import build_tiny_model, picture, write_video, write_voice

PLAIN = Choice(min_size=0, min_seconds=0)
OF_THE_RUN = {"stage_seconds", "total_seconds", "peak_memory_mib", "notes", "out", "video", "audio"}


def still(index: int) -> np.ndarray:
    return picture(0) + np.uint8(index % 40)


@pytest.fixture
def parts(tiny_model, detector, sampler) -> dict:
    return {"model": tiny_model, "detector": detector, "sampler": sampler, "choice": PLAIN}


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


def facts(folder: Path) -> dict:
    """The part of a report that describes the result, not the run."""
    told = json.loads((folder / "out.report.json").read_text())
    return {name: value for name, value in told.items() if name not in OF_THE_RUN}


@pytest.fixture
def moments(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Folders as `kill -9` would leave them before each rename, from the join on.

    Links, not copies: they are the same files.
    """
    taken: list[Path] = []

    def snapshot(path: Path) -> None:
        folder = next(parent for parent in path.parents if parent.name == "work")
        if list(folder.glob(".*/*whole*")) or (folder / "out.mp4").exists():
            taken.append(folder.with_name(f"killed-{len(taken)}"))
            shutil.copytree(folder, taken[-1], copy_function=os.link)

    def before(change: Callable) -> Callable:
        def changed(self: Path, *args: object, **names: object) -> object:
            if "work" in self.parts and not self.name.startswith("killed"):
                snapshot(self)
            return change(self, *args, **names)

        return changed

    for name in ("replace", "unlink", "rmdir"):
        monkeypatch.setattr(Path, name, before(getattr(Path, name)))
    return taken


def test_killed_at_any_change_of_a_name_the_next_run_ends_as_if_nothing_had_been(
    tmp_path: Path, parts: dict, moments: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    video = write_video(tmp_path / "in.mp4", [still(index) for index in range(20)])
    voice = write_voice(tmp_path / "voice.wav", 0.8)
    work = tmp_path / "work"
    work.mkdir()
    lipsync(video, voice, work / "out.mp4", **parts)
    monkeypatch.undo()
    assert len(moments) >= 10
    whole, wanted = (work / "out.mp4").read_bytes(), names(work)
    assert wanted == {path.name for path in written_files(work / "out.mp4")}
    for folder in moments:
        left = names(folder) | names(parts_folder(folder / "out.mp4"))
        if "out.mp4" in left and not {"published.json", "settings.json"} <= left:
            # It cannot be distinguished from a finished run.
            with pytest.raises(ValueError, match="exists"):
                lipsync(video, voice, folder / "out.mp4", **parts)
        else:
            lipsync(video, voice, folder / "out.mp4", **parts)
        assert names(folder) == wanted
        assert (folder / "out.mp4").read_bytes() == whole
        assert facts(folder) == facts(work)


def test_another_command_does_not_take_what_a_killed_one_had_published(
    tmp_path: Path, parts: dict, moments: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    video = write_video(tmp_path / "in.mp4", [still(index) for index in range(20)])
    voice = write_voice(tmp_path / "voice.wav", 0.8)
    (tmp_path / "work").mkdir()
    lipsync(video, voice, tmp_path / "work" / "out.mp4", **parts)
    monkeypatch.undo()
    for folder in moments:
        out = folder / "out.mp4"
        had_ended = out.exists()
        before = out.read_bytes() if had_ended else b""
        if had_ended:
            with pytest.raises(ValueError, match=r"out.*mp4 exists|json exists"):
                lipsync(video, voice, out, seed=3, **parts)
            assert out.read_bytes() == before, "it was whole: it is the user's"
        else:
            lipsync(video, voice, out, seed=3, **parts)
            assert json.loads((folder / "out.report.json").read_text())["seed"] == 3
        assert names(folder) == names(tmp_path / "work")


def test_a_report_that_was_changed_by_hand_after_a_kill_is_not_replaced(
    tmp_path: Path, parts: dict, moments: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    video = write_video(tmp_path / "in.mp4", [still(index) for index in range(20)])
    voice = write_voice(tmp_path / "voice.wav", 0.8)
    (tmp_path / "work").mkdir()
    lipsync(video, voice, tmp_path / "work" / "out.mp4", **parts)
    monkeypatch.undo()
    folder = next(each for each in moments if (each / "out.report.json").exists())
    mine = folder / "out.report.json"
    mine.unlink()
    mine.write_text("mine")
    with pytest.raises(ValueError, match=r"out\.report\.json exists"):
        lipsync(video, voice, folder / "out.mp4", **parts)
    assert mine.read_text() == "mine"


def test_a_second_start_says_that_the_first_is_at_work_and_leaves_it_alone(
    tmp_path: Path, parts: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(render, "PART_SECONDS", 1)
    video = write_video(tmp_path / "in.mp4", [still(index) for index in range(60)])
    voice = write_voice(tmp_path / "voice.wav", 2.4)
    lipsync(video, voice, tmp_path / "alone.mp4", **parts)
    out = tmp_path / "out.mp4"
    refused = []

    def start_again(stage: str, done: int, _: int) -> None:
        if done in (1, 40):
            with pytest.raises(ValueError, match=r"out\.mp4 is being written by another run"):
                lipsync(video, voice, out, **parts)
            refused.append(stage)

    report = lipsync(video, voice, out, progress=start_again, **parts)
    assert refused == ["faces", "faces", "frames", "frames"]
    assert not [note for note in report.notes if "earlier run" in note]
    assert out.read_bytes() == (tmp_path / "alone.mp4").read_bytes()
    assert not parts_folder(out).exists()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "work"
    place.mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    build_tiny_model().save_pretrained(place / "model")
    write_video(place / "face.mp4", [still(index) for index in range(150)], crf=1)
    write_voice(place / "voice.wav", 10.4)
    return place


def ended(process: ForkServerProcess, folder: Path) -> int:
    process.join(300)
    assert process.exitcode is not None, "it hangs"
    said = (folder.parent / SAID).read_text()
    assert "Traceback" not in said, said
    return process.exitcode


@pytest.mark.slow
def test_two_starts_at_once_give_one_result(folder: Path) -> None:
    assert ended(start_infer(folder, "out=alone.mp4"), folder) == 0
    before = names(folder)
    for round_ in range(3):
        both = [start_infer(folder, f"out=out{round_}.mp4") for _ in range(2)]
        codes = sorted(ended(process, folder) for process in both)
        assert codes == [0, 2]
        said = (folder.parent / SAID).read_text()
        assert said.count("is being written by another run") + said.count("exists;") == round_ + 1
        out = folder / f"out{round_}.mp4"
        assert out.read_bytes() == (folder / "alone.mp4").read_bytes()
        before |= {path.name for path in written_files(out)}
        assert names(folder) == before


def appears(path: Path, process: ForkServerProcess) -> bool:
    while process.is_alive():
        if path.exists():
            return True
        time.sleep(0.0005)
    return False


def joins(path: Path, process: ForkServerProcess) -> bool:
    place = parts_folder(path)
    while process.is_alive():
        if list(place.glob(".whole*.mp4")):
            return True
        time.sleep(0.0005)
    return False


@pytest.mark.slow
def test_thirty_kills_leave_the_same_result_and_nothing_else(
    folder: Path, rng: np.random.Generator
) -> None:
    start_infer(folder, "out=first.mp4").join()  # the first also warms the caches of other programs
    began = time.monotonic()
    assert ended(start_infer(folder, "out=alone.mp4"), folder) == 0
    usual = time.monotonic() - began
    wanted = names(folder)
    told: dict[str, list[str]] = {}
    for kind in ["random"] * 20 + ["out appears"] * 5 + ["joining"] * 5:
        out = folder / "out.mp4"
        process = start_infer(folder, "out=out.mp4")
        if kind == "random":
            time.sleep(rng.uniform(0, 0.9 * usual))
        else:
            assert {"out appears": appears, "joining": joins}[kind](out, process)
        process.kill()
        process.join()
        left = parts_folder(out)
        held = sorted(path.name for path in left.iterdir()) if left.exists() else []
        had_ended = out.exists() and not (left / "published.json").exists()
        code = ended(start_infer(folder, "out=out.mp4"), folder)
        assert code == (2 if had_ended else 0), (kind, held)
        assert out.read_bytes() == (folder / "alone.mp4").read_bytes(), (kind, held)
        assert facts(folder)["num_frames_with_face"] == 260
        written = {path.name for path in written_files(out)}
        assert names(folder) == wanted | written, (kind, held)
        told.setdefault(kind, []).append(f"{len(held)} files left, then {code}")
        for path in written_files(out):
            path.unlink()
    print(usual, json.dumps(told, indent=1))  # noqa: T201 - with pytest -s
