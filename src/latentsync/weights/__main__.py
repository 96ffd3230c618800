"""`python -m latentsync.weights import|export|inspect|fetch`: published files in and out."""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from latentsync.weights.fetch import fetch
from latentsync.weights.folders import VERSIONS, export_model, import_official
from latentsync.weights.importing import import_network, is_unet
from latentsync.weights.inspect import inspect

EXIT_USER_ERROR = 2

logger = logging.getLogger(__name__)


def main(words: Sequence[str] | None = None) -> None:
    """Run the command line; errors the user can fix exit with status 2."""
    asked = parser().parse_args(words)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    try:
        run(asked)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(EXIT_USER_ERROR)


def run(asked: argparse.Namespace) -> None:
    """Run one of the four commands."""
    if asked.command == "import" and not is_unet(asked.file):
        import_network(asked.file, asked.out)
    elif asked.command == "import":
        import_official(
            asked.file,
            asked.out,
            version=asked.version,
            whisper=asked.whisper,
            vae=asked.vae,
            resolution=asked.resolution,
            aligner=asked.aligner,
        )
    elif asked.command == "export":
        logger.info("written: %s", export_model(asked.source, asked.out))
    elif asked.command == "inspect":
        for path in asked.paths:
            logger.info("%s", path)
            for name, value in inspect(path).items():
                logger.info("  %-12s %s", name, f"{value:,}" if isinstance(value, int) else value)
    else:
        files = fetch(asked.source)
        logger.info("UNet:    %s", files.unet)
        logger.info("Whisper: %s", files.whisper)
        logger.info("VAE:     %s", files.vae)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    whole = argparse.ArgumentParser(prog="python -m latentsync.weights", description=__doc__)
    commands = whole.add_subparsers(dest="command", required=True)

    command = commands.add_parser(
        "import", help="an official file => the folder that infer.py or train.py asks for"
    )
    command.add_argument(
        "file", type=Path, help="latentsync_unet.pt, stable_syncnet.pt, tiny.pt, or a VAE"
    )
    command.add_argument("out", type=Path, help="the folder to write")
    command.add_argument("--version", choices=list(VERSIONS), help="of a UNet")
    command.add_argument("--whisper", type=Path, help="tiny.pt; else looked for beside the UNet")
    command.add_argument("--vae", type=Path, help="sd-vae-ft-mse; else looked for beside the UNet")
    command.add_argument("--resolution", type=int, help="of weights without a version")
    command.add_argument("--aligner", help="of weights without a version: official, legacy, smooth")

    command = commands.add_parser(
        "export", help="our folder or .ckpt => an official file or folder"
    )
    command.add_argument("source", type=Path, help="a model folder, or a .ckpt in its run's folder")
    command.add_argument("out", type=Path, help="NAME.pt for an official file, else a folder")

    command = commands.add_parser("inspect", help="say what a file or folder is")
    command.add_argument("paths", type=Path, nargs="+")

    command = commands.add_parser("fetch", help="download published files, or say where they go")
    command.add_argument("source", help="hf:ByteDance/LatentSync-1.6")
    return whole


if __name__ == "__main__":
    main()
