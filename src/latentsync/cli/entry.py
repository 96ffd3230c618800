"""Entry points of the commands; heavy imports wait until the command line has been checked.

--help, mistyped options and missing values are handled with conf/ alone; the work is in the module
of the command's name, which is imported when it begins.
"""

from omegaconf import DictConfig

from latentsync.cli.command import command
from latentsync.cli.sweep import reports_failed_runs


@command("prepare")
def prepare(config: DictConfig) -> None:
    """Prepare raw videos: clips, latents and audio features."""
    from latentsync.cli.prepare import run

    run(config)


@reports_failed_runs
@command("train")
def train(config: DictConfig) -> float | None:
    """Train an experiment; writes checkpoints and a model folder, returns the objective for
    sweeps."""
    from latentsync.cli.train import run

    return run(config)


@command("infer")
def infer(config: DictConfig) -> None:
    """Lip-sync a video to a voice."""
    from latentsync.cli.infer import run

    run(config)


@command("evaluate")
def evaluate(config: DictConfig) -> None:
    """Evaluate a model, or a folder of results; writes a table of metrics."""
    from latentsync.cli.evaluate import run

    run(config)
