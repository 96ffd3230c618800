"""Optional dependencies of this package: pip install 'latentsync[NAME]'."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# Imported module => the extra that installs it.
EXTRA_OF = {
    "decord": "train",
    "lightning": "train",
    "lpips": "train",
    "matplotlib": "train",
    "tensorboard": "train",
    "pyarrow": "train",
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
    "espeakng_loader": "voices",
}


def install(part: str) -> str:
    """The command that installs the extra with `part`."""
    return f"pip install 'latentsync[{EXTRA_OF[part]}]'"


def missing_part(error: BaseException | None) -> str | None:
    """A message if the error, or one of its causes, is a missing optional dependency."""
    while error is not None:
        part = _part(error)
        if part is not None:
            return f"{part} is not installed: {install(part)}"
        error = error.__cause__ or error.__context__
    return None


@contextmanager
def needed_parts() -> Iterator[None]:
    """Around the imports of a command: exits with one line if an optional dependency is missing."""
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
    # Libraries report missing optional dependencies of theirs in their own messages.
    matched = re.search(r"pip install (?:-U )?'?(\w+)", str(error))
    named = matched[1].lower() if matched else ""
    return named if named in EXTRA_OF else None
