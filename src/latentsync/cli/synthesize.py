"""`latentsync-synthesize output=data/raw`: synthetic speakers as ordinary videos with ground
truth."""

import sys
from pathlib import Path

from omegaconf import DictConfig

from latentsync.cli.command import command


@command("synthesize")
def main(config: DictConfig) -> None:
    """Draw a world of talking faces, or resume one that was interrupted."""
    # Slow to import, and not needed to check the command line.
    from latentsync.data.synthetic import draw_world

    draw_world(
        Path(config.output),
        num_speakers=config.num_speakers,
        seconds=config.seconds,
        size=config.size,
        seed=config.seed,
        num_workers=config.num_workers,
        occluder=config.occluder,
        speech=config.speech,
        progress=config.progress,
    )


def main_by_old_name() -> None:
    """Entry point of `latentsync-draw`, the former name of the command."""
    sys.stderr.write("latentsync-draw is now latentsync-synthesize; the old name goes next\n")
    main()


if __name__ == "__main__":
    main()
