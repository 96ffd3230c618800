"""A clip damaged after preparation loses only itself, not the run."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from latentsync.data import ClipDataset, Items, read_manifest


@pytest.fixture
def damaged(data_dir: Path, tmp_path: Path) -> Path:
    """A copy of the data set whose second clip is truncated."""
    folder = shutil.copytree(data_dir, tmp_path / "set")
    path = read_manifest(folder)[1].path
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return folder


def test_it_is_skipped_for_the_next_with_a_reason_and_counted(damaged: Path, caplog):
    dataset = ClipDataset(read_manifest(damaged), Items(num_frames=4, samples_per_clip=3))
    batch = dataset.collate([dataset[index] for index in range(len(dataset))])
    assert batch["clip_index"].tolist() == [0, 2, 2] * 3
    assert batch["skipped"].tolist() == [0, 1, 0] * 3
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 1
    assert str(dataset.clips[1].path) in told[0]


def test_what_takes_its_place_depends_on_the_index_only(damaged: Path):
    first, second = (
        ClipDataset(read_manifest(damaged), Items(num_frames=4, samples_per_clip=3))
        for _ in range(2)
    )
    # The second encounters the damage only now, the first already in an earlier item.
    first[1]
    assert first[4]["start"] == second[4]["start"]
    assert first[4]["skipped"] == second[4]["skipped"] == 1


def test_a_set_without_any_readable_clip_is_an_error(damaged: Path):
    dataset = ClipDataset(read_manifest(damaged), Items(num_frames=4))
    for clip in dataset.clips:
        clip.features_path.write_bytes(b"no safetensors")
    with pytest.raises(ValueError, match=r"none of the 3 clips can be read"):
        dataset[0]


def test_windows_of_a_clip_count_it_once(damaged: Path):
    dataset = ClipDataset(
        read_manifest(damaged), Items(num_frames=4, windows_per_clip=3, with_reference=False)
    )
    assert dataset.collate([dataset[1]])["skipped"].tolist() == [1, 0, 0]


def test_missing_files_are_counted_when_the_manifest_is_read(data_dir: Path, tmp_path: Path):
    folder = shutil.copytree(data_dir, tmp_path / "set")
    clips = read_manifest(folder)
    clips[1].path.unlink()
    clips[2].features_path.unlink()
    with pytest.raises(FileNotFoundError, match=rf"{clips[1].path.name}, .* \(nor do 1 others\)"):
        read_manifest(folder)


def test_frames_that_are_not_there_cost_their_clip(data_dir: Path, tmp_path: Path, caplog):
    """A valid file, but shorter than the manifest says."""
    folder = shutil.copytree(data_dir, tmp_path / "set")
    clips = read_manifest(folder)
    longer = [replace(clip, num_frames=10**6) if index == 1 else clip
              for index, clip in enumerate(clips)]  # fmt: skip
    dataset = ClipDataset(longer, Items(num_frames=4, with_audio=False, with_mel=False))
    assert dataset[1]["clip_index"] == 2
    assert str(clips[1].path) in caplog.text


def test_an_error_that_is_no_file_s_stops_the_run(data_dir: Path, monkeypatch):
    """A bug of ours must not be reported as bad clips."""

    def wrong(*args, **kwargs):
        raise ValueError("a bug")

    monkeypatch.setattr("latentsync.data.dataset.mel_window", wrong)
    dataset = ClipDataset(read_manifest(data_dir), Items(num_frames=4))
    with pytest.raises(ValueError, match="a bug"):
        dataset[0]


def test_pictures_that_cannot_be_decoded_cost_their_clip(data_dir: Path, tmp_path: Path, caplog):
    """A valid container whose picture data is zeros."""
    folder = shutil.copytree(data_dir, tmp_path / "set")
    path = read_manifest(folder)[1].path
    whole = path.read_bytes()
    begin = whole.index(b"mdat") + 4
    path.write_bytes(whole[:begin] + bytes(len(whole) - begin))
    dataset = ClipDataset(read_manifest(folder), Items(num_frames=4))
    assert dataset[1]["clip_index"] == 2
    assert str(path) in caplog.text
