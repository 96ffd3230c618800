"""How far a run is: a bar on the terminal, a function that is told, or nothing."""

from collections.abc import Callable
from types import TracebackType
from typing import Self

from tqdm import tqdm

# stage, done, of how many. It is called after each frame; what it raises ends the run.
Told = Callable[[str, int, int], None]
Progress = bool | Told


class Bar:
    """Counts the frames of a stage and tells it as `progress` says: True is a terminal's bar."""

    def __init__(self, stage: str, total: int, progress: Progress, *, done: int = 0) -> None:
        self.stage, self.total, self.done = stage, total, done
        self.told = None if isinstance(progress, bool) else progress
        self.bar = tqdm(
            total=total, initial=done, unit="frame", desc=stage, disable=progress is not True
        )

    def update(self) -> None:
        """One frame more."""
        self.done += 1
        self.bar.update()
        if self.told is not None:
            self.told(self.stage, self.done, self.total)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.bar.close()
