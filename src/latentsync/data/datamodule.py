"""Train and validation clips as loaders; everything is drawn from one seed."""

from collections.abc import Iterator
from pathlib import Path

import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Sampler

from latentsync.data.clips import read_manifest
from latentsync.data.dataset import ClipDataset


class ShuffledSampler(Sampler[int]):
    """Every index once an epoch, in an order that depends on the seed and the epoch only."""

    def __init__(self, length: int, *, seed: int) -> None:
        self.length = length
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning at the start of every epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        yield from torch.randperm(self.length, generator=generator).tolist()


class ClipDataModule(LightningDataModule):
    """Loaders over two manifests; `train` and `val` are arguments of their `ClipDataset`."""

    def __init__(
        self,
        train_manifest: Path | str,
        val_manifest: Path | str,
        *,
        train: dict | None = None,
        val: dict | None = None,
        batch_size: int = 8,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.train_manifest = Path(train_manifest)
        self.val_manifest = Path(val_manifest)
        self.train_arguments = train or {}
        self.val_arguments = val or {}
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.train_set: ClipDataset | None = None
        self.val_set: ClipDataset | None = None

    def setup(self, stage: str) -> None:
        """Read the manifests once; Lightning calls this on every rank."""
        if stage == "fit" and self.train_set is None:
            self.train_set = self._dataset(self.train_manifest, self.train_arguments)
        if self.val_set is None:
            self.val_set = self._dataset(self.val_manifest, self.val_arguments)

    def train_dataloader(self) -> DataLoader:
        assert self.train_set is not None
        if len(self.train_set) < self.batch_size:
            raise ValueError(
                f"batch_size={self.batch_size} is more than the {len(self.train_set)} items of an "
                "epoch: make samples_per_clip larger or the batch smaller"
            )
        sampler = ShuffledSampler(len(self.train_set), seed=self.seed)
        return self._loader(self.train_set, sampler=sampler, drop_last=True)

    def val_dataloader(self) -> DataLoader:
        assert self.val_set is not None
        return self._loader(self.val_set, sampler=None, drop_last=False)

    def _dataset(self, manifest: Path, arguments: dict) -> ClipDataset:
        return ClipDataset(read_manifest(manifest), **{"seed": self.seed, **arguments})

    def _loader(
        self, dataset: ClipDataset, *, sampler: Sampler[int] | None, drop_last: bool
    ) -> DataLoader:
        return DataLoader(
            dataset,
            batch_size=self.batch_size,
            sampler=sampler,
            drop_last=drop_last,
            num_workers=self.num_workers,
            collate_fn=dataset.collate,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )
