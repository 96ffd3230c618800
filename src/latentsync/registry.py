"""Classes by the names used in model folders: built-in, and from other packages.

A model folder names its parts but never a class to import: the only classes used are those in this
package, registered by a program, or declared by an installed package:

    [project.entry-points."latentsync.noise_processes"]
    mine = "my_package.process:MyProcess"
"""

from collections.abc import Iterable, Iterator
from importlib.metadata import EntryPoint, EntryPoints, entry_points
from typing import Generic, TypeVar

from latentsync.config_files import shown

Part = TypeVar("Part")


class Registry(Generic[Part]):
    """Classes of one kind of part, each with a unique `name`.

    `what` describes the kind, `group` is its entry point group. Packages are only imported when
    their part is requested.
    """

    def __init__(self, what: str, group: str, parts: Iterable[type[Part]]) -> None:
        self.what = what
        self.group = group
        self._parts: dict[str, type[Part]] = {}
        for part in parts:
            self.register(part)

    def register(self, part: type[Part]) -> type[Part]:
        """Allow model folders to use this class, by its `name`; also a decorator."""
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
        """All names, including those of installed packages, which are not imported."""
        return list(dict.fromkeys([*self._parts, *(entry.name for entry in self._entries())]))

    def __iter__(self) -> Iterator[type[Part]]:
        """All classes; imports the packages that provide them."""
        return iter([self.find(name) for name in self.names()])

    def find(self, name: object, *, where: str = "") -> type[Part]:
        """The class of a name; ValueError listing the known names, prefixed by `where`, if none."""
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
        """The name of a part's class; ValueError if it is not registered."""
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
