"""`evaluate.py`: a model on unseen synthetic clips, or a folder of videos against another."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from omegaconf import DictConfig, ListConfig, OmegaConf
from torchmetrics import Metric
from tqdm import tqdm

from latentsync.cli.benchmark import MODEL, SYNCNET, benchmark_pairs
from latentsync.cli.choices import choose_device, choose_dtype
from latentsync.cli.drawn_test_set import load_examples
from latentsync.cli.infer import made
from latentsync.cli.names import build
from latentsync.cli.syncnet_itself import score_syncnet
from latentsync.evaluation.aggregate import (
    Row,
    check_metrics,
    figures_of,
    needs_of,
    why_not_measured,
)
from latentsync.evaluation.clip_values import tables_of
from latentsync.evaluation.control_findings import findings
from latentsync.evaluation.control_rows import ControlRows, truth_of_synthetic, voice_of_synthetic
from latentsync.evaluation.controls import TRUTH
from latentsync.evaluation.evaluator import Evaluator
from latentsync.evaluation.folders import (
    Comparison,
    Measured,
    compare_folders,
    compare_pairs,
)
from latentsync.evaluation.lse import LseScorer
from latentsync.evaluation.model import ROWS, UNKNOWN_OF_ALIGNED, Spoken, evaluate_model
from latentsync.evaluation.outcome import Outcome, write_outcome
from latentsync.evaluation.pairs import Failed
from latentsync.evaluation.report import (
    SHEET_CLIPS,
    append_line,
    sheet,
    write_sheet,
    write_strip,
)
from latentsync.evaluation.report_page import Page
from latentsync.evaluation.setting import SETTINGS
from latentsync.evaluation.speed_points import speed_points
from latentsync.evaluation.validity import leave_out_invalid_sync
from latentsync.evaluation.views import Files
from latentsync.faces import FaceDetector
from latentsync.faces.tracking.identity import SFace
from latentsync.models.lipsync import LipSyncModel
from latentsync.models.model_config import ModelFormat
from latentsync.models.mouth_reader import MouthReader
from latentsync.models.precision import make_ready
from latentsync.models.s3fd import S3FDDetector
from latentsync.models.serialization import load_network
from latentsync.models.speaker_scorers import LRASDScorer
from latentsync.models.syncnet import StableSyncNet
from latentsync.weights import model_folder
from latentsync.weights.lr_asd import load_official_lr_asd
from latentsync.weights.s3fd import load_official_s3fd
from latentsync.weights.syncnet_v2 import load_official_syncnet_v2

log = logging.getLogger(__name__)

# What a benchmark's results depend on, whoever made them, and those of a model.
OF_A_BENCHMARK = ("benchmark", "data", "limit", "pred")
OF_A_METHOD, OF_A_MODEL = ("method",), ("method", "ckpt", "sampler")


def run(config: DictConfig) -> None:
    """Evaluate, print one table, and write metrics.json, table.md and other results to `out`."""
    out = Path(config.out)
    with made(out, wanted=True):
        if config.setting not in SETTINGS:
            raise ValueError(f"setting={config.setting!r} must be one of {', '.join(SETTINGS)}")
        if config.benchmark == SYNCNET:
            score_syncnet(config, out)
        elif config.benchmark is not None or (config.pred is not None and config.ref is not None):
            compare(config, out)
        elif config.pred is None and config.ref is None:
            evaluate(config, out)
        else:
            raise ValueError(
                "give both pred= and ref=, or neither to evaluate ckpt= on drawn clips"
            )


def compare(config: DictConfig, out: Path) -> None:
    """Compare results with references, of two folders or of a benchmark; appends to pairs.jsonl
    after every pair."""
    metrics = build_metrics(config)
    evaluator = build_evaluator(config, ModelFormat(**config.compare), metrics)
    comparison = Comparison(metrics, evaluator)
    for result in measured_pairs(config, out, evaluator):
        line = comparison.add(result)
        append_line(out / "pairs.jsonl", line, first=comparison.num_pairs == 1)
    settings = {name: plain(config[name]) for name in depends_on(config)}
    settings |= {"fps": evaluator.model_format.fps, "setting": comparison.setting}
    if evaluator.lse is not None:
        settings["lse_faces"] = evaluator.lse.faces
    if comparison.num_measured:
        more = comparison.finish(trained_on=evaluator.trained_on)
        more |= left_out(metrics, evaluator.missing() | comparison.missing())
        num_failed = len(comparison.failed)
        controls = findings(
            comparison.controls.rows, seed=config.seed, not_run=comparison.controls_not_run()
        )
        outcome = Outcome(
            *(title_of(config), comparison.rows, settings, config.seed, num_failed, more),
            controls=controls,
            page=page_of(config, out, comparison),
            conditions=comparison.conditions,
        )
        write_figures(config, out, outcome)
        log.info("figures are in %s: metrics.json, table.md, clips.csv and pairs.jsonl", out)
    comparison.raise_failed(out / "pairs.jsonl")


def page_of(config: DictConfig, out: Path, comparison: Comparison) -> Page:
    """What the page shows beside figures: single clips and, of a benchmark, what they cost."""
    folders = {title_of(config): out}
    if config.against is not None:
        folders[Path(config.against).name] = Path(config.against)
    figures = figures_of(comparison.rows["ref"].metrics)
    points, label = speed_points(tables_of(comparison.rows), figures, folders)
    return replace(comparison.page, points=points, points_of=label)


def depends_on(config: DictConfig) -> tuple[str, ...]:
    """The settings that the results of a comparison depend on."""
    if config.benchmark is None:
        return ("pred", "ref")
    if config.pred is not None:
        return OF_A_BENCHMARK
    return OF_A_BENCHMARK + (OF_A_MODEL if config.method == MODEL else OF_A_METHOD)


def title_of(config: DictConfig) -> str:
    """What is evaluated, for the head of the table."""
    if config.pred is not None:
        return str(config.pred)
    words = config.method
    return " ".join(map(str, words)) if isinstance(words, ListConfig) else str(words)


def plain(value: object) -> object:
    """A value of the config as JSON takes it."""
    is_config = isinstance(value, DictConfig | ListConfig)
    return OmegaConf.to_container(value, resolve=True) if is_config else value


def measured_pairs(
    config: DictConfig, out: Path, evaluator: Evaluator
) -> Iterator[Measured | Failed]:
    """Each pair of two folders or of a benchmark as soon as it is measured."""
    if config.benchmark is None:
        yield from compare_folders(
            Path(config.pred),
            Path(config.ref),
            evaluator=evaluator,
            max_frames=config.max_frames,
            setting=config.setting,
        )
        return
    pairs = benchmark_pairs(config, out)
    yield from compare_pairs(pairs, evaluator=evaluator, max_frames=config.max_frames)


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
    controls = ControlRows(metrics, evaluator)
    shown: list[Spoken] = []
    for spoken in tqdm(results, total=len(examples), desc="evaluate", unit="clip"):
        truth = truth_of_synthetic(spoken, evaluator=evaluator)
        controls.add(truth, other=voice_of_synthetic(spoken, evaluator=evaluator))
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
    controls.finish()
    every = rows | controls.named_rows()
    invalid = leave_out_invalid_sync(every, rows[TRUTH], trained_on=evaluator.trained_on)
    more = {
        "sync_not_valid": invalid,
        **left_out(metrics, evaluator.missing() | UNKNOWN_OF_ALIGNED),
    }
    found = findings(controls.rows, seed=config.seed, not_run={})
    folders = {"model, own voice": "own", "model, another's voice": "swapped"}
    page = Page(
        {
            row: {
                each.name: Files(
                    *(out / "videos" / part / f"{each.name}.mp4" for part in (name, "truth"))
                )
                for each in examples
            }
            for row, name in folders.items()
        }
    )
    outcome = Outcome(
        str(config.ckpt), rows, settings, config.seed, more=more, controls=found, page=page
    )
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
    videos = config.pred is not None or config.benchmark is not None
    wanted = not needs.isdisjoint({"landmarks", "lips"}) or videos
    detector = build(config.faces) if config.evaluator.mesh and wanted else None
    measured = "lse_curves" in needs and videos
    lse = build_lse(config, detector) if measured else None
    sface = config.evaluator.sface
    identity = None if sface is None else SFace(sface)
    stride = config.evaluator.sync_stride
    asked = "speaker_scores" in needs and videos and config.evaluator.lr_asd is not None
    speaker = (
        LRASDScorer(load_official_lr_asd(config.evaluator.lr_asd), device=device) if asked else None
    )
    return Evaluator(model_format, reader, syncnet, detector, stride, lse, identity, speaker)


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
