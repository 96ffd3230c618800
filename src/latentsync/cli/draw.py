"""`python draw.py output=data/raw/drawn`: drawn speakers as ordinary videos, with their truth."""

from pathlib import Path

from omegaconf import DictConfig

from latentsync.cli.command import command


@command("draw")
def main(config: DictConfig) -> None:
    """Draw a world of talking faces, or go on with one that was interrupted."""
    # Heavy, and not needed to answer a wrong command line.
    from latentsync.data.synthetic import draw_world

    draw_world(
        Path(config.output),
        num_speakers=config.num_speakers,
        seconds=config.seconds,
        size=config.size,
        seed=config.seed,
        num_workers=config.num_workers,
        progress=config.progress,
    )


if __name__ == "__main__":
    main()
