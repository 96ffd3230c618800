"""python train.py experiment=...: compose, build, fit, export."""

import difflib
import logging
import shlex
from collections.abc import Mapping
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from latentsync.cli.debug import shrink_networks
from latentsync.cli.environment import record_environment
from latentsync.cli.listening import listens_to
from latentsync.cli.names import build
from latentsync.cli.run import command, is_sweep
from latentsync.extras import needed_parts

with needed_parts():
    import lightning
    from lightning.pytorch.loggers import WandbLogger
    from lightning.pytorch.utilities import rank_zero_only
    from torch import Tensor

    from latentsync.cli.sweep import overrides_of, tells_failed_runs
    from latentsync.data.datamodule import ClipDataModule
    from latentsync.training.sweeps import Run, write_result

log = logging.getLogger(__name__)


@tells_failed_runs
@command("train")
def main(config: DictConfig) -> float | None:
    """Train what the experiment names; returns the objective, which a sweep compares."""
    if is_sweep():
        # All jobs of a sweep start at one time; only Hydra's folder tells them apart.
        config.paths.run_dir = HydraConfig.get().runtime.output_dir
    value = train(config)
    if rank_zero_only.rank == 0:
        overrides = overrides_of(HydraConfig.get().overrides.task)
        run_dir = Path(config.paths.run_dir)
        write_result(Run(run_dir.name, overrides, config.objective, value), run_dir)
    return value


def train(config: DictConfig) -> float | None:
    """Build the task and its data, fit; leaves checkpoints, curves and a model in the run dir."""
    if config.get("tiny_networks", False):
        shrink_networks(config)
    lightning.seed_everything(config.seed, workers=True, verbose=False)
    run_dir = Path(config.paths.run_dir)
    ckpt_path = start_from(config.ckpt_path, run_dir)
    if rank_zero_only.rank == 0:
        run_dir.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(config, run_dir / "config.yaml", resolve=True)
        record_environment(run_dir / "environment.json")

    data = build(config.data)
    if isinstance(data, ClipDataModule):
        # Before networks of gigabytes are built: a set that does not fit is said at once.
        data.states = listens_to(config.task)
        data.setup("fit")
    task = build(config.task)
    trainer = build(
        config.trainer,
        callbacks=build_callbacks(config.callbacks),
        logger=list(build(config.logger).values()),
    )
    try:
        trainer.fit(task, datamodule=data, ckpt_path=ckpt_path, weights_only=True)
    finally:
        close_loggers(trainer)
    if trainer.interrupted:
        again = shlex.quote(f"paths.run_dir={run_dir}")
        log.info("interrupted; go on with %s ckpt_path=last", again)
        return None
    if trainer.is_global_zero:
        task.export(run_dir / "model")
        log.info("the trained model is in %s", run_dir / "model")
    return objective(trainer.callback_metrics, config.objective)


def start_from(ckpt_path: str | None, run_dir: Path) -> str | None:
    """The checkpoint to begin with: `last` of the run folder, `auto`: that if there is one, a file,
    or None. Raises where two runs would mix in a folder, or nothing is there to go on from."""
    last = run_dir / "checkpoints" / "last.ckpt"
    if ckpt_path is None:
        # Only the first process may find what others of it have written; Slurm puts a run back.
        if rank_zero_only.rank == 0 and holds_a_run(run_dir) and not is_requeued(run_dir):
            raise ValueError(
                f"{run_dir} holds a run already: go on with it by ckpt_path=last, or give this one "
                "a folder of its own (paths.run_dir=)"
            )
        return None
    if ckpt_path == "auto":
        return str(last) if last.exists() else None
    path = last if ckpt_path == "last" else Path(ckpt_path)
    if not path.exists():
        raise FileNotFoundError(
            f"ckpt_path={ckpt_path}: there is no {path} to go on from; leave ckpt_path= out to "
            "begin anew, or say ckpt_path=auto to go on only where there is something"
        )
    return str(path)


def holds_a_run(run_dir: Path) -> bool:
    """Whether a training has written curves or checkpoints there."""
    return any(any((run_dir / name).glob("*")) for name in ("checkpoints", "csv"))


def is_requeued(run_dir: Path) -> bool:
    """Whether Lightning will find what it saved when Slurm ended the job."""
    return any(run_dir.glob("hpc_ckpt_*.ckpt"))


def build_callbacks(nodes: DictConfig) -> list[lightning.Callback]:
    """The callbacks of a config. An experiment may tune one that `callbacks=` then left out."""
    used = [name for name, node in nodes.items() if node and "_target_" in node]
    for name in nodes.keys() - used:
        log.info("callbacks.%s is tuned, but not in use here", name)
    return [build(nodes[name]) for name in used]


def close_loggers(trainer: lightning.Trainer) -> None:
    """End what a logger keeps open for its process: the next run of a sweep is another one."""
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            logger.experiment.finish()


def objective(metrics: Mapping[str, Tensor], name: str) -> float | None:
    """The value a sweep compares runs by; None if the run never validated.

    ValueError where it was never logged although everything else was: a name that is not there.
    """
    if name in metrics:
        return float(metrics[name])
    validated = any(each.startswith("val/") for each in metrics)
    if name.startswith("val/") and not validated:
        log.warning("objective=%s has no value: the run ended before its first validation", name)
        return None
    near = ", ".join(difflib.get_close_matches(name, metrics, n=3))
    raise ValueError(
        f"objective={name} was not logged{near and f'; near: {near}'}; there are: "
        f"{', '.join(sorted(metrics))}"
    )
