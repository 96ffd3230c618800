"""Bad input of prepare: each is one clear error, or a file listed as dropped."""

import errno
import json
import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from coded import write_coded_video
from latentsync.data import read_manifest
from latentsync.data.stores import save_tensors
from latentsync.prepare import AlignedSegment, SerialExecutor, prepare_clips


def dropped(folder: Path) -> dict[str, str]:
    rows = [json.loads(line) for line in (folder / "dropped.jsonl").read_text().splitlines()]
    return {row["source"]: f"{row['stage']}: {row['reason']}" for row in rows}


@dataclass(kw_only=True)
class FailsOn:
    """Raises what no stage expects for the files of a name, while a flag file is there."""

    name: ClassVar[str] = "fails"
    takes: ClassVar[type] = AlignedSegment
    makes: ClassVar[type] = AlignedSegment

    source: str
    flag: str

    def run(self, aligned: AlignedSegment) -> Iterator[AlignedSegment]:
        if aligned.source.name.startswith(self.source) and Path(self.flag).exists():
            raise IndexError("list index out of range")
        yield aligned


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    for name in ("a", "b", "c"):
        write_coded_video(tmp_path / "raw" / f"{name}.mp4", 55, loud=range(10, 40))
    return tmp_path / "raw"


def test_loops_of_links_end_and_are_listed(raw, recipe, tmp_path) -> None:
    (raw / "deep").mkdir()
    (raw / "deep" / "up").symlink_to(raw)
    (raw / "deep" / "self").symlink_to(raw / "deep" / "self")
    (raw / "ping.mp4").symlink_to(raw / "pong.mp4")
    (raw / "pong.mp4").symlink_to(raw / "ping.mp4")
    prepare_clips(raw, tmp_path / "set", stages=recipe.stages())
    assert len(read_manifest(tmp_path / "set")) == 3
    found = dropped(tmp_path / "set")
    assert found.keys() == {"deep/self", "ping.mp4", "pong.mp4"}
    assert all("link to nowhere" in reason for reason in found.values())


def test_a_link_into_the_output_is_refused(raw, recipe, tmp_path) -> None:
    prepare_clips(raw, tmp_path / "set", stages=recipe.stages())
    (raw / "clips").symlink_to(tmp_path / "set" / "clips")
    with pytest.raises(ValueError, match="leads into the output"):
        prepare_clips(raw, tmp_path / "set", stages=recipe.stages())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_may_not_be_read_is_listed(raw, recipe, tmp_path) -> None:
    (raw / "b.mp4").chmod(0)
    prepare_clips(raw, tmp_path / "set", stages=recipe.stages())
    assert dropped(tmp_path / "set").keys() == {"b.mp4"}


def test_a_file_that_vanishes_is_listed_and_the_others_are_prepared(raw, recipe, tmp_path) -> None:
    class Vanishing(SerialExecutor):
        def run(self, make_work, items):
            (raw / "b.mp4").unlink()
            yield from super().run(make_work, items)

    stages = recipe.stages()
    prepare_clips(raw, tmp_path / "set", stages=stages, executor=Vanishing())
    assert len(read_manifest(tmp_path / "set")) == 2
    assert dropped(tmp_path / "set") == {
        "b.mp4": "probe: it is no regular file, or a link to nowhere"
    }


def test_a_file_that_vanishes_while_it_is_read_is_listed(raw, recipe, tmp_path) -> None:
    @dataclass(kw_only=True)
    class Removes:
        name: ClassVar[str] = "removes"
        takes: ClassVar[type] = AlignedSegment
        makes: ClassVar[type] = AlignedSegment

        def run(self, aligned: AlignedSegment) -> Iterator[AlignedSegment]:
            if aligned.source.name == "b.mp4":
                aligned.source.path.unlink()
                aligned.source.path.read_bytes()
            yield aligned

    *before, last = recipe.stages()
    prepare_clips(raw, tmp_path / "set", stages=[*before, Removes(), last])
    assert len(read_manifest(tmp_path / "set")) == 2
    assert dropped(tmp_path / "set") == {"b.mp4": "resample: it vanished while it was read"}


def test_an_unexpected_error_costs_one_file_which_is_tried_again(
    raw, recipe, tmp_path, caplog
) -> None:
    (tmp_path / "flag").touch()
    *before, last = recipe.stages()
    stages = [*before, FailsOn(source="b", flag=str(tmp_path / "flag")), last]
    prepare_clips(raw, tmp_path / "set", stages=stages, max_error_rate=0.4)
    assert len(read_manifest(tmp_path / "set")) == 2
    assert dropped(tmp_path / "set") == {"b.mp4": "error: IndexError: list index out of range"}
    assert "b.mp4: unexpected error" in caplog.text
    (tmp_path / "flag").unlink()
    prepare_clips(raw, tmp_path / "set", stages=stages)
    assert len(read_manifest(tmp_path / "set")) == 3
    assert not dropped(tmp_path / "set")


def test_too_many_unexpected_errors_end_the_run_after_the_rest(raw, recipe, tmp_path) -> None:
    (tmp_path / "flag").touch()
    *before, last = recipe.stages()
    stages = [*before, FailsOn(source="b", flag=str(tmp_path / "flag")), last]
    with pytest.raises(
        ValueError, match=r"1 of 3 files .* max_error_rate=0\.3 \(first: b\.mp4: Ind"
    ):
        prepare_clips(raw, tmp_path / "set", stages=stages, max_error_rate=0.3)
    assert len(read_manifest(tmp_path / "set")) == 2


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 600 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if shutil.which("mount") is None or os.geteuid() != 0:
        pytest.skip("only root may mount a small disk")
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", folder],
        capture_output=True,
        check=False,
    )
    if made.returncode:
        pytest.skip("no disk can be mounted here")
    yield folder
    # At once, though an exception that a test holds may keep a file open.
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.parametrize("num_filled", [450, 550, 600])
def test_a_disk_without_space_is_one_error_that_names_it(
    raw, recipe, small_disk, num_filled
) -> None:
    filler = small_disk / "filler"
    with pytest.raises(OSError, match="No space left") as raised:
        filler.write_bytes(bytes(num_filled * 1000))
        prepare_clips(raw, small_disk / "set", stages=recipe.stages())
    assert raised.value.errno == errno.ENOSPC
    filler.unlink()
    prepare_clips(raw, small_disk / "set", stages=recipe.stages())
    assert len(read_manifest(small_disk / "set")) == 3
    assert not [*small_disk.rglob("*.partial*")]


def test_tensors_that_do_not_fit_are_told_like_any_file(small_disk) -> None:
    with pytest.raises(OSError, match="No space left") as raised:
        save_tensors({"a": torch.zeros(10**6)}, small_disk / "a.safetensors", {})
    assert (raised.value.errno, raised.value.filename) == (
        errno.ENOSPC,
        str(small_disk / "a.safetensors"),
    )
    assert not [*small_disk.iterdir()]


def test_a_full_disk_ends_the_run_and_what_was_done_is_kept(raw, recipe, tmp_path) -> None:
    """A limit on the size of files stands for the disk; nothing partial stays."""
    prepare_clips(raw, tmp_path / "set", stages=recipe.stages())
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "set" / "clips").iterdir()}
    shutil.rmtree(tmp_path / "set")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (min(sizes.values()) // 2, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            prepare_clips(raw, tmp_path / "set", stages=recipe.stages())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not [path for path in (tmp_path / "set").rglob("*.mp4") if "partial" not in path.name]
    prepare_clips(raw, tmp_path / "set", stages=recipe.stages())
    found = {path.name: path.stat().st_size for path in (tmp_path / "set" / "clips").iterdir()}
    assert found == sizes
