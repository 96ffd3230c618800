"""In which order the items of a data set are shown."""

from collections.abc import Iterator

import torch
from torch.utils.data import Sampler

BLOCK = 65_536  # indices that are Python's numbers at a time


class ShuffledSampler(Sampler[int]):
    """Every index once per epoch, in an order that depends only on the seed and the epoch.

    Indices are interleaved over process ranks, so that `num_ranks` batches of b form one batch of
    `num_ranks` * b.
    """

    def __init__(self, length: int, *, seed: int, rank: int = 0, num_ranks: int = 1) -> None:
        self.length = length
        self.seed = seed
        self.rank, self.num_ranks = rank, num_ranks
        self.epoch = 0
        self.start = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning at the start of every epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length // self.num_ranks

    def __iter__(self) -> Iterator[int]:
        """This rank's indices, beginning with number `start`."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order = torch.randperm(self.length, generator=generator)
        own = order[self.rank :: self.num_ranks][: len(self)]
        for some in own[self.start :].split(BLOCK):
            yield from some.tolist()
