"""`evaluate.py benchmark=syncnet`: a SyncNet itself on the clips of a prepared set."""

import logging
from pathlib import Path

from omegaconf import DictConfig
from tqdm import tqdm

from latentsync.cli.choices import choose_device
from latentsync.data.manifest import read_manifest
from latentsync.evaluation.outcome import Outcome, write_outcome
from latentsync.evaluation.syncnet_itself import OWN, score_clips, write_plots
from latentsync.models.serialization import load_network
from latentsync.models.syncnet import StableSyncNet

log = logging.getLogger(__name__)


def score_syncnet(config: DictConfig, out: Path) -> None:
    """Write its figures, calibration.png and offsets.png to `out`; ValueError if a clip failed."""
    if config.data.path is None:
        raise ValueError("benchmark=syncnet needs data=: a folder of prepare.py")
    if config.evaluator.syncnet is None:
        raise ValueError("benchmark=syncnet needs evaluator.syncnet=: the folder of a SyncNet")
    clips = read_manifest(Path(config.data.path))[: config.limit]
    syncnet = load_network(StableSyncNet, config.evaluator.syncnet)
    syncnet.to(choose_device(config.device))
    scored = score_clips(
        tqdm(clips, desc="score", unit="clip"),
        syncnet,
        stride=config.evaluator.sync_stride,
        max_frames=config.max_frames,
    )
    failed = scored.failed
    if scored.row.num_clips:
        settings = {
            "benchmark": config.benchmark,
            "data": {"path": config.data.path},
            "syncnet": config.evaluator.syncnet,
            "limit": config.limit,
            "sync_stride": config.evaluator.sync_stride,
            "max_frames": config.max_frames,
        }
        more = scored.summary(trained_on=syncnet.config.trained_on)
        outcome = Outcome(
            *(str(config.evaluator.syncnet), {OWN: scored.row}, settings, config.seed),
            num_failed=len(failed),
            more=more,
        )
        write_outcome(out, outcome)
        write_plots(out, scored)
        itself = more["itself"]
        assert isinstance(itself, dict)
        for name, value in itself.items():
            log.info("%s %.3f", name, value)
        log.info("figures are in %s: metrics.json, table.md, clips.csv and two pictures", out)
    if failed:
        raise ValueError(
            f"{len(failed)} of {len(clips)} clips could not be scored, first: "
            f"{failed[0].name} ({failed[0].reason})"
        )
