"""A --multirun as a table of its runs, including failed ones.

Hydra calls back when each run begins and ends. The table is rewritten each time, so that results
survive a failed run or the end of the whole sweep.
"""

import functools
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from latentsync.cli.command import EXIT_USER_ERROR, explain
from latentsync.cli.names import unquoted
from latentsync.training.sweeps import Run, read_runs, write_result, write_sweep

UNFINISHED = "it began and did not end: it still runs, or was killed"
# The sweeper for grids and lists: it ignores return values and stops at the first failed run.
BASIC_SWEEPER = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"

log = logging.getLogger(__name__)


class SweepTable(Callback):
    """Writes table.csv, table.md and scatter.png to the folder of a sweep after every run."""

    ended_in: ClassVar[Path | None] = None  # the folder of this process's finished sweep

    def on_job_start(self, config: DictConfig, **kwargs: object) -> None:
        if config.hydra.mode == RunMode.MULTIRUN:
            _leave(config, error=UNFINISHED)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: object) -> None:
        if config.hydra.mode != RunMode.MULTIRUN:
            return
        error = _error_of(job_return)
        if error is not None:
            reason = explain(error, config.hydra.job.config_name) or _sentence(error)
            log.error("this run failed: %s", reason, exc_info=error)
            _leave(config, error=reason)
            if config.hydra.sweeper._target_ == BASIC_SWEEPER:
                job_return.status, job_return.return_value = JobStatus.COMPLETED, None
        write_sweep(Path(config.hydra.sweep.dir))

    def on_multirun_end(self, config: DictConfig, **kwargs: object) -> None:
        SweepTable.ended_in = folder = Path(config.hydra.sweep.dir)
        written = write_sweep(folder)
        if written:
            log.info("the sweep's runs are compared in %s", written[1])


def reports_failed_runs(main: Callable[[], None]) -> Callable[[], None]:
    """Decorator of a command: if runs of a sweep failed, report it in one line and exit with status
    2."""

    @functools.wraps(main)
    def wrapped() -> None:
        with _sweep_of_its_own():
            main()
            folder = SweepTable.ended_in
            runs = [] if folder is None else read_runs(folder)
        failed = [run for run in runs if run.error is not None]
        if failed:
            sys.stderr.write(
                f"error: {len(failed)} of {len(runs)} runs failed, first: run {failed[0].name} "
                f"({failed[0].error}); {folder}/table.md has them all\n"
            )
            sys.exit(EXIT_USER_ERROR)

    return wrapped


@contextmanager
def _sweep_of_its_own() -> Iterator[None]:
    SweepTable.ended_in = None
    try:
        yield
    finally:
        SweepTable.ended_in = None


def overrides_of(words: Sequence[str]) -> dict[str, str]:
    """Names and values of the overrides of a run."""
    split = (word.split("=", 1) for word in words)
    return {name.lstrip("+~"): unquoted("".join(given)) for name, *given in split}


def _leave(config: DictConfig, *, error: str) -> None:
    folder = Path(config.hydra.runtime.output_dir)
    objective = str(OmegaConf.select(config, "objective"))
    overrides = overrides_of(config.hydra.overrides.task)
    write_result(Run(folder.name, overrides, objective, None, error), folder)


def _sentence(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _error_of(job_return: JobReturn) -> Exception | None:
    if job_return.status != JobStatus.FAILED:
        return None
    try:
        job_return.return_value  # noqa: B018  (raises what the run raised)
    except Exception as error:  # noqa: BLE001  (whatever that was)
        return error
    return None
