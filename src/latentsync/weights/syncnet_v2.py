"""SyncNet v2 from `syncnet_v2.model`; names are the same on both sides."""

import logging
from pathlib import Path

import torch

from latentsync.models.syncnet_v2 import SyncNetV2
from latentsync.weights.files import build, read_state, require

logger = logging.getLogger(__name__)


def load_official_syncnet_v2(path: Path | str) -> SyncNetV2:
    """SyncNet v2 from a file such as `syncnet_v2.model`, in eval mode.

    Raises FileNotFoundError, or ValueError naming the tensors that do not fit.
    """
    state = read_state(path)
    require(state, path, "SyncNet v2", "netcnnlip.0.weight", "netcnnaud.0.weight")
    # Files from before torch 0.4.1 have no batch counters, which only training uses.
    norms = {key.removesuffix("running_mean") for key in state if key.endswith("running_mean")}
    counts = {f"{norm}num_batches_tracked": torch.tensor(0) for norm in norms}
    logger.info("%s: SyncNet v2, the network of LSE", path)
    return build(SyncNetV2, counts | state, path)
