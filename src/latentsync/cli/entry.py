"""The commands' doors: nothing heavy is imported before a command line is known to be right.

--help, a mistyped option and a missing value are answered from conf/ alone; what a command does
stands in the module of its name, which is imported when work begins.
"""

from omegaconf import DictConfig

from latentsync.cli.command import command
from latentsync.cli.sweep import reports_failed_runs


@command("prepare")
def prepare(config: DictConfig) -> None:
    """Raw videos to clips, latents and audio features."""
    from latentsync.cli.prepare import run

    run(config)


@reports_failed_runs
@command("train")
def train(config: DictConfig) -> float | None:
    """An experiment to checkpoints and a model folder; the objective is what a sweep compares."""
    from latentsync.cli.train import run

    return run(config)


@command("infer")
def infer(config: DictConfig) -> None:
    """A video and a voice to a lip-synced video."""
    from latentsync.cli.infer import run

    run(config)


@command("evaluate")
def evaluate(config: DictConfig) -> None:
    """A model, or a folder of results, to a table of figures."""
    from latentsync.cli.evaluate import run

    run(config)
