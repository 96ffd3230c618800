"""Frames of a prepared clip by their index, decoded by decord."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from decord import DECORDError, DECORDLimitReachedError, VideoReader
from jaxtyping import Int, UInt8

REFUSALS = (DECORDError, DECORDLimitReachedError, RuntimeError)
NO_FAULTS = 1e-6  # the share of frames that may be made up where none can be decoded


class DecordReader:
    """The frames that `PyAvReader` gives, converted by swscale: 1.1 levels darker in the mean.

    It opens the clip for every window, which costs half of what a reader costs that is kept open
    and sought in; and threads, of which a decord reader has some, do not survive a fork.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._length = len(self._open())

    def __len__(self) -> int:
        return self._length

    def frames(
        self, indices: Sequence[int] | Int[np.ndarray, " f"]
    ) -> UInt8[np.ndarray, "f h w 3"]:
        """The frames at `indices`, in any order; OSError where they cannot be decoded."""
        asked = np.asarray(indices, dtype=np.int64)
        beyond = asked[(asked < 0) | (asked >= len(self))]
        if len(beyond):
            raise IndexError(f"{self.path} has {len(self)} frames, frame {beyond[0]} is not there")
        wanted, places = np.unique(asked, return_inverse=True)
        try:
            decoded = self._open().get_batch(wanted).asnumpy()
        except REFUSALS as error:
            raise OSError(f"{self.path} cannot be decoded: {_brief(error)}") from error
        return decoded if np.array_equal(wanted, asked) else decoded[places]

    def _open(self) -> VideoReader:
        if not self.path.is_file():
            raise FileNotFoundError(f"{self.path} does not exist")
        try:
            return VideoReader(str(self.path), num_threads=1, fault_tol=NO_FAULTS)
        except (*REFUSALS, AssertionError) as error:
            raise OSError(f"{self.path} cannot be read: {_brief(error)}") from error


def _brief(error: BaseException) -> str:
    """Its first line, without the place in decord's own source before it."""
    return str(error).strip().split("\n", maxsplit=1)[0].rsplit("] ", maxsplit=1)[-1]
