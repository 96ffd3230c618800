"""Layers, pinned versions, and lists that must agree."""

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PINS = dict(
    line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line
)


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[^A-Za-z0-9._-]", line)[0].lower() for line in requirements}


def test_layers_hold():
    lint_imports = shutil.which("lint-imports", path=str(Path(sys.executable).parent))
    if lint_imports is None:
        pytest.skip("import-linter is not installed beside this Python")
    done = subprocess.run([lint_imports], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_dev_extra_equals_dev_group():
    extras = PROJECT["project"]["optional-dependencies"]
    assert extras["dev"] == PROJECT["dependency-groups"]["dev"]


@pytest.mark.parametrize(
    "extra", [None, "train", "prepare", "sweep", "wandb", "lora", "submitit", "dev"]
)
def test_direct_dependencies_are_pinned(extra: str | None):
    project = PROJECT["project"]
    wanted = project["optional-dependencies"][extra] if extra else project["dependencies"]
    assert names(wanted) - set(PINS) == set()


def test_torch_is_the_tested_one():
    assert (PINS["torch"], PINS["torchvision"]) == ("2.14.1", "0.29.1")


def test_importing_the_package_loads_no_heavy_library():
    script = "import sys, latentsync; print({'torch', 'cv2', 'hydra', 'numpy'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "set()\n"


def test_the_wheel_holds_the_configs_and_what_modules_read_beside_them(tmp_path):
    pytest.importorskip("hatchling", reason="the dev extra is not installed")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        names = set(wheel.namelist())
    shipped = {name for name in names if name.startswith("latentsync/conf/")}
    here = {path.relative_to(ROOT / "conf").as_posix() for path in (ROOT / "conf").rglob("*.yaml")}
    assert shipped == {f"latentsync/conf/{name}" for name in here}
    read = {"latentsync/pipeline/reporting/templates/report.html"}
    for suffix in ("html", "css", "json", "npy"):
        paths = (ROOT / "src" / "latentsync").rglob(f"*.{suffix}")
        read |= {path.relative_to(ROOT / "src").as_posix() for path in paths}
    assert read <= names
