"""The end of a --multirun: Hydra calls, the runs are put side by side."""

import logging
from pathlib import Path

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from latentsync.training.sweeps import write_sweep

log = logging.getLogger(__name__)


class SweepTable(Callback):
    """Leaves table.csv, table.md and scatter.png in the folder of a finished sweep."""

    def on_multirun_end(self, config: DictConfig, **kwargs: object) -> None:
        written = write_sweep(Path(config.hydra.sweep.dir))
        if written:
            log.info("the sweep's runs are compared in %s", written[1])
