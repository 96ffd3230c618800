"""Command lines that need no work are handled without importing heavy libraries."""

import contextlib
import importlib
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import latentsync.data
import latentsync.training

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "transformers", "diffusers", "scipy", "cv2", "lightning", "matplotlib", "numpy")
# Runs a script like python does; the last line on stdout lists the imported modules.
WATCHED = f"""
import runpy, sys
sys.argv = sys.argv[1:]
status = 0
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as end:
    status = end.code
print()
print([name for name in {HEAVY} if name in sys.modules])
sys.exit(status)
"""


def start(folder: Path, *words: str) -> tuple[int, str, str]:
    """Exit status, stderr and the heavy modules that were imported."""
    command = [sys.executable, "-c", WATCHED, str(ROOT / words[0]), *words[1:]]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr, done.stdout.splitlines()[-1]


@pytest.mark.parametrize("program", ["infer", "train", "prepare", "evaluate"])
def test_help_imports_nothing_heavy(tmp_path: Path, program: str):
    assert start(tmp_path, f"{program}.py", "--help") == (0, "", "[]")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("infer.py", "seeed=3"), "no config value is called 'seeed'; near: seed"),
        (("infer.py", "preset=nothere"), "no preset is called 'nothere'; there are: balanced"),
        (("infer.py", "faces=fixed"), "faces.points="),
        (("infer.py", "video="), "video= is empty"),
        (("train.py",), "experiment= must be given"),
        (("train.py", "experiment=nothere"), "no experiment is called 'nothere'; there are:"),
        (("train.py", "experiment=syncnet"), "experiment=syncnet needs data.train_manifest="),
        (("train.py", "experimint=syncnet"), "no config value is called 'experimint'"),
        (
            ("train.py", "experiment=unet_stage1", "task.maks_rows=3"),
            "no config value is called 'task.maks_rows'",
        ),
        (
            ("train.py", "experiment=unet_stage1", "trainer.precison=16-mixed"),
            "no config value is called 'trainer.precison'; near: trainer.precision",
        ),
        (
            ("train.py", "experiment=syncnet", "trainer.fast_dev_run=true"),
            "trainer.fast_dev_run is left out in the config, but there is such an argument: "
            "say +trainer.fast_dev_run=true, with a +",
        ),
        (
            ("train.py", "experiment=demo/adapt", "video=a", "adapt.vae.trainer.max_steps=3"),
            "no config value is called 'adapt.vae.trainer.max_steps'; near: "
            "adapt.vae={trainer.max_steps:...}, ",
        ),
        (
            ("infer.py", "faces.min_scor=.5"),
            "no config value is called 'faces.min_scor'; near: faces.min_score",
        ),
        (("prepare.py",), "input="),
        (("prepare.py", "inputt=a"), "no config value is called 'inputt'; near: input"),
        (("evaluate.py", "num_clip=4"), "no config value is called 'num_clip'; near: num_clips"),
    ],
)
def test_a_wrong_command_line_imports_nothing_heavy(tmp_path: Path, words, line: str):
    status, said, imported = start(tmp_path, *words)
    assert said.startswith(f"error: {line}")
    assert (status, imported) == (2, "[]")


@pytest.mark.parametrize("package", [latentsync, latentsync.data, latentsync.training])
def test_every_name_imported_at_first_use_is_there(package):
    for name in package.__all__:
        assert getattr(package, name).__name__ == name
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = package.nothing


def test_help_lists_every_group_and_its_configs(tmp_path: Path):
    command = [sys.executable, str(ROOT / "infer.py"), "--help"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    for folder in (path for path in (ROOT / "conf").iterdir() if path.is_dir()):
        files = sorted(path.stem for path in folder.glob("*.yaml"))
        assert f"\n{folder.name}: {', '.join(files)}\n" in done.stdout


@pytest.mark.parametrize("name", ["latentsync-synthesize", "latentsync-draw"])
def test_synthesize_still_starts_under_its_old_name(monkeypatch, capsys, name: str):
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    module, function = scripts[name].split(":")
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with contextlib.suppress(SystemExit):
        getattr(importlib.import_module(module), function)()
    said = capsys.readouterr()
    assert "num_speakers: 100" in said.out
    assert ("is now latentsync-synthesize" in said.err) == (name == "latentsync-draw")
