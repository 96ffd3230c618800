"""`evaluate.py`: a model on unseen synthetic clips, or a folder of videos against another."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from omegaconf import DictConfig
from torchmetrics import Metric
from tqdm import tqdm

from latentsync.cli.choices import choose_device, choose_dtype
from latentsync.cli.drawn_test_set import load_examples
from latentsync.cli.infer import made
from latentsync.cli.names import build
from latentsync.evaluation.aggregate import (
    Row,
    check_metrics,
    needs_of,
    why_not_measured,
)
from latentsync.evaluation.folders import (
    UNKNOWN_OF_ALIGNED,
    UNKNOWN_OF_VIDEOS,
    Comparison,
    compare_folders,
    leave_out_invalid_sync,
)
from latentsync.evaluation.lse import LseScorer
from latentsync.evaluation.model import ROWS, Evaluator, Spoken, evaluate_model
from latentsync.evaluation.outcome import Outcome, write_outcome
from latentsync.evaluation.report import (
    SHEET_CLIPS,
    append_line,
    sheet,
    write_sheet,
    write_strip,
)
from latentsync.faces import FaceDetector
from latentsync.models.lipsync import LipSyncModel
from latentsync.models.model_config import ModelFormat
from latentsync.models.mouth_reader import MouthReader
from latentsync.models.precision import make_ready
from latentsync.models.s3fd import S3FDDetector
from latentsync.models.serialization import load_network
from latentsync.models.syncnet import StableSyncNet
from latentsync.weights import model_folder
from latentsync.weights.s3fd import load_official_s3fd
from latentsync.weights.syncnet_v2 import load_official_syncnet_v2

log = logging.getLogger(__name__)


def run(config: DictConfig) -> None:
    """Evaluate, print one table, and write metrics.json, table.md and other results to `out`."""
    out = Path(config.out)
    with made(out, wanted=True):
        if config.pred is not None and config.ref is not None:
            compare(config, out)
        elif config.pred is None and config.ref is None:
            evaluate(config, out)
        else:
            raise ValueError(
                "give both pred= and ref=, or neither to evaluate ckpt= on drawn clips"
            )


def compare(config: DictConfig, out: Path) -> None:
    """Compare a folder of results with a folder of references; appends to pairs.jsonl after every
    pair."""
    metrics = build_metrics(config)
    evaluator = build_evaluator(config, ModelFormat(**config.compare), metrics)
    comparison = Comparison(metrics)
    results = compare_folders(
        Path(config.pred), Path(config.ref), evaluator=evaluator, max_frames=config.max_frames
    )
    for result in results:
        line = comparison.add(result)
        append_line(out / "pairs.jsonl", line, first=comparison.num_pairs == 1)
    settings = {"pred": config.pred, "ref": config.ref, "fps": evaluator.model_format.fps}
    if evaluator.lse is not None:
        settings["lse_faces"] = evaluator.lse.faces
    if comparison.num_measured:
        more = comparison.finish(trained_on=evaluator.trained_on)
        more |= left_out(metrics, evaluator.missing() | UNKNOWN_OF_VIDEOS)
        num_failed = len(comparison.failed)
        outcome = Outcome(
            str(config.pred), comparison.rows, settings, config.seed, num_failed, more
        )
        write_figures(config, out, outcome)
        log.info("figures are in %s: metrics.json, table.md, clips.csv and pairs.jsonl", out)
    comparison.raise_failed(out / "pairs.jsonl")


def left_out(metrics: Mapping[str, Metric], missing: Mapping[str, str]) -> dict[str, object]:
    """The metrics that could not be computed, with reasons, for metrics.json; also logged."""
    reasons = why_not_measured(metrics, missing)
    for name, reason in reasons.items():
        log.info("metrics.%s is not measured: it %s", name, reason)
    return {"not_measured": reasons} if reasons else {}


def write_figures(config: DictConfig, out: Path, outcome: Outcome) -> None:
    """Write and print what was measured, beside the settings that all evaluations have."""
    settings = {**outcome.settings, "crf": config.crf, "max_frames": config.max_frames}
    against = None if config.against is None else Path(config.against)
    write_outcome(out, replace(outcome, settings=settings), against=against)


def evaluate(config: DictConfig, out: Path) -> None:
    """Evaluate a model folder on the synthetic test set; writes its videos and images."""
    model = LipSyncModel.from_pretrained(model_folder(config.ckpt))
    make_ready(model, device=choose_device(config.device), dtype=choose_dtype(config.dtype))
    examples = load_examples(config, model.format)
    metrics = build_metrics(config)
    evaluator = build_evaluator(config, model.format, metrics)
    rows = {name: Row(metrics) for name in ROWS}
    results = evaluate_model(
        examples,
        rows=rows,
        model=model,
        sampler=build(config.sampler),
        evaluator=evaluator,
        folder=out / "videos",
        seed=config.seed,
        crf=config.crf,
    )
    shown: list[Spoken] = []
    for spoken in tqdm(results, total=len(examples), desc="evaluate", unit="clip"):
        if len(shown) < SHEET_CLIPS:
            shown.append(spoken)
    form = model.format
    write_sheet(out / "sheet.png", sheet(shown, mask=form.mask, chunk=form.num_frames))
    write_strip(out / "strip.mp4", shown, fps=form.fps)
    settings = {
        "ckpt": config.ckpt,
        "test_set": config.test_set,
        "sampler": dict(config.sampler),
    }
    invalid = leave_out_invalid_sync(rows, rows["ground truth"], trained_on=evaluator.trained_on)
    more = {
        "sync_not_valid": invalid,
        **left_out(metrics, evaluator.missing() | UNKNOWN_OF_ALIGNED),
    }
    outcome = Outcome(str(config.ckpt), rows, settings, config.seed, more=more)
    write_figures(config, out, outcome)
    log.info("figures, pictures and videos are in %s", out)


def build_metrics(config: DictConfig) -> dict[str, Metric]:
    """The metrics of conf/metrics."""
    metrics = build(config.metrics)
    check_metrics(metrics)
    return metrics


def build_evaluator(
    config: DictConfig, model_format: ModelFormat, metrics: Mapping[str, Metric]
) -> Evaluator:
    """The evaluator with the networks that the config names and a metric needs, on the device."""
    device = choose_device(config.device)
    needs = set().union(*map(needs_of, metrics.values()))
    named = {
        "reading": (MouthReader, config.evaluator.reader),
        "sync_cosines": (StableSyncNet, config.evaluator.syncnet),
    }
    reader, syncnet = (
        None if folder is None or need not in needs else load_network(kind, folder).to(device)
        for need, (kind, folder) in named.items()
    )
    # Pairs of videos cannot be cropped without landmarks.
    wanted = not needs.isdisjoint({"landmarks", "lips"}) or config.pred is not None
    detector = build(config.faces) if config.evaluator.mesh and wanted else None
    measured = "lse_curves" in needs and config.pred is not None
    lse = build_lse(config, detector) if measured else None
    return Evaluator(model_format, reader, syncnet, detector, config.evaluator.sync_stride, lse)


def build_lse(config: DictConfig, detector: FaceDetector | None) -> LseScorer | None:
    """SyncNet v2 with S3FD, or else with the detector of all other metrics."""
    weights, s3fd = config.evaluator.syncnet_v2, config.evaluator.s3fd
    if weights is None:
        return None
    device = choose_device(config.device)
    net = load_official_syncnet_v2(weights).to(device)
    if s3fd is not None:
        return LseScorer(net, S3FDDetector(load_official_s3fd(s3fd).to(device)), "S3FD")
    if detector is None:
        raise ValueError("LSE needs a face detector: evaluator.s3fd=sfd_face.pth or faces=mesh")
    return LseScorer(net, detector, f"{type(detector).__name__}, not S3FD")
