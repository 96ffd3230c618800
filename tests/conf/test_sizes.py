"""Limits on the size of functions and files."""

import ast
from pathlib import Path

import latentsync

PACKAGE = Path(latentsync.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))
MAX_FILE_LINES = 350
MAX_FUNCTION_LINES = 60
MAX_PIPELINE_FILES, MIN_PIPELINE_LINES = 18, 40
MAX_OF_MANY_ARGUMENTS = 3


def test_no_file_is_longer_than_a_reader_takes_in():
    lengths = {path: len(path.read_text().splitlines()) for path in SOURCES}
    assert len(lengths) > 100
    assert {path: n for path, n in lengths.items() if n > MAX_FILE_LINES} == {}


def test_a_folder_that_everybody_reads_is_neither_full_nor_of_scraps():
    lengths = {
        path.name: len(path.read_text().splitlines())
        for path in (PACKAGE / "pipeline").glob("*.py")
    }
    assert 10 < len(lengths) <= MAX_PIPELINE_FILES
    del lengths["__init__.py"]
    assert {name: n for name, n in lengths.items() if n < MIN_PIPELINE_LINES} == {}


def test_no_function_is_longer_than_a_screen():
    lengths = {
        f"{path}:{node.name}": (node.end_lineno or 0) - node.lineno + 1
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert len(lengths) > 1000
    assert {name: n for name, n in lengths.items() if n > MAX_FUNCTION_LINES} == {}


def test_many_arguments_are_the_exception():
    excused = [path for path in SOURCES for _ in range(path.read_text().count("noqa: PLR0913"))]
    assert len(excused) <= MAX_OF_MANY_ARGUMENTS
    assert not [path.name for path in excused if "pipeline" in path.parts or "media" in path.parts]
