"""Project jargon must not come back as identifiers."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

SOURCES = Path(__file__).parents[2] / "src" / "latentsync"
# Word of an identifier => standard term.
FORBIDDEN = {
    "told": "reported",
    "tell": "report",
    "tells": "reports",
    "said": "text, given",
    "witness": "monitor",
    "verdict": "scores",
    "judge": "scorer, evaluator",
    "judgement": "calibration",
    "sight": "analyze",
    "sighting": "analysis",
    "listen": "encode_speech",
    "roughen": "augment",
    "steadiness": "temporal",
    "tosses": "use_official_pairs",
    "coins": "use_official_pairs",
    "ahead": "prefetch, following",
    "trail": "tracklet",
    "patches": "generated faces",
    "drawn": "generated; synthetic",
    "draw": "generate; plot; sample",
    "parity": "a field of OfficialProfile, or of what it sets",
}
# (file or folder, word) => reason for the exception.
EXCEPTIONS = {
    ("data/synthetic", "draw"): "pictures are really drawn there",
    ("data/synthetic", "drawn"): "pictures are really drawn there",
    ("cli/synthesize.py", "draw"): "the command that draws the synthetic speakers",
    ("cli/drawn_test_set.py", "draw"): "synthetic speakers are drawn there",
    ("pipeline/reporting", "num_frames_drawn"): "a key of report.json, which users read",
    ("media/cut.py", "tell"): "the method of a file",
}


def identifiers(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield node.name
            case ast.arg(arg=name) | ast.Attribute(attr=name) | ast.Name(id=name):
                yield name
            case ast.keyword(arg=str(name)):
                yield name


def words(name: str) -> list[str]:
    return [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)]


def is_excepted(file: str, name: str, word: str) -> bool:
    return any(file.startswith(path) and own in (word, name) for path, own in EXCEPTIONS)


def offences() -> Iterator[str]:
    for path in sorted(SOURCES.rglob("*.py")):
        file = path.relative_to(SOURCES).as_posix()
        for name in set(identifiers(ast.parse(path.read_text(encoding="utf-8")))):
            parts = words(name)
            wrong = [word for word in parts if word in FORBIDDEN]
            # A pipeline's latents lie in a cache; elsewhere the word is plain English.
            if file.startswith("pipeline/") and "kept" in parts:
                wrong.append("kept")
            if re.match(r"_?(MOST|LEAST)_", name):
                wrong.append(parts[0])
            # Elsewhere it is a side.
            if file.startswith("pipeline/") and "reporting" not in file and name == "left":
                wrong.append("left")
            for word in wrong:
                if not is_excepted(file, name, word):
                    term = FORBIDDEN.get(word, "MAX, MIN, cache, skip_reasons")
                    yield f"{file}: {name} ({word}: {term})"


def test_identifiers_are_words_of_the_field():
    assert list(offences()) == []


def test_every_exception_is_still_needed():
    found = {
        (path, own)
        for path, own in EXCEPTIONS
        for source in SOURCES.rglob("*.py")
        if source.relative_to(SOURCES).as_posix().startswith(path)
        for name in identifiers(ast.parse(source.read_text(encoding="utf-8")))
        if own == name or own in words(name)
    }
    assert found == set(EXCEPTIONS)


def test_the_sample_rate_is_said_once():
    saying = [path.name for path in SOURCES.rglob("*.py") if "\nSAMPLE_RATE = " in path.read_text()]
    assert saying == ["audio.py"]
