"""A data set in an object store returns the same items as on disk."""

import errno
import shutil
from pathlib import Path

import fsspec
import pytest
import torch
from safetensors.torch import save_file
from torch.utils.data import DataLoader

from latentsync.data import ClipDataset, Items, StoreCache, read_manifest
from latentsync.data.datamodule import ClipDataModule, clean_workers
from latentsync.data.remote import RemoteSet, StoreUnreachable

MIB = 1 << 20


@pytest.fixture
def stored(data_dir: Path, tmp_path: Path) -> Path:
    """A copy of the set with latents of one VAE."""
    folder = tmp_path / "bucket" / "set"
    shutil.copytree(data_dir, folder)
    for index, clip in enumerate(read_manifest(folder)):
        generator = torch.Generator().manual_seed(index)
        names = ("latents", "masked_latents")
        tensors = {
            name: torch.randn(clip.num_frames, 4, 8, 8, generator=generator) for name in names
        }
        path = folder / "latents" / "vae-1" / f"{clip.name}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, path, metadata={"mask": "mask", "vae": "vae"})
    return folder


@pytest.fixture
def in_memory(stored: Path) -> str:
    """The set in fsspec's in-memory store."""
    url = "memory://bucket/set"
    store = fsspec.filesystem("memory")
    store.put(f"{stored}/", url, recursive=True)
    yield url
    store.rm("memory://bucket", recursive=True)


def check_equal(first: ClipDataset, second: ClipDataset) -> None:
    for one, other in zip((first[i] for i in range(6)), (second[i] for i in range(6)), strict=True):
        assert one.keys() == other.keys()
        for name, value in one.items():
            assert torch.equal(value, other[name]), name


@pytest.mark.parametrize("with_latents", [False, True, "vae-1"])
def test_items_are_those_of_the_disk(
    stored: Path, in_memory: str, tmp_path: Path, with_latents: bool | str
) -> None:
    fetched = read_manifest(f"{in_memory}/manifest.jsonl", cache_dir=tmp_path / "cache")
    options = {"num_frames": 4, "samples_per_clip": 2, "with_latents": with_latents}
    check_equal(
        ClipDataset(read_manifest(stored), Items(**options)), ClipDataset(fetched, Items(**options))
    )


def test_only_what_is_read_is_fetched(in_memory: str, tmp_path: Path) -> None:
    clips = read_manifest(in_memory, cache_dir=tmp_path / "cache")
    dataset = ClipDataset(
        clips, Items(num_frames=4, with_pixels=False, with_latents=True, with_mel=False)
    )
    dataset[1]
    there = {path.suffix for path in (tmp_path / "cache").rglob("*") if path.is_file()}
    assert there - {".parquet"} == {".safetensors"}  # the manifest, and what was asked for
    assert not clips[1].path.exists()
    assert clips[1].features_path.exists()
    assert not clips[2].features_path.exists()


def test_workers_share_what_was_fetched(stored: Path, tmp_path: Path) -> None:
    fetched = read_manifest(f"file://{stored}", cache_dir=tmp_path / "cache")
    options = {"num_frames": 4, "samples_per_clip": 4, "with_mel": False}
    here, there = (
        ClipDataset(read_manifest(stored), Items(**options)),
        ClipDataset(fetched, Items(**options)),
    )
    loader = DataLoader(there, batch_size=3, num_workers=2, multiprocessing_context=clean_workers())
    for index, batch in enumerate(loader):
        expected = torch.stack([here[3 * index + item]["pixels"] for item in range(3)])
        assert torch.equal(batch["pixels"], expected)
    assert not list((tmp_path / "cache").rglob("*.partial*"))


def test_the_cache_stays_within_its_limit(tmp_path: Path) -> None:
    source = tmp_path / "bucket"
    source.mkdir()
    for index in range(12):
        (source / f"{index}.bin").write_bytes(bytes(MIB))
    store = RemoteSet(f"file://{source}", cache_dir=tmp_path / "cache", max_bytes=4 * MIB)
    for turn in range(2):
        for index in range(12):
            store.bring(store.folder / f"{index}.bin")
            store.bring(store.folder / "0.bin")  # in use: must not be deleted
            held = sum(path.stat().st_size for path in store.folder.iterdir())
            assert held <= 4 * MIB, turn
    assert (store.folder / "0.bin").exists()


def test_an_object_that_is_gone_is_one_bad_clip(in_memory: str, tmp_path: Path, caplog) -> None:
    clips = read_manifest(in_memory, cache_dir=tmp_path / "cache")
    fsspec.filesystem("memory").rm(f"{in_memory}/clips/{clips[0].path.name}")
    dataset = ClipDataset(clips, Items(num_frames=4))
    item = dataset[0]
    assert (item["skipped"].item(), item["clip_index"].item()) == (1, 1)
    assert clips[0].path.name in caplog.text


def test_a_store_that_does_not_answer_stops_the_run(
    in_memory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = ClipDataset(read_manifest(in_memory, cache_dir=tmp_path), Items(num_frames=4))

    def times_out(*_: object, **__: object) -> None:
        raise TimeoutError("no answer in 60 s")

    monkeypatch.setattr(type(fsspec.filesystem("memory")), "get_file", times_out)
    with pytest.raises(StoreUnreachable, match=r"in 3 tries: no answer.*ckpt_path=last"):
        dataset[0]


def test_a_full_cache_disk_stops_the_run_and_names_the_folder(
    in_memory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the fault of the disk, not of a clip; nothing is asked again."""
    asked = []

    def full(self, address: str, *more: object, **others: object) -> None:
        asked.append(address)
        raise OSError(errno.ENOSPC, "No space left on device")

    clips = read_manifest(in_memory, cache_dir=tmp_path / "cache")
    dataset = ClipDataset(clips, Items(num_frames=4))
    monkeypatch.setattr(type(fsspec.filesystem("memory")), "get_file", full)
    with pytest.raises(StoreUnreachable, match=r"cache.* cannot take .*No space left.*make room"):
        dataset[0]
    assert len(asked) == 1


def test_addresses_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"memory://nothing has no manifest\.jsonl"):
        read_manifest("memory://nothing", cache_dir=tmp_path)
    with pytest.raises(ValueError, match="s4://bucket/set cannot be opened: Protocol not known"):
        read_manifest("s4://bucket/set", cache_dir=tmp_path)
    with pytest.raises(ValueError, match="holds latents of 0 VAEs"):
        store = fsspec.filesystem("memory")
        row = '{"clip": "a.mp4", "features": "a", "num_frames": 9, "source": "a", '
        row += '"start_frame": 0, "resolution": 64, "fps": 25}'
        store.pipe_file("memory://bare/manifest.jsonl", row.encode())
        ClipDataset(read_manifest("memory://bare", cache_dir=tmp_path), Items(with_latents=True))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_the_datamodule_takes_an_address(stored: Path, tmp_path: Path, num_workers: int) -> None:
    arguments = {"num_frames": 4, "samples_per_clip": 2}
    batches = []
    for manifest in (stored, f"file://{stored}"):
        module = ClipDataModule(
            manifest, str(manifest), train=arguments, val=arguments, batch_size=2,
            cache=StoreCache(tmp_path / "cache"), num_workers=num_workers,
        )  # fmt: skip
        module.setup("fit")
        batches.append(next(iter(module.train_dataloader())))
    assert torch.equal(batches[0]["pixels"], batches[1]["pixels"])
    assert torch.equal(batches[0]["start"], batches[1]["start"])


def test_a_table_in_a_store_is_read_unless_the_lines_have_another_size(
    stored: Path, in_memory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pyarrow")
    store = fsspec.filesystem("memory")
    lines = f"{in_memory}/manifest.jsonl"
    assert (stored / "manifest.parquet").is_file()
    clips = read_manifest(in_memory, cache_dir=tmp_path / "cache")
    assert clips == read_manifest(lines, cache_dir=tmp_path / "cache")
    content = store.cat_file(lines)
    store.rm(lines)
    assert read_manifest(in_memory, cache_dir=tmp_path / "cache") == clips
    store.pipe_file(lines, content + content.splitlines(keepends=True)[0])
    assert len(read_manifest(in_memory, cache_dir=tmp_path / "cache")) == len(clips) + 1
