"""User errors are reported in one sentence with the value, and leave no files behind."""

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from latentsync.diffusion.sampler import Sampler
from latentsync.models.lipsync import LipSyncModel
from latentsync.pipeline import lipsync
from pipeline.inputs import SeesLight, picture, write_video, write_voice


@dataclass
class Job:
    """The paths of a valid run, to be invalidated by a case."""

    folder: Path
    video: Path
    audio: Path
    out: Path


@pytest.fixture
def job(tmp_path: Path, video: Path, voice: Path) -> Job:
    names = [tmp_path / "face.mp4", tmp_path / "voice.wav"]
    for source, target in zip((video, voice), names, strict=True):
        shutil.copy(source, target)
    return Job(tmp_path, *names, tmp_path / "out.mp4")


def miss_video(job: Job) -> None:
    job.video = job.folder / "no_face.mp4"


def miss_audio(job: Job) -> None:
    job.audio = job.folder / "no_voice.wav"


def give_a_folder(job: Job) -> None:
    job.video = job.folder


def empty_video(job: Job) -> None:
    job.video.write_bytes(b"")


def empty_audio(job: Job) -> None:
    job.audio.write_bytes(b"")


def silent_for_no_time(job: Job) -> None:
    write_voice(job.audio, 0.0)


def text_as_video(job: Job) -> None:
    job.video.write_text("not a video, whatever it is called\n" * 100)


def sound_as_video(job: Job) -> None:
    job.video = job.audio


def mute_audio(job: Job) -> None:
    job.audio = job.video


def cut_off_before_its_index(job: Job) -> None:
    """Like an interrupted recording: the index would have been written last."""
    cut_in_half(job, options={})


def cut_off_after_its_index(job: Job) -> None:
    """Like an interrupted download: the header promises more than there is."""
    cut_in_half(job, options={"movflags": "faststart"})


def cut_in_half(job: Job, *, options: dict[str, str]) -> None:
    whole = write_video(job.folder / "whole.mp4", [picture(index) for index in range(75)])
    with (
        av.open(str(whole)) as source,
        av.open(str(job.video), "w", options=options) as target,
    ):
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    whole.unlink()
    content = job.video.read_bytes()
    job.video.write_bytes(content[: len(content) // 2])


def no_face(job: Job) -> None:
    write_video(job.video, [np.zeros_like(picture(0))] * 20)


def no_folder(job: Job) -> None:
    job.out = job.folder / "missing" / "out.mp4"


def folder_is_a_file(job: Job) -> None:
    job.out = job.audio / "out.mp4"


def folder_not_writable(job: Job) -> None:
    job.out = Path("/proc/out.mp4")


def no_video_name(job: Job) -> None:
    job.out = job.folder / "out.txt"


def out_is_the_video(job: Job) -> None:
    job.out = job.folder / "." / job.video.name


def out_links_to_the_video(job: Job) -> None:
    job.out.symlink_to(job.video)


def out_is_the_video_by_hard_link(job: Job) -> None:
    os.link(job.video, job.out)


def out_is_the_audio(job: Job) -> None:
    job.audio = job.audio.rename(job.folder / "voice.mp4")
    job.out = job.audio


def out_exists(job: Job) -> None:
    job.out.write_bytes(b"somebody's film")


def report_exists(job: Job) -> None:
    job.out.with_suffix(".report.json").write_text("{}")


def out_too_long_for_its_report(job: Job) -> None:
    job.out = job.folder / ("a" * 245 + ".mp4")


def out_too_long_itself(job: Job) -> None:
    job.out = job.folder / ("\u6d4b" * 85 + ".mp4")


BAD: dict[Callable[[Job], None], str] = {
    miss_video: r"no_face\.mp4",
    miss_audio: r"no_voice\.wav",
    give_a_folder: r"is not a file",
    empty_video: r"face\.mp4 is empty",
    empty_audio: r"voice\.wav is empty",
    silent_for_no_time: r"voice\.wav",
    text_as_video: r"face\.mp4 cannot be opened",
    sound_as_video: r"voice\.wav has no video stream",
    mute_audio: r"face\.mp4 has no audio stream",
    cut_off_before_its_index: r"face\.mp4 cannot be opened",
    cut_off_after_its_index: r"face\.mp4 .*(truncated|damaged)",
    no_face: r"no face found in any of \d+ frames of .*face\.mp4",
    no_folder: r"missing does not exist",
    folder_is_a_file: r"voice\.wav",
    folder_not_writable: r"/proc is not writable",
    no_video_name: r"out\.txt must end in",
    out_is_the_video: r"is the input",
    out_links_to_the_video: r"is the input",
    out_is_the_video_by_hard_link: r"is the input",
    out_is_the_audio: r"is the input",
    out_exists: r"out\.mp4 exists.*overwrite=true",
    out_too_long_for_its_report: r"255 bytes at most, .* a{245}\.report\.[a-z]+ of 257 .* 2 bytes",
    out_too_long_itself: r"255 bytes at most, .*report\.[a-z]+ of 267 .* 12 bytes shorter",
    report_exists: r"out\.report\.json exists.*overwrite=true",
}


def state(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("spoil", BAD, ids=lambda spoil: spoil.__name__)
def test_bad_input_is_named_and_nothing_is_left(
    job: Job,
    spoil: Callable[[Job], None],
    tiny_model: LipSyncModel,
    detector: SeesLight,
    sampler: Sampler,
):
    spoil(job)
    before = state(job.folder)
    with pytest.raises((ValueError, OSError)) as raised:
        parts = {"model": tiny_model, "detector": detector, "sampler": sampler}
        lipsync(job.video, job.audio, job.out, **parts)
    assert re.search(BAD[spoil], str(raised.value))
    assert str(raised.value).count("\n") == 0
    assert state(job.folder) == before


@pytest.mark.parametrize("choice", [{"crf": 52}, {"crf": -1}], ids=["too large", "negative"])
def test_a_choice_that_is_none_is_named(
    job: Job,
    choice: dict,
    tiny_model: LipSyncModel,
    detector: SeesLight,
    sampler: Sampler,
):
    ((name, value),) = choice.items()
    parts = {"model": tiny_model, "detector": detector, "sampler": sampler}
    with pytest.raises(ValueError, match=f"{name}={value} must"):
        lipsync(job.video, job.audio, job.out, **choice, **parts)


def test_with_overwrite_an_old_result_is_replaced(
    job: Job, tiny_model: LipSyncModel, detector: SeesLight, sampler: Sampler
):
    out_exists(job)
    parts = {"model": tiny_model, "detector": detector, "sampler": sampler}
    lipsync(job.video, job.audio, job.out, overwrite=True, **parts)
    assert job.out.stat().st_size > 1000


def test_even_overwrite_spares_the_input(
    job: Job, tiny_model: LipSyncModel, detector: SeesLight, sampler: Sampler
):
    out_links_to_the_video(job)
    parts = {"model": tiny_model, "detector": detector, "sampler": sampler}
    with pytest.raises(ValueError, match="is the input"):
        lipsync(job.video, job.audio, job.out, overwrite=True, **parts)


def test_a_model_of_another_version_or_without_a_tensor_is_refused(
    tmp_path: Path, tiny_model: LipSyncModel
):
    folder = tmp_path / "model"
    tiny_model.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "format_version": 99}))
    with pytest.raises(ValueError, match="99"):
        LipSyncModel.from_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(config))
    weights = next((folder / "unet").glob("*.safetensors"))
    state = load_file(weights)
    del state["conv_out.bias"]
    save_file(state, weights, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"conv_out\.bias"):
        LipSyncModel.from_pretrained(folder)
