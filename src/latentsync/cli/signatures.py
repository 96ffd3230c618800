"""Parameters of a class or function, parsed from the source of its module.

Used for messages about mistyped options, because importing the module would cost seconds of torch.
"""

import ast
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

Definition = ast.ClassDef | ast.FunctionDef


def parameters_of(target: str) -> list[str]:
    """Parameter names of the class or function `target`; empty if its source is not found."""
    words = target.split(".")
    home = _module(words)
    if home is None:
        return []
    path, rest = home
    return _parameters_in(path, words[: len(words) - len(rest)], rest)


def _module(words: Sequence[str]) -> tuple[Path, Sequence[str]] | None:
    """The file of the innermost module in a dotted name, and the remaining names."""
    spec = find_spec(words[0])  # top-level modules are found without being executed
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    path, rest = Path(spec.origin), words[1:]
    while rest and path.name == "__init__.py":
        inner = [path.parent / rest[0] / "__init__.py", path.parent / f"{rest[0]}.py"]
        found = next((each for each in inner if each.is_file()), None)
        if found is None:
            break
        path, rest = found, rest[1:]
    return path, rest


def _parameters_in(path: Path, module: Sequence[str], names: Sequence[str]) -> list[str]:
    if not names:
        return []
    package = module if path.name == "__init__.py" else module[:-1]
    for node in _statements(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, Definition) and node.name == names[0]:
            return _parameters(node, names[1:], path, module)
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if (alias.asname or alias.name) == names[0]:
                    above = package[: len(package) - node.level + 1] if node.level else []
                    home = [*above, *(node.module.split(".") if node.module else [])]
                    return parameters_of(".".join([*home, alias.name, *names[1:]]))
    return []


def _statements(node: ast.AST) -> Iterator[ast.stmt]:
    """The statements of a module, including those inside `if` and `try`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt):
            yield child
            if isinstance(child, ast.If | ast.Try):
                yield from _statements(child)


def _parameters(
    node: Definition, names: Sequence[str], path: Path, module: Sequence[str]
) -> list[str]:
    if isinstance(node, ast.FunctionDef):
        return _arguments(node)
    inside = {each.name: each for each in node.body if isinstance(each, ast.FunctionDef)}
    method = inside.get(names[0] if names else "__init__")
    if method is not None:
        return _arguments(method)[0 if _is_static(method) else 1 :]
    if not names and any("dataclass" in ast.unparse(each) for each in node.decorator_list):
        fields = (each for each in node.body if isinstance(each, ast.AnnAssign))
        return [ast.unparse(each.target) for each in fields if _is_given(each)]
    inherited = (
        _parameters_in(path, module, [*ast.unparse(base).split("."), *names]) for base in node.bases
    )
    return next((found for found in inherited if found), [])


def _arguments(node: ast.FunctionDef) -> list[str]:
    taken = node.args
    return [each.arg for each in (*taken.posonlyargs, *taken.args, *taken.kwonlyargs)]


def _is_static(node: ast.FunctionDef) -> bool:
    return any(ast.unparse(each) == "staticmethod" for each in node.decorator_list)


def _is_given(field: ast.AnnAssign) -> bool:
    """Whether a dataclass takes the field as an argument."""
    kind, default = ast.unparse(field.annotation), field.value
    return "ClassVar" not in kind and not (
        isinstance(default, ast.Call)
        and any(
            each.arg == "init" and ast.unparse(each.value) == "False" for each in default.keywords
        )
    )
