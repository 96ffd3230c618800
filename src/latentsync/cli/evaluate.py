"""`evaluate.py`: a model on drawn clips it never saw, or a folder of videos against another."""

import logging
from collections.abc import Mapping
from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console
from tqdm import tqdm

from latentsync.cli.choices import choose_device, choose_dtype
from latentsync.cli.drawn_test_set import load_examples
from latentsync.cli.infer import made
from latentsync.cli.names import build
from latentsync.evaluation.aggregate import Row
from latentsync.evaluation.folders import Comparison, compare_folders, leave_out_invalid_sync
from latentsync.evaluation.model import ROWS, Evaluator, Spoken, evaluate_model
from latentsync.evaluation.report import (
    SHEET_CLIPS,
    append_line,
    markdown_table,
    rich_table,
    sheet,
    write_metrics,
    write_sheet,
    write_strip,
    write_text,
)
from latentsync.models.lipsync import LipSyncModel
from latentsync.models.model_config import ModelFormat
from latentsync.models.mouth_reader import MouthReader
from latentsync.models.precision import make_ready
from latentsync.models.serialization import load_network
from latentsync.models.syncnet import StableSyncNet
from latentsync.weights import model_folder

log = logging.getLogger(__name__)


def run(config: DictConfig) -> None:
    """Measure, print one table, leave metrics.json, table.md and what else there is in `out`."""
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
    """A folder of results against a folder of references; pairs.jsonl grows pair by pair."""
    evaluator = build_evaluator(config, ModelFormat(**config.compare))
    comparison = Comparison()
    results = compare_folders(
        Path(config.pred), Path(config.ref), evaluator=evaluator, max_frames=config.max_frames
    )
    for result in results:
        comparison.add(result)
        append_line(out / "pairs.jsonl", result.as_row(), first=comparison.num_pairs == 1)
    settings = {"pred": config.pred, "ref": config.ref, "fps": evaluator.model_format.fps}
    if comparison.num_measured:
        more = comparison.finish(trained_on=evaluator.trained_on)
        write_figures(config, out, settings, comparison.rows, title=str(config.pred), more=more)
        log.info("figures are in %s: metrics.json, table.md and pairs.jsonl", out)
    comparison.raise_failed(out / "pairs.jsonl")


def write_figures(
    config: DictConfig,
    out: Path,
    settings: dict[str, object],
    rows: Mapping[str, Row],
    *,
    title: str,
    more: Mapping[str, object],
) -> None:
    """metrics.json and table.md, and the table on the terminal."""
    summaries = {name: row.summary() for name, row in rows.items()}
    settings |= {"seed": config.seed, "crf": config.crf, "max_frames": config.max_frames}
    write_metrics(out / "metrics.json", {"settings": settings, "rows": summaries, **more})
    write_text(out / "table.md", markdown_table(summaries))
    Console().print(rich_table(summaries, title=title))


def evaluate(config: DictConfig, out: Path) -> None:
    """A model folder on the drawn test set; leaves its videos and pictures."""
    model = LipSyncModel.from_pretrained(model_folder(config.ckpt))
    make_ready(model, device=choose_device(config.device), dtype=choose_dtype(config.dtype))
    examples = load_examples(config, model.format)
    rows = {name: Row() for name in ROWS}
    evaluator = build_evaluator(config, model.format)
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
    more = {"sync_not_valid": invalid}
    write_figures(config, out, settings, rows, title=str(config.ckpt), more=more)
    log.info("figures, pictures and videos are in %s", out)


def build_evaluator(config: DictConfig, model_format: ModelFormat) -> Evaluator:
    """The measuring networks that the config names, on the device."""
    device = choose_device(config.device)
    folders = {MouthReader: config.metrics.reader, StableSyncNet: config.metrics.syncnet}
    reader, syncnet = (
        None if folder is None else load_network(kind, folder).to(device)
        for kind, folder in folders.items()
    )
    detector = build(config.faces) if config.metrics.mesh else None
    return Evaluator(model_format, reader, syncnet, detector, config.metrics.sync_stride)
