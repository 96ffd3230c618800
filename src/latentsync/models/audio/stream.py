"""Audio states of a sound of any length, computed lazily one window at a time."""

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

FADE_STATES = 100
NUM_KEPT_WINDOWS = 3


class StateStream:
    """Random access to a sound's states, computed in windows on demand.

    `spans` are the (first, end) states of the windows, ascending, starting at 0, without gaps;
    overlapping windows are cross-faded. `make` computes the states of the window with an index. The
    last three windows are cached, so that reading roughly in order computes each once; nothing else
    grows with the length of the sound.
    """

    def __init__(
        self,
        spans: Sequence[tuple[int, int]],
        make: Callable[[int], Float[Tensor, "n l d"]],
    ) -> None:
        assert spans[0][0] == 0
        assert all(before[1] >= after[0] for before, after in pairwise(spans))
        self.spans = spans
        self.make = make
        self._kept: OrderedDict[int, Float[Tensor, "n l d"]] = OrderedDict()

    def __len__(self) -> int:
        return self.spans[-1][1]

    def read(self, first: int, end: int) -> Float[Tensor, "n l d"]:
        """The states `first` to `end` (exclusive)."""
        assert 0 <= first <= end <= len(self), f"states {first} to {end} of {len(self)}"
        starts = [start for start, _ in self.spans]
        parts = [self._window(0)[:0]] if first == end else []
        while first < end:
            index = bisect_right(starts, first) - 1
            stop = min(end, starts[index + 1]) if index + 1 < len(starts) else end
            parts.append(self._blend(index, first, stop))
            first = stop
        return torch.cat(parts)

    def _blend(self, index: int, first: int, end: int) -> Float[Tensor, "n l d"]:
        """A range of one window, cross-faded with earlier windows where they overlap."""
        start = self.spans[index][0]
        states = self._window(index)[first - start : end - start]
        before_end = self.spans[index - 1][1] if index > 0 else 0
        shared = min(end, before_end) - first
        if shared <= 0:
            return states
        before = self._blend(index - 1, first, first + shared)
        weights = fade(before_end - start)[first - start :][:shared].to(states)[:, None, None]
        return torch.cat([before + weights * (states[:shared] - before), states[shared:]])

    def _window(self, index: int) -> Float[Tensor, "n l d"]:
        if index not in self._kept:
            while len(self._kept) >= NUM_KEPT_WINDOWS:
                self._kept.popitem(last=False)
            self._kept[index] = self.make(index)
        self._kept.move_to_end(index)
        return self._kept[index]


def fade(length: int) -> Float[Tensor, " n"]:
    """Weights rising from 0 to 1 over two seconds in the middle of an overlap, where both windows
    have context."""
    places = torch.arange(length) + 0.5 - length / 2
    return (places / min(FADE_STATES, max(length, 1)) + 0.5).clamp(0, 1)
