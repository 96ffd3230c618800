"""Whether a head is turned too far, frame by frame, without flicker."""

from collections import deque
from collections.abc import Iterable
from math import isnan
from statistics import median

import numpy as np
from jaxtyping import Bool, Float

STEADY_FRAMES = 9  # median window for sizes and yaws, so that thresholds are crossed only once
YAW_MARGIN = 8.0  # degrees
SHORT_RETURN = 5  # frames


class TurnGate:
    """Call it with the yaws of a track, one after the other, then `finish` it.

    Both return the answers known by then, one per frame in order: whether the head is turned too
    far. A head is refused where its steadied yaw passes `max_yaw`, and until it is `YAW_MARGIN`
    degrees below (a quarter of `max_yaw` at most, so that small limits can be come back from): a
    wobble about the limit switches once, and 52 of 60 degrees is still far from frontal heads.
    Returns of fewer than `SHORT_RETURN` frames stay refused. Unknown yaws (NaN) are accepted and
    change nothing.
    """

    def __init__(self, max_yaw: float) -> None:
        self.max_yaw = max_yaw
        self.back_below = max_yaw - min(YAW_MARGIN, max_yaw / 4)
        self.window: deque[float] = deque(maxlen=STEADY_FRAMES)
        self.num_waiting = 0  # of the window, not classified yet
        self.is_refused = self.was_refused = False
        self.answers: deque[bool | None] = deque()  # None: not known yet
        self.first = 0  # number of the first answer
        self.returned: list[int] = []  # frames since the head came back, while they are too few
        self.is_back = False  # for long enough

    def __call__(self, yaw: float) -> list[bool]:
        self.window.append(yaw)
        self.num_waiting += 1
        if self.num_waiting > STEADY_FRAMES // 2:
            self._classify()
        return self._known()

    def finish(self) -> list[bool]:
        while self.num_waiting:
            self._classify()
        self._settle(refused=self.was_refused)
        return self._known()

    def _classify(self) -> None:
        """The oldest waiting frame, whose neighbours are known."""
        place = len(self.window) - self.num_waiting
        self.num_waiting -= 1
        around = list(self.window)[max(place - STEADY_FRAMES // 2, 0) :]
        if isnan(self.window[place]):
            self.answers.append(False)
            return
        turn = abs(np.float32(median(each for each in around if not isnan(each))))
        self.is_refused = bool(turn > (self.back_below if self.is_refused else self.max_yaw))
        if self.is_refused:
            self.was_refused, self.is_back = True, False
            self._settle(refused=True)
            self.answers.append(True)
        elif self.is_back:
            self.answers.append(False)
        else:
            self.returned.append(self.first + len(self.answers))
            self.answers.append(None)
            if len(self.returned) == SHORT_RETURN:
                self.is_back = True
                self._settle(refused=False)

    def _settle(self, *, refused: bool) -> None:
        for number in self.returned:
            self.answers[number - self.first] = refused
        self.returned = []

    def _known(self) -> list[bool]:
        known: list[bool] = []
        while self.answers and (answer := self.answers[0]) is not None:
            known.append(answer)
            self.answers.popleft()
        self.first += len(known)
        return known


def turned_away(yaws: Float[np.ndarray, " n"], max_yaw: float) -> Bool[np.ndarray, " n"]:
    """The answers of a `TurnGate` for every frame of a track."""
    gate = TurnGate(max_yaw)
    return np.array([*answers(gate, yaws.tolist())], dtype=bool)


def answers(gate: TurnGate, yaws: Iterable[float]) -> Iterable[bool]:
    for yaw in yaws:
        yield from gate(yaw)
    yield from gate.finish()
