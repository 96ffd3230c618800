"""How every command starts and fails: conf/ is found, hydra.main runs the task, and what the user
can put right is told in one line with exit status 2. Bugs keep their traceback.
"""

import difflib
import functools
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import (
    CompactHydraException,
    InstantiationException,
    MissingConfigException,
    OverrideParseException,
)
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from latentsync import demo_model_dir, shipped_dir
from latentsync.cli.names import as_typed, names_as_typed
from latentsync.data.remote import StoreUnreachable

VERSION_BASE = "1.3"
FULL_ERROR = "HYDRA_FULL_ERROR"
EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130

log = logging.getLogger(__name__)


def conf_dir() -> Path:
    """The folder of configs: inside the package in a wheel, beside src/ in a clone."""
    return shipped_dir("conf", "conf")


def register_resolvers() -> None:
    """What configs may interpolate: ${demo_model:} is the folder of the shipped model."""
    OmegaConf.register_new_resolver("demo_model", lambda: str(demo_model_dir()), replace=True)


def command(config_name: str) -> Callable[[Callable[[DictConfig], object]], Callable[[], None]]:
    """Decorator: a task on a config => a main that composes conf/`config_name`.yaml and ends well.

    All of hydra.main's command line stays: --help, --cfg, --multirun, tab completion.
    """

    register_resolvers()

    def decorate(task: Callable[[DictConfig], object]) -> Callable[[], None]:
        in_hydra = hydra.main(
            version_base=VERSION_BASE, config_path=str(conf_dir()), config_name=config_name
        )

        @functools.wraps(task)
        def run_task(config: DictConfig) -> object:
            try:
                return task(config)
            except Exception as error:
                if is_sweep() or not explain(error, config_name):
                    raise
                # Leaves Hydra at once, past its own printing of errors.
                raise SystemExit(_tell(error, config_name)) from error

        @functools.wraps(task)
        def main() -> None:
            if os.environ.get(FULL_ERROR) == "1":
                with names_as_typed(config_name):
                    in_hydra(task)()
                return
            try:
                with names_as_typed(config_name), _errors_pass_through_hydra():
                    in_hydra(run_task)()
            except KeyboardInterrupt:
                sys.stderr.write("interrupted\n")
                sys.exit(EXIT_INTERRUPTED)
            except Exception as error:
                if not explain(error, config_name):
                    raise
                sys.exit(_tell(error, config_name))

        return main

    return decorate


def explain(error: BaseException, config_name: str) -> str | None:
    """One sentence for an error that the user can put right; None for a bug."""
    line: str | None = None
    if isinstance(error, MissingConfigException):
        line = _explain_missing_config(error)
    elif isinstance(error, InstantiationException):
        cause = error.__cause__ and explain(error.__cause__, config_name)
        line = cause or f"{error} ({FULL_ERROR}=1 shows where)"
    elif isinstance(error, OverrideParseException):
        line = f"{error.override!r} is not an override (name=value): {error.message}"
    elif isinstance(error, CompactHydraException):
        line = _explain_override(error, config_name)
    elif isinstance(error, MissingMandatoryValue):
        line = f"{error.full_key}= must be given"
    elif isinstance(error, StoreUnreachable | OSError) or (
        isinstance(error, ValueError) and _is_ours(error)
    ):
        line = _explain_input(error)
    return line and " ".join(line.split())


def _tell(error: BaseException, config_name: str) -> int:
    sys.stderr.write(f"error: {explain(error, config_name)}\n")
    log.debug("the error above comes from here", exc_info=error)
    return EXIT_USER_ERROR


def _is_ours(error: BaseException) -> bool:
    """Whether our code raised it: a ValueError from inside a library is our bug, not advice."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is None or trace.tb_frame.f_globals["__name__"].split(".")[0] == "latentsync"


def _explain_input(error: BaseException) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error) or type(error).__name__


def _explain_missing_config(error: MissingConfigException) -> str:
    missing = error.missing_cfg_file or ""
    group = next(
        (name for name in _groups() if missing.startswith(f"{name}/") and "/" not in name), None
    )
    if group is None:
        return f"no config is called {missing!r}{_near(missing, _options(conf_dir()))}"
    wrong = missing.removeprefix(f"{group}/")
    return f"no {group} is called {wrong!r}{_near(wrong, _options(conf_dir() / group))}"


def _explain_override(error: CompactHydraException, config_name: str) -> str:
    cause = error.__cause__
    named = re.search(r"Could not override '([^']+)'", str(error))
    if named is None:
        return f"{error} {cause}" if isinstance(cause, OmegaConfBaseException) else str(error)
    key = named[1]
    if "No match in the defaults list" in str(error):
        return f"configs of the group {key!r} exist, but {config_name} uses none of them"
    return f"no config value is called {key!r}{_near(key, _known_keys(config_name, key))}"


def _near(wrong: str, names: list[str]) -> str:
    near = difflib.get_close_matches(wrong, names, n=4, cutoff=0.6)
    if not near:
        last = wrong.rsplit(".", 1)[-1]
        near = [name for name in names if name.rsplit(".", 1)[-1] == last][:4]
    if near:
        return f"; near: {', '.join(near)}"
    return f"; there are: {', '.join(sorted(names)[:12])}" if names else ""


def _groups() -> list[str]:
    root = conf_dir()
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_dir())


def _options(folder: Path) -> list[str]:
    return sorted(
        path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml")
    )


def _known_keys(config_name: str, wrong_key: str) -> list[str]:
    """Dotted keys of the config as asked for but without the wrong override, and group names."""
    typed = as_typed(sys.argv[1:], config_name)
    asked = [word for word in typed if "=" in word and not word.startswith("-")]
    right = [word for word in asked if word.split("=", 1)[0].lstrip("+~") != wrong_key]
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(conf_dir()), version_base=VERSION_BASE):
        try:
            config = hydra.compose(config_name, overrides=right)
        except (CompactHydraException, OmegaConfBaseException):
            config = hydra.compose(config_name)
    keys = _flat_keys(OmegaConf.to_container(config, resolve=False))
    return sorted({*keys, *(group for group in _groups() if "/" not in group)})


def _flat_keys(node: object, prefix: str = "") -> Iterator[str]:
    if isinstance(node, dict):
        for name, child in node.items():
            yield f"{prefix}{name}"
            yield from _flat_keys(child, f"{prefix}{name}.")


def is_sweep() -> bool:
    """Whether this is one of the jobs of a --multirun."""
    # One failed job must not end the others: Hydra keeps the error and raises it at the end.
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


@contextmanager
def _errors_pass_through_hydra() -> Iterator[None]:
    """hydra.main prints most errors itself and exits with 1; with this switch it raises them."""
    os.environ[FULL_ERROR] = "1"
    try:
        yield
    finally:
        del os.environ[FULL_ERROR]
