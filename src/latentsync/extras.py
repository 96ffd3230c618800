"""Parts of this package that are installed on request: pip install 'latentsync[NAME]'."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# What is imported => the extra that brings it.
EXTRA_OF = {
    "decord": "train",
    "lightning": "train",
    "lpips": "train",
    "matplotlib": "train",
    "tensorboard": "train",
    "torchvision": "train",
    "joblib": "sweep",
    "optuna": "sweep",
    "wandb": "wandb",
    "peft": "lora",
    "ray": "ray",
    "submitit": "submitit",
    "deepspeed": "deepspeed",
    "gradio": "app",
    "obstore": "store",
}


def install(part: str) -> str:
    """The command that installs the extra which brings `part`."""
    return f"pip install 'latentsync[{EXTRA_OF[part]}]'"


def missing_part(error: BaseException | None) -> str | None:
    """One sentence if the error, or one that it came from, is that an optional part is missing."""
    while error is not None:
        part = _part(error)
        if part is not None:
            return f"{part} is not installed: {install(part)}"
        error = error.__cause__ or error.__context__
    return None


@contextmanager
def needed_parts() -> Iterator[None]:
    """Around the imports of a command: without an optional part it ends in one line."""
    try:
        yield
    except ModuleNotFoundError as error:
        sentence = missing_part(error)
        if sentence is None:
            raise
        sys.stderr.write(f"error: {sentence}\n")
        sys.exit(2)


def _part(error: BaseException) -> str | None:
    if isinstance(error, ModuleNotFoundError) and error.name is not None:
        part = error.name.split(".")[0]
        return part if part in EXTRA_OF else None
    # Libraries that look for one another say it in words of their own.
    matched = re.search(r"pip install (?:-U )?'?(\w+)", str(error))
    named = matched[1].lower() if matched else ""
    return named if named in EXTRA_OF else None
