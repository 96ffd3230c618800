"""How every command starts and fails: find conf/, run the task under hydra.main, and report errors
that the user can fix in one line with exit status 2. Bugs keep their traceback."""

import functools
import io
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from latentsync import demo_model_dir, shipped_dir
from latentsync.cli import errors
from latentsync.cli.errors import FULL_ERROR, VERSION_BASE
from latentsync.cli.missing import check_complete
from latentsync.cli.names import names_as_typed

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130

# Hydra deep-copies its config store for each group that --help lists, 180 times, which took more
# than half of the time of --help. The copies are never modified, so they can share one store.
ConfigStore.__deepcopy__ = lambda store, memo: store  # type: ignore[attr-defined]

log = logging.getLogger(__name__)


def conf_dir() -> Path:
    """The folder of configs: inside the package in a wheel, next to src/ in a clone."""
    return shipped_dir("conf", "conf")


def register_resolvers() -> None:
    """Register the resolvers of the configs: ${demo_model:} is the folder of the shipped model,
    ${stem:FILE} a file's name without folder and suffix."""
    OmegaConf.register_new_resolver("demo_model", lambda: str(demo_model_dir()), replace=True)
    OmegaConf.register_new_resolver("stem", lambda path: Path(str(path)).stem, replace=True)


def command(config_name: str) -> Callable[[Callable[[DictConfig], object]], Callable[[], None]]:
    """Decorator: a task on a config => a main that composes conf/`config_name`.yaml and reports
    errors.

    hydra.main's command line is unchanged: --help, --cfg, --multirun, tab completion.
    """

    register_resolvers()

    def decorate(task: Callable[[DictConfig], object]) -> Callable[[], None]:
        in_hydra = hydra.main(
            version_base=VERSION_BASE, config_path=str(conf_dir()), config_name=config_name
        )

        @functools.wraps(task)
        def run_task(config: DictConfig) -> object:
            try:
                check_complete(config, config_name, conf=conf_dir())
                return task(config)
            except Exception as error:
                sentence = None if is_sweep() else explain(error, config_name)
                if sentence is None:
                    raise
                # Exits at once, bypassing Hydra's own error output.
                raise SystemExit(_report_error(error, sentence)) from error

        @functools.wraps(task)
        def main() -> None:
            _print_any_name()
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
                sentence = explain(error, config_name)
                if sentence is None:
                    raise
                sys.exit(_report_error(error, sentence))

        return main

    return decorate


def explain(error: BaseException, config_name: str) -> str | None:
    """One sentence for an error that the user can fix; None for a bug."""
    return errors.explain(error, config_name, conf=conf_dir())


def _report_error(error: BaseException, sentence: str) -> int:
    sys.stderr.write(f"error: {sentence}\n")
    log.debug("the error above comes from here", exc_info=error)
    return EXIT_USER_ERROR


def is_sweep() -> bool:
    """Whether this is a job of a --multirun."""
    # A failed job must not end the others: Hydra stores its error and raises it at the end.
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def _print_any_name() -> None:
    """Escape characters that the terminal cannot encode instead of raising an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


@contextmanager
def _errors_pass_through_hydra() -> Iterator[None]:
    """Let hydra.main raise errors instead of printing most of them and exiting with status 1."""
    os.environ[FULL_ERROR] = "1"
    try:
        yield
    finally:
        del os.environ[FULL_ERROR]
