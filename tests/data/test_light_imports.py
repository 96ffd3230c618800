"""What a process that only loads data imports: a million clips and their shuffled order must fit
into a gigabyte with it."""

import subprocess
import sys

import pytest

HEAVY = ("diffusers", "lightning", "torchvision", "torchmetrics", "transformers.models")
LIST = "import sys, {module}; print(*sys.modules, sep=chr(10))"


@pytest.mark.parametrize(
    "module", ["latentsync.data.dataset", "latentsync.data.order", "latentsync.data.manifest"]
)
def test_loading_data_imports_no_networks(module: str) -> None:
    command = [sys.executable, "-c", LIST.format(module=module)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    imported = set(done.stdout.split())
    assert module in imported
    assert not imported & set(HEAVY)
