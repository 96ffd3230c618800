"""The web page: `python app.py [--host 127.0.0.1] [--port 7860] [--ckpt FOLDER]`.

One model stays loaded and runs one job at a time, each in its own folder. The page can be reached
only from this machine unless --host says otherwise, and nothing is sent or fetched anywhere.
Requests with an unknown Host header are rejected (--allowed-host adds a name, such as a proxy's).
"""

import argparse
import logging
import sys
from pathlib import Path

from latentsync import demo_model_dir


def main() -> None:
    """Load the model once and serve the page until it is interrupted."""
    parser = argparse.ArgumentParser(prog="python app.py", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=7860)
    parser.add_argument(
        "--allowed-host", action="append", default=[], metavar="NAME",
        help="another name under which the page may be asked for, as that of a proxy",
    )  # fmt: skip
    parser.add_argument(
        "--ckpt", default=str(demo_model_dir()), help="model folder, .ckpt, official .pt, hf:..."
    )
    parser.add_argument("--jobs", type=Path, default=Path("experiments/app"), help="where jobs go")
    serve(parser.parse_args())


def serve(asked: argparse.Namespace) -> None:
    # Import networks only after the command line has been checked.
    from latentsync import app
    from latentsync.cli.page import build_engine
    from latentsync.runtime import return_large_blocks

    return_large_blocks()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        engine = build_engine(asked.ckpt, asked.jobs.resolve())
    except (ValueError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)
    app.serve(engine, host=asked.host, port=asked.port, allowed_hosts=asked.allowed_host)
