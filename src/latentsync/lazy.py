"""Public names of a package, imported on first use to keep importing the package cheap."""

import ast
import inspect
import sys
from collections.abc import Callable
from importlib import import_module


def names_at_first_use(package: str) -> Callable[[str], object]:
    """The `__getattr__` of a package whose `__init__.py` imports its names for type checkers only.

    Parses the imports under `if TYPE_CHECKING:` from its source, so that they are written once.
    """
    homes = _imported(ast.parse(inspect.getsource(sys.modules[package])))

    def getattr_of_package(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(homes[name]), name)

    return getattr_of_package


def _imported(source: ast.Module) -> dict[str, str]:
    """Name => module of the imports under `if TYPE_CHECKING:`."""
    blocks = [
        node
        for node in source.body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    return {
        alias.name: node.module or ""
        for block in blocks
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
