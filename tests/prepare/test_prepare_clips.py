"""Raw folders become data sets: what is kept, what is dropped and why, and resuming."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from base64 import b64decode
from dataclasses import replace
from functools import partial
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from coded import LOUD, POINTS, coded_frame, coded_sound, frame_numbers, write_coded_video
from latentsync.data import read_manifest
from latentsync.data.synthetic import read_truth
from latentsync.faces import Face, FixedDetector
from latentsync.media.audio import read_waveform, write_wav
from latentsync.media.video import VideoWriter, open_clip, probe
from latentsync.prepare import LocalExecutor, Recipe, SerialExecutor, filter_clips, prepare_clips
from latentsync.prepare.accounts import accounts_of


class SeesStripes(FixedDetector):
    """Detects a face at the fixed points wherever the frame is not black."""

    def __call__(self, frame: np.ndarray) -> list[Face]:
        return super().__call__(frame) if frame.mean() > 16 else []

    def refine(self, frame: np.ndarray, face: Face) -> Face | None:
        return next(iter(self(frame)), None)


def shown(path: Path) -> list[int]:
    reader = open_clip(path)
    frames = torch.from_numpy(reader.frames(np.arange(len(reader))))
    return frame_numbers(frames.permute(0, 3, 1, 2) / 127.5 - 1)


def reasons(folder: Path) -> dict[str, str]:
    rows = [json.loads(line) for line in (folder / "dropped.jsonl").read_text().splitlines()]
    return {row["source"]: f"{row['stage']}: {row['reason']}" for row in rows}


def content(folder: Path) -> dict[str, bytes]:
    names = ["manifest.jsonl", "dropped.jsonl", "report.md"]
    features = sorted((folder / "features").iterdir())
    return {path.name: path.read_bytes() for path in [*(folder / n for n in names), *features]}


def test_a_clip_is_its_source_frame_by_frame_and_sample_by_sample(raw_dir, recipe, tmp_path):
    prepare_clips(raw_dir, tmp_path / "set", stages=recipe.stages())
    clip = read_manifest(tmp_path / "set")[0]
    assert shown(clip.path) == list(range(55))
    video = probe(clip.path)
    assert (video.fps, video.width, video.height, video.has_audio) == (25, 64, 64, True)
    waveform = read_waveform(clip.path)
    source = coded_sound(55, LOUD)
    assert abs(len(waveform) - len(source)) <= 2048  # whole packets of AAC
    quiet = min(len(waveform), len(source))
    correlation = torch.corrcoef(torch.stack([waveform[:quiet], source[:quiet]]))[0, 1]
    assert correlation > 0.95
    features = load_file(clip.features_path)
    assert features["audio"].shape == (2 * 55, 2, 80)
    assert features["audio"].dtype == torch.float16
    assert features["mel"].shape[0] == 80
    assert features["mel"].shape[1] == 55 * 640 // 200 + 1


def test_the_manifest_is_in_the_order_of_names_and_names_do_not_collide(raw_dir, recipe, tmp_path):
    prepare_clips(raw_dir, tmp_path / "set", stages=recipe.stages())
    clips = read_manifest(tmp_path / "set")
    sources = [Path(clip.source).relative_to(raw_dir).as_posix() for clip in clips]
    assert sources == ["anna/00001.mp4", "anna/00002.mp4", "ben/00001.mp4", "ben/00002.mp4"]
    assert len({clip.path for clip in clips}) == 4


def test_other_rates_land_on_the_grid(recipe, tmp_path):
    write_coded_video(tmp_path / "raw" / "fast.mp4", 120, fps=50)
    prepare_clips(tmp_path / "raw", tmp_path / "set", stages=recipe.stages())
    (clip,) = read_manifest(tmp_path / "set")
    assert clip.num_frames == 60
    # ffmpeg's fps filter rounds times to the nearest slot, halves up: frame 2k - 1 or 2k.
    assert all(abs(number - 2 * slot) <= 1 for slot, number in enumerate(shown(clip.path)))


def test_long_recordings_are_cut_and_their_last_two_clips_are_equal(recipe, tmp_path):
    write_coded_video(tmp_path / "raw" / "long.mp4", 230, loud=range(130, 150))
    recipe = replace(recipe, min_seconds=1.0, max_seconds=4.0)
    prepare_clips(tmp_path / "raw", tmp_path / "set", stages=recipe.stages())
    clips = read_manifest(tmp_path / "set")
    assert [(clip.start_frame, clip.num_frames) for clip in clips] == [
        (0, 100),
        (100, 65),
        (165, 65),
    ]
    assert [number for clip in clips for number in shown(clip.path)] == list(range(230))
    states = load_file(clips[1].features_path)["audio"].float().amax(dim=(1, 2))
    loud = (states > 0).nonzero().flatten() / 2 + 100
    assert abs(float(loud.min()) - 130) <= 1.5
    assert abs(float(loud.max()) - 149.5) <= 1.5


def test_every_drop_has_its_reason(spoiled_dir, recipe, tmp_path):
    before = {path: path.read_bytes() for path in spoiled_dir.iterdir()}
    recipe = replace(recipe, make_detector=partial(SeesStripes, POINTS))
    prepare_clips(spoiled_dir, tmp_path / "set", stages=recipe.stages())
    assert [Path(clip.source).name for clip in read_manifest(tmp_path / "set")] == ["good.mp4"]
    found = reasons(tmp_path / "set")
    expected = {
        "black.mp4": "align: no face in any of 60 frames",
        "black.wav": "probe: ",
        "cut_off.mp4": "resample: ",
        "empty.mp4": "probe: ",
        "short.mp4": "probe: 0.80 s are less than the 2 needed",
        "soundless.mp4": "probe: it has no audio stream",
        "text.mp4": "probe: ",
    }
    assert found.keys() == expected.keys()
    assert all(found[name].startswith(text) for name, text in expected.items())
    assert "empty (0 bytes)" in found["empty.mp4"]
    assert "breaks off at 1." in found["cut_off.mp4"]
    report = (tmp_path / "set" / "report.md").read_text()
    assert "| raw files | 8 |" in report
    assert "| clips | 1 |" in report
    assert "| dropped | 7 |" in report
    assert {path: path.read_bytes() for path in spoiled_dir.iterdir()} == before


def test_the_longest_stretch_with_a_face_is_kept(recipe, tmp_path):
    (tmp_path / "raw").mkdir()
    black = np.zeros((128, 128, 3), np.uint8)
    frames = [black if index in (30, 31, 95) else coded_frame(index) for index in range(110)]
    write_wav(tmp_path / "raw" / "gaps.wav", coded_sound(110, range(50, 60)))
    with VideoWriter(
        tmp_path / "raw" / "gaps.mp4",
        fps=25,
        width=128,
        height=128,
        audio=tmp_path / "raw" / "gaps.wav",
    ) as writer:
        for frame in frames:
            writer.write(frame)
    recipe = replace(recipe, make_detector=partial(SeesStripes, POINTS))
    prepare_clips(tmp_path / "raw", tmp_path / "set", stages=recipe.stages())
    (clip,) = read_manifest(tmp_path / "set")
    assert (clip.start_frame, clip.num_frames) == (32, 63)
    assert shown(clip.path) == list(range(32, 95))
    states = load_file(clip.features_path)["audio"].float().amax(dim=(1, 2))
    loud = (states > 0).nonzero().flatten() / 2 + 32
    assert abs(float(loud.min()) - 50) <= 1.5


def test_processes_give_what_one_process_gives(raw_dir, recipe, tmp_path):
    prepare_clips(raw_dir, tmp_path / "one", stages=recipe.stages(), executor=SerialExecutor())
    prepare_clips(
        raw_dir, tmp_path / "two", stages=recipe.stages(), executor=LocalExecutor(num_workers=2)
    )
    assert content(tmp_path / "one") == content(tmp_path / "two")


KILLED_RUN = """
import os, signal, sys
from pathlib import Path
from coded import RESOLUTION, make_detector
from latentsync.prepare import Recipe, SerialExecutor, prepare_clips

class KilledAtThird(SerialExecutor):
    def run(self, make_work, items):
        for number, outcome in enumerate(super().run(make_work, items), start=1):
            if number == 3:
                os.kill(os.getpid(), signal.SIGKILL)
            yield outcome

prepare_clips(
    Path(sys.argv[1]),
    Path(sys.argv[2]),
    stages=Recipe(make_detector=make_detector, resolution=RESOLUTION, occlusion=None).stages(),
    executor=KilledAtThird(),
)
"""


def test_a_killed_run_goes_on_and_ends_like_an_unbroken_one(raw_dir, recipe, tmp_path):
    broken, unbroken = tmp_path / "broken", tmp_path / "unbroken"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", KILLED_RUN, raw_dir, broken]
    killed = subprocess.run(command, env=environment, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not (broken / "manifest.jsonl").exists()
    # The kill came while a line and a file were being written.
    record = broken / "record.jsonl"
    assert len(record.read_text().splitlines()) == 1 + 2
    with record.open("a") as file:
        file.write('{"item": "ben/00001.mp4 12')
    (broken / "clips" / ".half.123.partial.mp4").write_bytes(b"half")
    # Of stage=latents, which runs on the same set.
    theirs = broken / "latents" / "vae" / ".one.456.partial.safetensors"
    theirs.parent.mkdir(parents=True)
    (theirs.parent / ".lock").touch()
    theirs.write_bytes(b"being written")
    done = {path: path.stat().st_mtime_ns for path in (broken / "clips").glob("[!.]*")}
    assert len(done) == 3

    prepare_clips(raw_dir, broken, stages=recipe.stages())
    prepare_clips(raw_dir, unbroken, stages=recipe.stages())
    assert content(broken) == content(unbroken)
    assert list(broken.rglob(".*partial*")) == [theirs]
    unchanged = [path for path, time in done.items() if path.stat().st_mtime_ns == time]
    assert len(unchanged) == 2  # recorded clips were not made again


def test_a_finished_run_does_nothing_again(raw_dir, recipe, tmp_path):
    prepare_clips(raw_dir, tmp_path / "set", stages=recipe.stages())
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "set" / "clips").iterdir()}
    prepare_clips(raw_dir, tmp_path / "set", stages=recipe.stages())
    assert {path: path.stat().st_mtime_ns for path in times} == times


def test_other_parameters_in_the_same_folder_are_refused_with_both_values(
    raw_dir, recipe, tmp_path
):
    prepare_clips(raw_dir, tmp_path / "set", stages=recipe.stages())
    other = replace(recipe, resolution=128, aligner="official")
    with pytest.raises(ValueError, match=r"resolution was 64, is now 128") as error:
        prepare_clips(raw_dir, tmp_path / "set", stages=other.stages())
    assert 'aligner was "smooth", is now "official"' in str(error.value)
    assert "another output folder" in str(error.value)


def test_a_changed_raw_file_is_prepared_again(recipe, tmp_path):
    raw_dir = tmp_path / "raw"
    write_coded_video(raw_dir / "one.mp4", 55)
    prepare_clips(raw_dir, tmp_path / "set", stages=recipe.stages())
    write_coded_video(raw_dir / "one.mp4", 70)
    write_coded_video(raw_dir / "two.mp4", 60)
    prepare_clips(raw_dir, tmp_path / "set", stages=recipe.stages())
    assert [clip.num_frames for clip in read_manifest(tmp_path / "set")] == [70, 60]


def test_the_bar_counts_files_clips_and_dropped_parts(recipe, tmp_path, capsys):
    write_coded_video(tmp_path / "raw" / "good.mp4", 60)
    write_coded_video(tmp_path / "raw" / "short.mp4", 20)
    prepare_clips(tmp_path / "raw", tmp_path / "set", stages=recipe.stages(), progress=True)
    shown = capsys.readouterr().err
    assert re.search(r"prepare: 100%.* 2/2 .*file.*clips=1, dropped=1", shown)


@pytest.mark.parametrize("noted", [True, False])
def test_nothing_of_another_version_of_a_recording_is_kept(recipe, tmp_path, noted):
    """Clips of two versions have the same names; the first one comes back with its old time.
    Earlier records did not note what a version replaces."""
    raw, folder, stages = tmp_path / "raw", tmp_path / "set", replace(recipe, max_seconds=4.0)
    versions = {
        length: write_coded_video(tmp_path / f"{length}" / "one.mp4", length)
        for length in (150, 60)
    }
    raw.mkdir()
    made = {}
    for length in (150, 60, 150, 60):
        shutil.copy2(versions[length], raw / "one.mp4")
        (outcome,) = prepare_clips(raw, folder, stages=stages.stages())
        clips = sorted((folder / "clips").glob("*.mp4"))
        assert clips == sorted(clip.path for clip in outcome.clips)
        assert sum(clip.num_frames for clip in outcome.clips) == length
        assert not list(folder.glob("latents/*/*"))
        if not noted:
            record = folder / "record.jsonl"
            record.write_text(re.sub(r', "replaces": \[[^]]*\]', "", record.read_text()))
        content = [path.read_bytes() for path in clips]
        assert made.setdefault(length, content) == content
        # Another stage's, of clips that will be others.
        for clip in outcome.clips:
            path = folder / "latents" / "vae-1" / f"{clip.name}.safetensors"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    filtered = filter_clips(folder, {})
    assert [each.clips for each in filtered] == [outcome.clips]


@pytest.mark.parametrize("folders", [("clips",), ("features",), ("clips", "features")])
def test_what_was_deleted_is_made_again_and_nothing_else(raw_dir, recipe, tmp_path, folders):
    prepare_clips(raw_dir, tmp_path / "set", stages=recipe.stages())
    whole = content(tmp_path / "set")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "set" / "clips").iterdir()}
    clip = read_manifest(tmp_path / "set")[1]
    for folder in folders:
        (clip.path if folder == "clips" else clip.features_path).unlink()
    with pytest.raises(FileNotFoundError, match="prepare this data set again"):
        read_manifest(tmp_path / "set")
    prepare_clips(raw_dir, tmp_path / "set", stages=recipe.stages())
    assert len(read_manifest(tmp_path / "set")) == 4
    assert content(tmp_path / "set") == whole
    made = [path for path, time in times.items() if path.stat().st_mtime_ns != time]
    assert made == [clip.path]


CONTAINERS = {
    "a.flv": "flv", "b.mts": "mpegts", "c.m2ts": "mpegts", "d.wmv": "asf", "e.3gp": "3gp",
    "f.mpeg": "mpegts", "g.MKV": "matroska", "no_suffix": "mp4", "wrong.txt": "mov",
}  # fmt: skip


def test_a_video_is_what_its_content_says(recipe, tmp_path):
    source = write_coded_video(tmp_path / "source.mp4", 55, loud=LOUD)
    (tmp_path / "raw").mkdir()
    for name, container in CONTAINERS.items():
        remux(source, tmp_path / "raw" / name, container)
    (tmp_path / "raw" / ".hidden.flv").write_bytes(source.read_bytes())
    outcomes = prepare_clips(tmp_path / "raw", tmp_path / "set", stages=recipe.stages())
    # A header may round a file's length up.
    assert all("file's header says" in reason for reason in reasons(tmp_path / "set").values())
    assert all(account.dropped < 2.1 / 25 for account in accounts_of(outcomes))
    clips = read_manifest(tmp_path / "set")
    assert {Path(clip.source).name for clip in clips} == CONTAINERS.keys()
    # Containers round their lengths by a frame or two.
    frames = {Path(clip.source).name: clip.num_frames for clip in clips}
    assert all(abs(number - 55) <= 2 for number in frames.values()), frames


def remux(source: Path, path: Path, container: str) -> None:
    """The same packets in another container."""
    with av.open(str(source)) as given, av.open(str(path), "w", format=container) as made:
        streams = {stream.index: made.add_stream_from_template(stream) for stream in given.streams}
        for packet in given.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream_index]
                made.mux(packet)


def test_linked_folders_are_gone_into_once(recipe, tmp_path):
    raw, disk = tmp_path / "raw", tmp_path / "disk"
    write_coded_video(raw / "own" / "a.mp4", 55)
    write_coded_video(disk / "tape" / "b.mp4", 55)
    (raw / "disk").symlink_to(disk)
    (disk / "tape" / "back").symlink_to(raw)
    (disk / "self").symlink_to(".")
    (raw / "also").symlink_to("own")
    (raw / "another").symlink_to(disk / "tape")
    prepare_clips(raw, tmp_path / "set", stages=recipe.stages())
    sources = [Path(clip.source) for clip in read_manifest(tmp_path / "set")]
    assert sorted(path.resolve().name for path in sources) == ["a.mp4", "b.mp4"]
    assert {path.relative_to(raw).parts[0] for path in sources} == {"another", "own"}


def test_a_link_from_the_input_into_the_output_is_refused(recipe, tmp_path):
    write_coded_video(tmp_path / "raw" / "a.mp4", 55)
    prepare_clips(tmp_path / "raw", tmp_path / "set", stages=recipe.stages())
    (tmp_path / "raw" / "clips").symlink_to(tmp_path / "set" / "clips")
    with pytest.raises(ValueError, match="leads into the output"):
        prepare_clips(tmp_path / "raw", tmp_path / "set", stages=recipe.stages())


# Other files next to videos: how they are made, and what is reported about each.
OTHERS = {
    "notes.txt": ("hello", "cannot be opened as video"),
    "meta.json": ('{"a": 1}', "cannot be opened as video"),
    "words.srt": ("1\n00:00:01,000 --> 00:00:03,000\nhi\n", "has no video stream"),
    "picture.png": (None, "a still picture"),
    "nowhere.mp4": (None, "a link to nowhere"),
    "pipe.mp4": (None, "no regular file"),
    "locked.mp4": (None, "cannot be opened as video"),
}


def test_what_is_no_video_is_listed_with_its_reason(recipe, tmp_path):
    raw = tmp_path / "raw"
    write_coded_video(raw / "sub" / "good.mp4", 55).rename(raw / "sub" / "good")
    for name, (text, _) in OTHERS.items():
        if text is not None:
            (raw / name).write_text(text)
    cv2.imwrite(str(raw / "picture.png"), coded_frame(3))
    (raw / "nowhere.mp4").symlink_to("gone")
    os.mkfifo(raw / "pipe.mp4")
    (raw / "locked.mp4").write_bytes(b"\0" * 4096)
    prepare_clips(raw, tmp_path / "set", stages=recipe.stages())
    assert [Path(clip.source).name for clip in read_manifest(tmp_path / "set")] == ["good"]
    found = reasons(tmp_path / "set")
    assert found.keys() == OTHERS.keys()
    for name, (_, reason) in OTHERS.items():
        assert reason in found[name]


def test_two_runs_do_not_write_one_folder(raw_dir, recipe, tmp_path):
    class SecondRunInside(SerialExecutor):
        def run(self, make_work, items):
            with pytest.raises(ValueError, match="being written by another run"):
                prepare_clips(raw_dir, tmp_path / "set", stages=recipe.stages())
            yield from super().run(make_work, items)

    prepare_clips(raw_dir, tmp_path / "set", stages=recipe.stages(), executor=SecondRunInside())
    assert len(read_manifest(tmp_path / "set")) == 4


def test_a_picture_shows_the_faces(raw_dir, recipe, tmp_path):
    prepare_clips(raw_dir, tmp_path / "set", stages=recipe.stages())
    page = (tmp_path / "set" / "report.html").read_text()
    inside = re.findall('"data:image/jpeg;base64,([^"]*)"', page)
    strips = [cv2.imdecode(np.frombuffer(b64decode(each), np.uint8), 1) for each in inside]
    assert len(strips) == 4
    for strip, last in zip(strips, [54, 59, 54, 59], strict=True):
        faces = torch.from_numpy(np.stack(np.split(strip, 3, axis=1)))
        assert frame_numbers(faces.permute(0, 3, 1, 2) / 127.5 - 1) == [0, round(last / 2), last]


@pytest.mark.parametrize(
    ("raw", "output", "message"),
    [
        ("nowhere", "set", "no folder"),
        (".", "set", "lies in the input"),
        ("hidden", "set", "holds no file"),
    ],
)
def test_a_wrong_input_is_one_sentence(raw, output, message, recipe, tmp_path):
    (tmp_path / "hidden" / ".trash").mkdir(parents=True)
    (tmp_path / "hidden" / "._a.mp4").touch()
    (tmp_path / "hidden" / ".trash" / "a.mp4").touch()
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        prepare_clips(tmp_path / raw, tmp_path / output, stages=recipe.stages())
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize(
    "wrong",
    [{"aligner": "none"}, {"resolution": 100}, {"min_seconds": 6.0}],
)
def test_a_wrong_recipe_is_refused(wrong):
    with pytest.raises(ValueError, match=str(next(iter(wrong.values()))).split(".")[0]):
        Recipe(**wrong).stages()


def test_a_drawn_mouth_opens_when_its_sound_is_loud(talking_clip, recipe, tmp_path):
    (tmp_path / "raw").mkdir()
    shutil.copy(talking_clip, tmp_path / "raw" / "talking.mp4")
    prepare_clips(tmp_path / "raw", tmp_path / "set", stages=recipe.stages())
    (clip,) = read_manifest(tmp_path / "set")
    opening = torch.from_numpy(read_truth(talking_clip)["open"]).float()[: clip.num_frames]
    states = load_file(clip.features_path)["audio"].float()
    loudness = states[: 2 * clip.num_frames].mean(dim=(1, 2)).unflatten(0, (-1, 2)).mean(dim=1)

    def agreement(lag: int) -> float:
        pair = torch.stack([loudness[10:-10], opening.roll(lag)[10:-10]])
        return float(torch.corrcoef(pair)[0, 1])

    lags = range(-10, 11)
    assert abs(max(lags, key=agreement)) <= 1
    assert agreement(0) > 0.4


def test_a_clip_has_the_id_of_its_content_whatever_its_recording_is_called(recipe, tmp_path):
    first = write_coded_video(tmp_path / "raw" / "one.mp4", 230)
    second = write_coded_video(tmp_path / "raw" / "two.mp4", 231)
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / "other name.mp4").write_bytes(first.read_bytes())
    stages = replace(recipe, max_seconds=4.0).stages()
    prepare_clips(tmp_path / "raw", tmp_path / "set", stages=stages)
    prepare_clips(tmp_path / "again", tmp_path / "renamed", stages=stages)
    every = read_manifest(tmp_path / "set")
    ids = [clip.measures["id"] for clip in every]
    assert len(set(ids)) == len(ids) == 6
    own = [clip.measures["id"] for clip in every if clip.source == str(first)]
    assert [clip.measures["id"] for clip in read_manifest(tmp_path / "renamed")] == own
    assert first.read_bytes() != second.read_bytes()
    # Another recording of the same name is another one, also in the same process.
    write_coded_video(tmp_path / "again" / "other name.mp4", 232)
    prepare_clips(tmp_path / "again", tmp_path / "renamed", stages=stages)
    now = {clip.measures["id"] for clip in read_manifest(tmp_path / "renamed")}
    assert now & set(own) == set()
