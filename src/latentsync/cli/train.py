"""python train.py experiment=...: compose the config, build, fit, export."""

import logging
import shlex
from collections.abc import Callable
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from latentsync.cli.command import is_sweep
from latentsync.cli.debug import shrink_networks
from latentsync.cli.environment import record_environment
from latentsync.cli.listening import listens_to
from latentsync.cli.names import build
from latentsync.extras import needed_parts

with needed_parts():
    import lightning
    from lightning.pytorch.loggers import WandbLogger
    from lightning.pytorch.utilities import rank_zero_only

    from latentsync.cli.sweep import overrides_of
    from latentsync.data.datamodule import ClipDataModule
    from latentsync.training.callbacks.objective import ObjectiveCheck, objective_of
    from latentsync.training.sweeps import Run, write_result

log = logging.getLogger(__name__)


def run(config: DictConfig) -> float | None:
    """Train an experiment; returns the objective by which a sweep compares runs."""
    if is_sweep():
        # The jobs of a sweep may start in the same second; only Hydra's folder distinguishes them.
        config.paths.run_dir = HydraConfig.get().runtime.output_dir
    value = run_of(config)(config)
    if rank_zero_only.rank == 0:
        overrides = overrides_of(HydraConfig.get().overrides.task)
        run_dir = Path(config.paths.run_dir)
        write_result(Run(run_dir.name, overrides, config.objective, value), run_dir)
    return value


def run_of(config: DictConfig) -> Callable[[DictConfig], float | None]:
    """What an experiment does: train, or prepare its data first if it is an adaptation."""
    if config.get("adapt") is None:
        return train
    from latentsync.cli.adapt import adapt  # it trains by `train`

    return adapt


def train(config: DictConfig) -> float | None:
    """Build the task and its data and fit; writes checkpoints, curves and a model to the run
    folder."""
    if config.get("tiny_networks", False):
        shrink_networks(config)
    check_objective = ObjectiveCheck(config.objective)
    lightning.seed_everything(config.seed, workers=True, verbose=False)
    run_dir = Path(config.paths.run_dir)
    ckpt_path = start_from(config.ckpt_path, run_dir)
    if rank_zero_only.rank == 0:
        run_dir.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(config, run_dir / "config.yaml", resolve=True)
        record_environment(run_dir / "environment.json")

    check_parts(config)
    data = build(config.data)
    if isinstance(data, ClipDataModule):
        # Check the data set before networks of gigabytes are built.
        data.states = listens_to(config.task)
        data.setup("fit")
    task = build(config.task)
    trainer = build(
        config.trainer,
        callbacks=[*build_callbacks(config.callbacks), check_objective],
        logger=list(build(config.logger).values()),
    )
    log_config(trainer, config)
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
    return objective_of(trainer.callback_metrics, config.objective)


def check_parts(config: DictConfig) -> None:
    """ValueError if a part of a new model is given but would not be used."""
    for name, what in {"audio_encoder": "encoder", "process": "noise process"}.items():
        if config.get(name) is None or name in (config.task.get("model") or {}):
            continue
        raise ValueError(
            f"{name}= is read where a model is made anew; this experiment takes its {what} "
            f"from stage1=, or has none: leave {name}= out"
        )


def start_from(ckpt_path: str | None, run_dir: Path) -> str | None:
    """The checkpoint to start from: a file, `last` of the run folder, `auto` (the last if there is
    one), or None. Raises if two runs would share a folder, or there is nothing to resume from."""
    newest = newest_checkpoint(run_dir)
    if ckpt_path == "auto":
        return None if newest is None else str(newest)
    if ckpt_path == "last":
        if newest is None:
            raise FileNotFoundError(
                f"ckpt_path=last: no checkpoint is in {run_dir / 'checkpoints'} to go on from; "
                "ckpt_path=auto goes on only where there is one, and begins the run elsewhere"
            )
        return str(newest)
    if ckpt_path is not None and not Path(ckpt_path).exists():
        raise FileNotFoundError(f"ckpt_path={ckpt_path}: there is no such file to go on from")
    own = ckpt_path is not None and Path(ckpt_path).resolve().is_relative_to(run_dir.resolve())
    # Only rank 0 checks, since the other ranks may find its files; Slurm requeues runs in their
    # folder.
    if rank_zero_only.rank == 0 and not own and holds_a_run(run_dir) and not is_requeued(run_dir):
        remedy = "begin it anew there" if newest is None else "go on with it"
        raise ValueError(
            f"{run_dir} holds a run already: {remedy} by ckpt_path=auto, or give this one a folder "
            "of its own (paths.run_dir=)"
        )
    return ckpt_path


def newest_checkpoint(run_dir: Path) -> Path | None:
    """last.ckpt; if the run was killed before it was linked, the checkpoint with the most steps."""
    last = run_dir / "checkpoints" / "last.ckpt"
    if last.exists():
        return last
    numbered = (path for path in last.parent.glob("*.ckpt") if path.stem.isdecimal())
    return max(numbered, key=lambda path: int(path.stem), default=None)


def holds_a_run(run_dir: Path) -> bool:
    """Whether a training run has written curves or checkpoints there."""
    return newest_checkpoint(run_dir) is not None or any(run_dir.glob("csv/*/metrics.csv"))


def is_requeued(run_dir: Path) -> bool:
    """Whether Lightning has saved a checkpoint there when Slurm ended the job."""
    return any(run_dir.glob("hpc_ckpt_*.ckpt"))


def build_callbacks(nodes: DictConfig) -> list[lightning.Callback]:
    """The callbacks of a config, without those that an experiment tunes but `callbacks=` omits."""
    used = [name for name, node in nodes.items() if node and "_target_" in node]
    for name in nodes.keys() - used:
        log.info("callbacks.%s is tuned, but not in use here", name)
    return [build(nodes[name]) for name in used]


def log_config(trainer: lightning.Trainer, config: DictConfig) -> None:
    """Log the resolved config as hyperparameters to every logger."""
    plain = OmegaConf.to_container(config, resolve=True)
    assert isinstance(plain, dict)
    for logger in trainer.loggers:
        logger.log_hyperparams(plain)


def close_loggers(trainer: lightning.Trainer) -> None:
    """Close per-process state of loggers, since the next run of a sweep is a different one."""
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            logger.experiment.finish()
