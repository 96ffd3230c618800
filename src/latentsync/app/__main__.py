"""The web page: `python -m latentsync.app [--host 127.0.0.1] [--port 7860] [--ckpt FOLDER]`.

One model stays loaded, one job runs at a time, and every job has a folder of its own. Only this
machine reaches the page unless --host says otherwise, and nothing is sent or fetched anywhere.
Requests must name the page as it is known here: another site whose name was pointed to this
address is not answered (--allowed-host adds a name, as that of a proxy).
"""

import argparse
import logging
import sys
from pathlib import Path

import torch

from latentsync import demo_model_dir
from latentsync.app.api import serve
from latentsync.app.engine import Engine
from latentsync.faces.detectors.yunet import default_detector
from latentsync.models.lipsync import LipSyncModel
from latentsync.models.precision import make_ready
from latentsync.pipeline import Cache
from latentsync.runtime import return_large_blocks
from latentsync.weights import model_folder


def main() -> None:
    """Load the model once and serve the page until it is interrupted."""
    parser = argparse.ArgumentParser(prog="python -m latentsync.app", description=__doc__)
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
    asked = parser.parse_args()
    return_large_blocks()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        model = LipSyncModel.from_pretrained(model_folder(asked.ckpt))
        detector = default_detector()
    except (ValueError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)
    make_ready(model, device="cuda" if torch.cuda.is_available() else "cpu")
    engine = Engine(model, detector, asked.jobs.resolve(), Cache.of_user())
    serve(engine, host=asked.host, port=asked.port, allowed_hosts=asked.allowed_host)


if __name__ == "__main__":
    main()
