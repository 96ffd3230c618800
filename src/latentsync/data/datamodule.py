"""Loaders of training and validation clips; all randomness derives from one seed."""

from collections.abc import Iterator, Sequence
from functools import partial
from multiprocessing import get_context
from multiprocessing.context import BaseContext
from pathlib import Path

import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from latentsync.data.clips import TRAIN, VAL, AudioStates
from latentsync.data.dataset import ClipDataset, Item
from latentsync.data.items import Items
from latentsync.data.manifest import read_manifest
from latentsync.data.mixing import joined, mixed_order, of_split
from latentsync.data.order import ShuffledSampler
from latentsync.data.remote import StoreCache


class ResumableLoader(DataLoader):
    """Batches of a `ShuffledSampler`; stores its position in the epoch and resumes from it.

    Lightning saves the `state_dict` of loaders in every checkpoint. The position counts batches
    that were handed out, not those prefetched by workers.
    """

    _position: tuple[int, int] = (0, 0)  # epoch, batches handed out
    _resumed: tuple[int, int] | None = None

    # A generator instead of torch's iterator class: only its batches are used.
    def __iter__(self) -> Iterator:  # type: ignore[override]
        # Runs at the first batch: only then has Lightning set the sampler's epoch.
        sampler = self.sampler
        assert isinstance(sampler, ShuffledSampler)
        assert self.batch_size is not None
        epoch, given = sampler.epoch, 0
        if self._resumed is not None and self._resumed[0] == epoch:
            given = self._resumed[1]
        self._resumed = None
        sampler.start = given * self.batch_size
        for batch in super().__iter__():
            given += 1
            self._position = (epoch, given)
            yield batch

    def state_dict(self) -> dict[str, int]:
        epoch, given = self._position
        if given == len(self):
            epoch, given = epoch + 1, 0
        return {"epoch": epoch, "batches": given, **self._shape()}

    def load_state_dict(self, state: dict[str, int]) -> None:
        then = {name: state[name] for name in self._shape()}
        if then != self._shape():
            raise ValueError(
                f"the checkpoint was made with {then}, this run has {self._shape()}: a run goes on "
                "with the data, batch_size and number of processes it began with; to start anew "
                "from trained weights leave ckpt_path out"
            )
        self._resumed = self._position = (state["epoch"], state["batches"])
        assert isinstance(self.sampler, ShuffledSampler)
        self.sampler.set_epoch(state["epoch"])

    def _shape(self) -> dict[str, int]:
        """What must be unchanged for a position to be valid."""
        sampler = self.sampler
        assert isinstance(sampler, ShuffledSampler)
        assert self.batch_size is not None
        return {
            "num_items": sampler.length,
            "global_batch": self.batch_size * sampler.num_ranks,
            "data_seed": sampler.seed,
        }


class ClipDataModule(LightningDataModule):
    """Loaders over two manifests; `train` and `val` are fields of their `Items`, `both` the
    defaults of both.

    `train_manifest` may list several sets, and `weights` their shares of the training items
    (`mixed_order`); without weights every clip is shown equally often.

    Loaders return frames as uint8 and no mask; Lightning calls `on_after_batch_transfer`, which
    makes a `Batch` of them on the device. Users of a loader outside Lightning must call `unpack`.

    Of a set whose manifest has a column `split`, only clips of `train` or of `val` are taken: both
    manifests may be the same.

    With the URL of an object store (s3://bucket/folder) as a manifest, clips are fetched when they
    are read, into `cache`, whose limit applies to training and validation separately. With `shards`
    clips are read from the sets' archives: the same items in the same order.
    """

    def __init__(  # noqa: PLR0913 - what the lines of conf/data/clips.yaml say
        self,
        train_manifest: Path | str | Sequence[Path | str],
        val_manifest: Path | str,
        *,
        weights: Sequence[float] | None = None,
        both: dict | None = None,
        train: dict | None = None,
        val: dict | None = None,
        batch_size: int = 8,
        num_workers: int = 0,
        cache: StoreCache | None = None,
        shards: bool = False,
    ) -> None:
        super().__init__()
        self.train_manifest = train_manifest
        self.val_manifest = val_manifest
        self.weights = weights
        self.train_items = {**(both or {}), **(train or {})}
        self.val_items = {**(both or {}), **(val or {})}
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.cache = cache or StoreCache()
        self.shards = shards
        self.states: AudioStates | None = None
        """The encoder whose audio states items hold; None: that of the prepared sets."""
        self.train_set: ClipDataset | None = None
        self.val_set: ClipDataset | None = None

    def setup(self, stage: str) -> None:
        """Read the manifests once; Lightning calls this on every rank."""
        if stage == "fit" and self.train_set is None:
            given = self.train_manifest
            manifests = [given] if isinstance(given, Path | str) else [*given]
            self.train_set = self._dataset(
                manifests, self.train_items, split=TRAIN, weights=self.weights
            )
        if self.val_set is None:
            self.val_set = self._dataset([self.val_manifest], self.val_items, split=VAL)

    def train_dataloader(self) -> DataLoader:
        """The training clips; with several processes each gets its share of every batch."""
        assert self.train_set is not None
        rank, num_ranks = self._rank()
        num_items = len(self.train_set)
        if num_items < self.batch_size * num_ranks:
            raise ValueError(
                f"batch_size={self.batch_size} is more than the {num_items} items of an "
                "epoch: make samples_per_clip larger or the batch smaller"
                if num_ranks == 1
                else f"{num_ranks} processes of batch_size={self.batch_size} need more than the "
                f"{num_items} items of an epoch: make samples_per_clip larger"
            )
        seed = self.train_set.items.seed
        sampler = ShuffledSampler(num_items, seed=seed, rank=rank, num_ranks=num_ranks)
        return ResumableLoader(
            self.train_set,
            sampler=sampler,
            drop_last=True,
            **self._options(self.train_set),
        )

    def val_dataloader(self) -> DataLoader:
        """The validation clips in order; every process sees all of them, so that none waits."""
        assert self.val_set is not None
        return DataLoader(self.val_set, drop_last=False, **self._options(self.val_set))

    def on_after_batch_transfer(self, batch: Item, dataloader_idx: int) -> Item:
        """Lightning's hook: unpack on the device, after Lightning has cast floats to the weights'
        precision; the frames, until now uint8, are cast here."""
        shown = self.unpack(batch)
        return shown if self.trainer is None else self.trainer.precision_plugin.convert_input(shown)

    def unpack(self, batch: Item) -> Item:
        """What a loader returned => a `Batch`, on the same device."""
        trained = self.trainer is None or self.trainer.training
        dataset = (self.train_set if trained else self.val_set) or self.val_set
        assert dataset is not None
        return dataset.unpack(batch)

    def _rank(self) -> tuple[int, int]:
        if self.trainer is None:
            return 0, 1
        return self.trainer.global_rank, self.trainer.world_size

    def _dataset(
        self,
        manifests: Sequence[Path | str],
        values: dict,
        *,
        split: str,
        weights: Sequence[float] | None = None,
    ) -> ClipDataset:
        if not manifests:
            raise ValueError("data.train_manifest=[] lists no data set")
        folder = None if self.cache.folder is None else Path(self.cache.folder)
        read = partial(
            read_manifest,
            cache_dir=folder,
            cache_gigabytes=self.cache.gigabytes,
            with_measures=False,
            shards=self.shards,
        )
        sets = [of_split(read(each), split, each) for each in manifests]
        clips = joined([(str(name), each) for name, each in zip(manifests, sets, strict=True)])
        order = mixed_order([len(each) for each in sets], weights)
        given = {"packed": True, **values}
        if self.states is not None and given.get("with_audio", True):
            given["with_audio"] = self.states
        return ClipDataset(clips, Items(**given), order=order)

    def _options(self, dataset: ClipDataset) -> dict:
        return {
            "batch_size": self.batch_size,
            "num_workers": self.num_workers,
            "collate_fn": dataset.collate,
            "persistent_workers": self.num_workers > 0,
            "multiprocessing_context": clean_workers() if self.num_workers > 0 else None,
            "pin_memory": torch.cuda.is_available(),
        }


def clean_workers() -> BaseContext:
    """Workers forked from a process without threads.

    Decoders, OpenCV, a store and torch hold threads and locks. A fork of this process would copy
    the locks without the threads, and a worker would occasionally wait forever. So workers are
    forked from a process that has only imported the package.
    """
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context
