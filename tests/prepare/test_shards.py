"""A set in archives gives the same items in the same order as its files, here and from a store."""

import json
import pickle
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.utils.data import DataLoader

from coded import LOUD, RESOLUTION, make_detector, write_coded_video
from latentsync.data import (
    AudioStates,
    ClipDataset,
    Items,
    StoreCache,
    attach_states,
    read_manifest,
)
from latentsync.data.datamodule import ClipDataModule, clean_workers
from latentsync.data.listed import packed
from latentsync.data.members import header_of, map_tensors
from latentsync.data.remote import RemoteSet
from latentsync.files import FilePart
from latentsync.media.clip_reader import PyAvReader
from latentsync.media.packets import PacketReader, packets_of
from latentsync.prepare import Recipe, prepare_clips, write_shards

ITEMS = {"num_frames": 4, "samples_per_clip": 3}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set of three clips with latents of a VAE and states of another encoder, in archives of at
    least one clip."""
    folder = tmp_path_factory.mktemp("made")
    for name, num_frames in (("a", 55), ("b", 60), ("c", 65)):
        write_coded_video(folder / "raw" / f"{name}.mp4", num_frames, loud=LOUD)
    recipe = Recipe(make_detector=make_detector, resolution=RESOLUTION)
    prepare_clips(folder / "raw", folder / "set", stages=recipe.stages())
    for clip in read_manifest(folder / "set"):
        generator = torch.Generator().manual_seed(clip.num_frames)
        stored = torch.randn(2, clip.num_frames, 4, 8, 8, generator=generator).half()
        vae = folder / "set" / "latents" / "vae-1.2"
        vae.mkdir(parents=True, exist_ok=True)
        save_file(
            {"latents": stored[0].clone(), "masked_latents": stored[1].clone()},
            vae / f"{clip.name}.safetensors", metadata={"mask": "mask", "vae": "vae-1.2"},
        )  # fmt: skip
        other = folder / "set" / "features" / "mel-2"
        other.mkdir(exist_ok=True)
        states = {"audio": torch.randn(130, 2, 80, generator=generator)}
        save_file(states, other / f"{clip.name}.safetensors")
    write_shards(folder / "set", megabytes=0.001)
    return folder / "set"


@pytest.fixture
def archived(made: Path, tmp_path: Path) -> Path:
    """Only the manifests and the archives."""
    folder = tmp_path / "archived"
    folder.mkdir()
    shutil.copytree(made / "shards", folder / "shards")
    for path in made.glob("manifest.*"):
        shutil.copy(path, folder)
    return folder


def check_equal(first: ClipDataset, second: ClipDataset) -> None:
    assert len(first) == len(second)
    for index in range(len(first)):
        one, other = first[index], second[index]
        assert one.keys() == other.keys()
        for name, value in one.items():
            assert torch.equal(value, other[name]), name


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"reader": "decord"},
        {"in_memory": True},
        {"with_latents": True, "with_pixels": False},
        {"with_latents": "vae-1.2"},
        {"with_audio": AudioStates("mel-2")},
    ],
)
def test_items_are_those_of_the_files(made, archived, more) -> None:
    if "reader" in more:
        pytest.importorskip("decord")
    items = Items(**ITEMS, **more)
    by_archives = ClipDataset(read_manifest(archived, shards=True), items)
    check_equal(ClipDataset(read_manifest(made), items), by_archives)


def test_archives_are_webdataset_samples_of_the_same_bytes(made) -> None:
    archives = sorted((made / "shards").glob("*.tar"))
    assert len(archives) == 3
    clips = read_manifest(made / "manifest.jsonl")
    for archive, clip in zip(archives, clips, strict=True):
        with tarfile.open(archive) as tar:
            found = {each.name: tar.extractfile(each).read() for each in tar}
        name = clip.name
        row = json.loads(found.pop(f"{name}.json"))
        assert row == clip.as_row(made)
        assert found.pop(f"{name}.packets.safetensors") == packed(packets_of(clip.path))
        assert found == {
            f"{name}.mp4": clip.path.read_bytes(),
            f"{name}.features.safetensors": clip.features_path.read_bytes(),
            f"{name}.features.mel-2.safetensors": (
                made / "features" / "mel-2" / f"{name}.safetensors"
            ).read_bytes(),
            f"{name}.latents.vae-1.2.safetensors": (
                made / "latents" / "vae-1.2" / f"{name}.safetensors"
            ).read_bytes(),
        }


def test_only_archives_of_changed_clips_are_made_again(made, tmp_path) -> None:
    folder = Path(shutil.copytree(made, tmp_path / "set"))
    first = {path.name: path.read_bytes() for path in (folder / "shards").glob("*.tar")}
    times = {path: path.stat().st_mtime_ns for path in (folder / "shards").glob("*.tar")}
    write_shards(folder, megabytes=0.001)
    assert times == {path: path.stat().st_mtime_ns for path in times}
    path = read_manifest(folder)[1].features_path
    tensors = load_file(path)
    save_file(tensors | {"mel": tensors["mel"] + 1}, path)
    write_shards(folder, megabytes=0.001)
    changed = [path for path in times if path.stat().st_mtime_ns != times[path]]
    assert [path.name for path in changed] == ["shard-000001.tar"]
    item = ClipDataset(read_manifest(folder, shards=True), Items(num_frames=4))
    assert torch.equal(item._feature(item.clips[1], "mel"), load_file(path)["mel"])
    write_shards(folder, megabytes=100)
    assert [path.name for path in (folder / "shards").glob("*.tar")] == ["shard-000000.tar"]
    check_equal(
        ClipDataset(read_manifest(folder), Items(**ITEMS)),
        ClipDataset(read_manifest(folder, shards=True), Items(**ITEMS)),
    )
    assert first.keys() == {"shard-000000.tar", "shard-000001.tar", "shard-000002.tar"}


def reader_of(folder: Path) -> object:
    dataset = ClipDataset(read_manifest(folder, shards=True), Items(**ITEMS))
    dataset[0]
    (reader,) = dataset._frames._readers._files.values()
    return reader


def test_archives_of_an_earlier_version_are_read_and_made_again(
    made, tmp_path, monkeypatch
) -> None:
    folder = Path(shutil.copytree(made, tmp_path / "set"))
    assert isinstance(reader_of(folder), PacketReader)
    shutil.rmtree(folder / "shards")
    with monkeypatch.context() as patch:
        patch.setattr("latentsync.prepare.shards.packets_of", lambda path: None)
        write_shards(folder, megabytes=0.001)
    record = folder / "shards" / "record.jsonl"
    rows = [json.loads(line) for line in record.read_text().splitlines()]
    for row in rows:
        row.pop("packets", None)
    record.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert isinstance(reader_of(folder), PyAvReader)
    check_equal(
        ClipDataset(read_manifest(made), Items(**ITEMS)),
        ClipDataset(read_manifest(folder, shards=True), Items(**ITEMS)),
    )
    write_shards(folder, megabytes=0.001)
    assert isinstance(reader_of(folder), PacketReader)


def test_the_loader_resumes_in_archives_where_it_was_in_files(made, archived) -> None:
    def module(folder: Path, *, shards: bool) -> ClipDataModule:
        both = {**ITEMS, "seed": 3}
        made = ClipDataModule(folder, folder, both=both, batch_size=2, shards=shards)
        made.setup("fit")
        return made

    whole = [batch["start"].tolist() for batch in module(made, shards=False).train_dataloader()]
    begun = module(made, shards=False).train_dataloader()
    batches = iter(begun)
    next(batches)
    resumed = module(archived, shards=True).train_dataloader()
    resumed.load_state_dict(begun.state_dict())
    assert [batch["start"].tolist() for batch in resumed] == whole[1:]
    from_start = module(archived, shards=True).train_dataloader()
    assert [batch["start"].tolist() for batch in from_start] == whole


def test_workers_read_archives(made, archived) -> None:
    dataset = ClipDataset(read_manifest(archived, shards=True), Items(**ITEMS))
    assert len(pickle.dumps(dataset.clips[0].store)) < 1000
    loader = DataLoader(
        dataset, batch_size=3, num_workers=1, multiprocessing_context=clean_workers()
    )
    here = ClipDataset(read_manifest(made), Items(**ITEMS))
    for index, batch in enumerate(loader):
        same = here.collate([here[3 * index + each] for each in range(3)])
        assert all(torch.equal(value, batch[name]) for name, value in same.items())


def test_from_a_store_an_archive_is_one_request(made, archived, tmp_path, monkeypatch) -> None:
    fetched: list[str] = []
    fetch = RemoteSet._fetch

    def counted(self, address, partial):
        fetched.append(address.rpartition("/")[2])
        fetch(self, address, partial)

    monkeypatch.setattr(RemoteSet, "_fetch", counted)
    url = f"file://{archived}"
    remote = read_manifest(url, cache_dir=tmp_path / "cache", shards=True)
    check_equal(
        ClipDataset(read_manifest(made), Items(**ITEMS)), ClipDataset(remote, Items(**ITEMS))
    )
    assert sorted(fetched) == [
        "index.safetensors", "shard-000000.tar", "shard-000001.tar", "shard-000002.tar",
    ]  # fmt: skip
    module = ClipDataModule(
        url, url, both=ITEMS, batch_size=2, cache=StoreCache(tmp_path / "cache"), shards=True
    )
    module.setup("fit")
    assert len(next(iter(module.train_dataloader()))["start"]) == 2


def test_a_cut_off_archive_is_a_bad_clip(archived) -> None:
    path = archived / "shards" / "shard-000001.tar"
    with path.open("r+b") as file:
        file.truncate(600)
    dataset = ClipDataset(read_manifest(archived, shards=True), Items(num_frames=4))
    assert [int(dataset[index]["skipped"]) for index in range(3)] == [0, 1, 0]


def test_what_is_missing_is_told(made, archived, tmp_path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    shutil.copy(made / "manifest.jsonl", bare)
    with pytest.raises(FileNotFoundError, match=r"has no archives .*stage=shards"):
        read_manifest(bare, shards=True)
    rows = [json.loads(line) for line in (archived / "manifest.jsonl").read_text().splitlines()]
    more = rows[0] | {"clip": "clips/new.mp4", "features": "features/new.safetensors"}
    lines = "".join(json.dumps(row) + "\n" for row in [*rows, more])
    (archived / "manifest.jsonl").write_text(lines)
    with pytest.raises(FileNotFoundError, match=r"clips/new\.mp4 is in no archive"):
        read_manifest(archived, shards=True)
    clips = read_manifest(made, shards=True)
    with pytest.raises(FileNotFoundError, match="have no audio states of other"):
        attach_states(clips, AudioStates("other"))
    with pytest.raises(ValueError, match="shard_megabytes=0 must be positive"):
        write_shards(made, megabytes=0)


def test_tensors_inside_an_archive_are_those_of_the_file(tmp_path) -> None:
    kinds = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8]
    tensors = {str(kind): torch.arange(6).reshape(2, 3).to(kind) for kind in kinds}
    tensors |= {
        "empty": torch.zeros(0, 4),
        "scalar": torch.tensor(2.5),
        "flag": torch.tensor([True]),
    }
    save_file(tensors, tmp_path / "a.safetensors", metadata={"noted": "so"})
    content = (tmp_path / "a.safetensors").read_bytes()
    (tmp_path / "a.tar").write_bytes(bytes(512) + content + bytes(512))
    part = FilePart(tmp_path / "a.tar", 512, len(content))
    found = map_tensors(part)
    assert found.keys() == tensors.keys()
    for name, value in tensors.items():
        assert found[name].dtype == value.dtype
        assert torch.equal(found[name], value)
    assert header_of(part) == header_of(tmp_path / "a.safetensors")
    assert header_of(part)[0] == {"noted": "so"}
    found[str(torch.float32)] += 1  # writes to this process's copy only
    assert (tmp_path / "a.tar").read_bytes()[512:-512] == content
    for size in (4, 40, len(content) - 1):
        with pytest.raises((ValueError, OSError)):
            map_tensors(FilePart(tmp_path / "a.tar", 512, size))
    assert np.array_equal(found["scalar"].numpy(), np.float32(2.5))
