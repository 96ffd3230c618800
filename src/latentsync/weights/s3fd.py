"""S3FD from `sfd_face.pth`; names are the same on both sides."""

import logging
from pathlib import Path

from latentsync.models.s3fd import S3FD
from latentsync.weights.files import build, read_state, require

logger = logging.getLogger(__name__)


def load_official_s3fd(path: Path | str) -> S3FD:
    """The face detector from a file such as `sfd_face.pth`, in eval mode.

    Raises FileNotFoundError, or ValueError naming the tensors that do not fit.
    """
    state = read_state(path)
    require(state, path, "S3FD", "vgg.0.weight", "L2Norm3_3.weight")
    logger.info("%s: S3FD, the face detector of LSE", path)
    return build(S3FD, state, path)
