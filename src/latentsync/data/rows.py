"""Rows of JSON as columns, and what is made of a row when it is asked for; for millions of them."""

from abc import ABC, abstractmethod
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import repeat
from operator import eq
from typing import Any, SupportsIndex, TypeVar, overload

import numpy as np
from jaxtyping import Int

T = TypeVar("T")
U = TypeVar("U")

Value = float | str | None
Row = dict[str, Value]
NONE = float("nan")  # in a column of numbers; JSON has no such number
MAX_TEXTS = 10_000


class AnyRows(ABC):
    """Rows of which a column, some rows or one can be had."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> Row: ...

    @abstractmethod
    def select(self, indices: Sequence[int] | np.ndarray) -> "AnyRows":
        """Some of the rows."""

    @abstractmethod
    def values(self, name: str) -> Iterator[Value]:
        """A column; None for all rows if there is none."""

    def different(self, name: str) -> set[Value]:
        """The values of a column."""
        return set(self.values(name))

    def where(self, name: str, value: Value) -> Int[np.ndarray, " n"]:
        """Numbers of the rows with a value."""
        same = (each == value for each in self.values(name))
        return np.flatnonzero(np.fromiter(same, dtype=bool, count=len(self)))


class Rows(AnyRows):
    """Rows as one column per name: 8 bytes for a number, and a text that comes again once.

    What only some rows have is None in the others.
    """

    def __init__(self) -> None:
        self.columns: dict[str, Any] = {}  # arrays of numbers, lists of texts
        self.length = 0
        self._texts: dict[str, str] = {}

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Row:
        return {name: _value(column[index]) for name, column in self.columns.items()}

    def append(self, row: Mapping[str, Value]) -> None:
        columns = self.columns
        for name, value in row.items():
            column: Any = columns.get(name)
            if column is None:
                column = columns[name] = array("d", [NONE]) * self.length
            if type(value) is str:
                if type(column) is array:
                    column = columns[name] = [_value(each) for each in column]
                column.append(self._once(value))
            else:
                column.append(NONE if value is None else value)
        self.length += 1
        if len(row) < len(columns):
            for column in columns.values():
                if len(column) < self.length:
                    column.append(NONE)

    def _once(self, text: str) -> str:
        """The same text as before, if it came among the last ones."""
        if len(self._texts) > MAX_TEXTS:
            self._texts.clear()
        return self._texts.setdefault(text, text)

    def select(self, indices: Sequence[int] | np.ndarray) -> "Rows":
        made = Rows()
        made.length = len(indices)
        rows = np.asarray(indices, dtype=np.int64)
        for name, column in self.columns.items():
            if type(column) is array:  # without an object for each number
                made.columns[name] = array("d", np.frombuffer(column)[rows].tobytes())
            else:
                made.columns[name] = [column[index] for index in rows]
        return made

    def values(self, name: str) -> Iterator[Value]:
        return map(
            _value, self.columns[name] if name in self.columns else repeat(None, self.length)
        )


class Lazy(Sequence[T]):
    """A sequence that equals any other one of the same items."""

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(map(eq, self, other))

    __hash__ = None  # type: ignore[assignment]


class Made(Lazy[T]):
    """What `make` makes of each row, anew whenever it is asked for."""

    def __init__(self, rows: AnyRows, make: Callable[[Row], T]) -> None:
        self.rows = rows
        self.make = make

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: SupportsIndex) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> "Made[T]": ...
    def __getitem__(self, index: SupportsIndex | slice) -> "T | Made[T]":
        if isinstance(index, slice):
            return self.chosen(range(len(self))[index])
        return self.make(self.rows[range(len(self))[index]])

    def chosen(self, indices: Sequence[int] | np.ndarray) -> "Made[T]":
        """Some of them."""
        return Made(self.rows.select(indices), self.make)

    def changed(self, change: Callable[[T], U]) -> "Made[U]":
        """With a change, a picklable callable, of everything that is made."""
        return Made(self.rows, partial(_changed, self.make, change))


def _value(value: Value) -> Value:
    return None if value != value else value


def _changed(make: Callable[[Row], T], change: Callable[[T], U], row: Row) -> U:
    return change(make(row))
