"""Classes by the names that model folders know them by: ours, and those of other packages.

A folder names its parts and never a class to import, so what a folder says imports nothing but
what this package holds, what a program has registered, or what an installed package declares:

    [project.entry-points."latentsync.noise_processes"]
    mine = "my_package.process:MyProcess"
"""

from collections.abc import Iterable, Iterator
from importlib.metadata import EntryPoint, EntryPoints, entry_points
from typing import Generic, TypeVar

from latentsync.config_files import shown

Part = TypeVar("Part")


class Registry(Generic[Part]):
    """Classes of one kind of part, each with a `name` of its own; `what` is the kind in words,
    `group` that of entry points.

    Packages are imported when their part is asked for, not before.
    """

    def __init__(self, what: str, group: str, parts: Iterable[type[Part]]) -> None:
        self.what = what
        self.group = group
        self._parts: dict[str, type[Part]] = {}
        for part in parts:
            self.register(part)

    def register(self, part: type[Part]) -> type[Part]:
        """Let model folders hold parts of this class, under its `name`; also a decorator."""
        name = getattr(part, "name", None)
        if not isinstance(name, str) or not name:
            raise ValueError(
                f"{part.__name__} has no name: say name = '...' in the class, which model folders "
                f"will know this {self.what} by"
            )
        known = self._parts.setdefault(name, part)
        if known is not part:
            raise ValueError(f"this {self.what} exists already: {name!r} is {known.__name__}")
        return part

    def names(self) -> list[str]:
        """All names, of installed packages too, which are not imported for this."""
        return list(dict.fromkeys([*self._parts, *(entry.name for entry in self._entries())]))

    def __iter__(self) -> Iterator[type[Part]]:
        """All classes; imports the packages that bring some."""
        return iter([self.find(name) for name in self.names()])

    def find(self, name: object, *, where: str = "") -> type[Part]:
        """The class of a name; ValueError with the names there are, `where` leading, if none."""
        if isinstance(name, str) and name in self._parts:
            return self._parts[name]
        entries = [entry for entry in self._entries() if entry.name == name]
        if not entries:
            raise ValueError(
                f"{where}no {self.what} is called {shown(name)}; there are "
                f"{', '.join(self.names())}: install the package that brings it, or import the "
                "module that registers it before"
            )
        if len({entry.value for entry in entries}) > 1:
            brought = ", ".join(entry.value for entry in entries)
            raise ValueError(f"several packages bring the {self.what} {name!r}: {brought}")
        return self.register(self._loaded(entries[0]))

    def check(self, part: Part) -> str:
        """The name of a part's class; ValueError if no model folder can hold it."""
        kind = type(part)
        name = getattr(kind, "name", None)
        if isinstance(name, str) and name in self.names() and self.find(name) is kind:
            return name
        raise ValueError(
            f"no model folder can hold a {kind.__name__}, so a model with it could not be saved; "
            f"there are {', '.join(self.names())}: give its class a name of its own and register "
            f"it, by an entry point {self.group} of its package or in the module that defines it"
        )

    def _entries(self) -> EntryPoints:
        return entry_points(group=self.group)

    def _loaded(self, entry: EntryPoint) -> type[Part]:
        try:
            part = entry.load()
        except (ImportError, AttributeError) as error:
            raise ValueError(
                f"the {self.what} {entry.name!r} cannot be imported from {entry.value}: {error}"
            ) from error
        if getattr(part, "name", None) != entry.name:
            raise ValueError(
                f"the {self.what} {entry.name!r} of {entry.value} calls itself "
                f"{getattr(part, 'name', None)!r}: the entry point and the class's name must agree"
            )
        return part
