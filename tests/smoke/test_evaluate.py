"""`evaluate.py` end to end on synthetic clips, with networks of random weights."""

import importlib.util
import json
import os
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from torchmetrics import MeanMetric

from latentsync.cli.command import conf_dir
from latentsync.cli.evaluate import build_evaluator, build_metrics, run
from latentsync.data.clips import Clip
from latentsync.data.manifest import read_manifest
from latentsync.data.synthetic import render_clip
from latentsync.diffusion import DDPM
from latentsync.evaluation.aggregate import check_metrics, figures_of
from latentsync.evaluation.evaluator import Evaluator
from latentsync.evaluation.folders import Comparison, compare_folders
from latentsync.evaluation.model import choose_clips, choose_driver, load_example
from latentsync.faces import Face, FaceDetector, FixedDetector
from latentsync.faces.detectors.base import THREE_POINTS
from latentsync.media.video import VideoWriter, probe
from latentsync.metrics.correlation import LandmarkCorrelation
from latentsync.metrics.masked import MaskedPSNR
from latentsync.metrics.sync import score_of
from latentsync.models import (
    LatentCodec,
    LipSyncModel,
    MelAudioEncoder,
    ModelFormat,
    MouthReader,
    StableSyncNet,
    UNet,
    save_network,
)
from latentsync.prepare import Recipe, prepare_clips

RESOLUTION = 32
# Brows and nose of a synthetic face of 64 pixels, approximately.
POINTS = ((23.0, 25.0), (41.0, 25.0), (32.0, 36.0))
NUM_CLIPS = 3
LANDMARKS = THREE_POINTS["mesh"]


@pytest.fixture(scope="module")
def test_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three synthetic speakers, two seconds each, prepared."""
    folder = tmp_path_factory.mktemp("evaluate")
    (folder / "raw").mkdir()
    for index in range(NUM_CLIPS):
        render_clip(folder / "raw" / f"speaker{index}", seed=100 + index, seconds=2.2, size=64)
    recipe = Recipe(
        make_detector=partial(FixedDetector, POINTS),
        resolution=64,
        min_seconds=1.0,
        occlusion=None,
    )
    prepare_clips(folder / "raw", folder / "set", stages=recipe.stages())
    return folder / "set"


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the model and the two networks that evaluate it."""
    folder = tmp_path_factory.mktemp("networks")
    torch.manual_seed(0)
    tiny_model().save_pretrained(folder / "model")
    reader = MouthReader(resolution=32, block_out_channels=(8, 8))
    save_network(reader, folder / "model" / "mouth_reader")
    tower = {"block_out_channels": [8, 16], "attn_blocks": [0, 0], "dropout": 0.0}
    syncnet = StableSyncNet(
        audio_encoder={**tower, "in_channels": 1, "downsample_factors": [[80, 52], 1]},
        visual_encoder={**tower, "in_channels": 48, "downsample_factors": [[16, 32], 1]},
        resolution=32,
    )
    save_network(syncnet, folder / "model" / "syncnet")
    return folder


def tiny_model() -> LipSyncModel:
    vae = AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2,
        latent_channels=4,
        norm_num_groups=4,
    )
    unet = UNet(
        in_channels=13,
        out_channels=4,
        block_out_channels=(32, 64),
        attention_levels=(False, True),
        layers_per_block=1,
        norm_num_groups=8,
        cross_attention_dim=80,
        num_attention_heads=2,
    )
    return LipSyncModel(
        unet=unet.eval(),
        codec=LatentCodec(vae),
        audio_encoder=MelAudioEncoder(),
        process=DDPM(DDIMScheduler(prediction_type="sample", clip_sample=False)),
        model_format=ModelFormat(resolution=RESOLUTION, audio_before=2, audio_after=2),
    )


def config_for(test_set: Path, networks: Path, *more: str) -> DictConfig:
    overrides = [
        f"ckpt={networks / 'model'}",
        f"paths.demo_model={networks / 'model'}",
        f"test_set={test_set}",
        f"num_clips={NUM_CLIPS}",
        "evaluator.mesh=false",
        "max_frames=24",
        "sampler.num_steps=2",
        "sampler.guidance_scale=1.0",
        "device=cpu",
    ]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("evaluate", [*overrides, *more])


def test_a_model_on_drawn_clips(test_set: Path, networks: Path, tmp_path: Path):
    run(config_for(test_set, networks, f"out={tmp_path}"))
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    rows = metrics["rows"]
    assert list(rows) == [
        "ground truth",
        "model, own voice",
        "model, another's voice",
        "copied source",
        "shuffled audio",
    ]
    assert all(row["num_clips"] == NUM_CLIPS for row in rows.values())
    # A face copied from the source speaks like it, and an unchanged one is only encoded.
    assert rows["copied source"]["leak"] == pytest.approx(rows["ground truth"]["r_open"], abs=1e-6)
    assert rows["ground truth"]["psnr_inside"] > 30
    assert rows["model, own voice"]["psnr_outside"] > rows["model, own voice"]["psnr_inside"] + 10
    assert rows["ground truth"]["flicker"] == pytest.approx(1, abs=0.1)
    # With another's speech there is no ground truth inside the mask.
    assert "psnr_inside" not in rows["model, another's voice"]
    head, _, first, *_ = (tmp_path / "table.md").read_text().splitlines()
    assert head.split(" | ")[1:] == [*list(rows)[:-1], "shuffled audio |"]
    assert first.startswith("| r(open) | ")
    sheet = cv2.imread(str(tmp_path / "sheet.png"))
    assert sheet.shape == (6 * 128, NUM_CLIPS * 128, 3)
    assert probe(tmp_path / "strip.mp4").has_audio
    assert len(list((tmp_path / "videos" / "swapped").glob("*.mp4"))) == NUM_CLIPS


def test_the_judge_scores_equal_pictures_as_equal(test_set: Path, networks: Path):
    config = config_for(test_set, networks)
    evaluator = build_evaluator(config, tiny_model().format, build_metrics(config))
    example = load_example(read_manifest(test_set)[0], resolution=RESOLUTION, max_frames=40)
    reading = evaluator.read(example.faces)
    assert reading.shape == (40, 4)
    torch.testing.assert_close(evaluator.read(example.faces[10:20]), reading[10:20])
    first, again = (
        score_of(evaluator.sync_cosines(example.faces, example.voice.mel)) for _ in range(2)
    )
    assert first == again
    assert -1 <= first.score <= 1


def test_networks_that_are_null_leave_their_columns_out(
    test_set: Path, networks: Path, tmp_path: Path
):
    config = config_for(
        test_set, networks, "evaluator.reader=null", "evaluator.syncnet=null", "max_frames=4"
    )
    config.out = str(tmp_path)
    run(config)
    row = json.loads((tmp_path / "metrics.json").read_text())["rows"]["ground truth"]
    assert "r_open" not in row
    assert "sync" not in row
    assert row["psnr_inside"] > 30


class SeesTheMouth(FaceDetector):
    """Mesh points as in every test frame, with the lips at the edges of the white bar."""

    def __call__(self, frame: np.ndarray) -> list[Face]:
        points = np.zeros((468, 2))
        for index, point in zip(LANDMARKS, POINTS, strict=True):
            points[index] = point
        points[33], points[263] = (20.0, 25.0), (44.0, 25.0)
        points[61], points[291] = (24.0, 50.0), (40.0, 50.0)
        white = np.flatnonzero(frame[:, 32].mean(axis=-1) > 128)
        if not len(white):
            return []
        points[13], points[14] = (32.0, white[0]), (32.0, white[-1])
        return [Face(np.array([16.0, 16, 48, 60]), points, 1.0, "mesh")]

    def refine(self, frame: np.ndarray, face: Face) -> Face | None:
        return next(iter(self(frame)), None)


def write_bar(
    path: Path, heights: list[int], *, fps: float = 25, size: int = 64, crf: int = 4
) -> None:
    """A grey video with a white bar of the given heights, starting at row 40."""
    path.parent.mkdir(exist_ok=True)
    with VideoWriter(path, fps=fps, width=size, height=size, crf=crf) as writer:
        for height in heights:
            frame = np.full((size, size, 3), 100, dtype=np.uint8)
            frame[40 : 40 + height, 20:44] = 255
            writer.write(frame)


SPEECH = [2 + index * 5 % 12 for index in range(30)]


def by_landmarks() -> Evaluator:
    return Evaluator(ModelFormat(resolution=64), None, None, SeesTheMouth())


def compared(pred: Path, ref: Path) -> Comparison:
    metrics = {
        "landmarks": LandmarkCorrelation(),
        "inside": MaskedPSNR("inside"),
        "outside": MaskedPSNR("outside"),
    }
    comparison = Comparison(metrics, by_landmarks())
    for result in compare_folders(pred, ref, evaluator=by_landmarks(), max_frames=100):
        comparison.add(result)
    return comparison


def test_folders_of_videos_against_each_other(tmp_path: Path):
    for folder, heights in {
        "ref": SPEECH,
        "pred": SPEECH,
        "mirror": [16 - height for height in SPEECH],
    }.items():
        write_bar(tmp_path / folder / "one.mp4", heights)
    same, opposite = (
        compared(tmp_path / folder, tmp_path / "ref").rows["pred"].summary()
        for folder in ("pred", "mirror")
    )
    assert same["r_open_mesh"] == pytest.approx(1)
    assert same["mesh_seen"] == 1
    assert opposite["r_open_mesh"] == pytest.approx(-1)
    # The bar is inside the mask, the rest of the frame is the same.
    assert opposite["psnr_inside"] + 10 < opposite["psnr_outside"]


@pytest.mark.parametrize("odd", ["ref", "pred"])
def test_an_odd_video_is_compared_with_its_even_result(tmp_path: Path, odd: str):
    """A result in 4:2:0 repeats its last column and row."""
    for folder in ("ref", "pred"):
        path = tmp_path / folder / "one.mp4"
        write_bar(path, SPEECH, size=63, crf=0 if folder == odd else 4)
        assert probe(path).width == (63 if folder == odd else 64)
    comparison = compared(tmp_path / "pred", tmp_path / "ref")
    assert not comparison.failed
    measured = comparison.rows["pred"].summary()
    assert measured["r_open_mesh"] == pytest.approx(1)
    assert measured["psnr_outside"] > 40


def test_equal_videos_have_a_number_in_the_mean(tmp_path: Path):
    for folder in ("pred", "ref"):
        write_bar(tmp_path / folder / "same.mp4", SPEECH)
        write_bar(tmp_path / folder / "other.mp4", SPEECH if folder == "ref" else SPEECH[::-1])
    inside = compared(tmp_path / "pred", tmp_path / "ref").rows["pred"].metrics["inside"]
    both = inside.table().flatten().tolist()
    assert sorted(both) == [pytest.approx(min(both)), 100]
    assert min(both) < 40


def write_half(path: Path) -> None:
    """A video whose second half is lost."""
    write_bar(path, SPEECH)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_of_two_lengths_what_both_show_is_compared_and_said(tmp_path: Path) -> None:
    write_bar(tmp_path / "ref" / "a.mp4", SPEECH)
    write_bar(tmp_path / "pred" / "a.mp4", SPEECH[:12])
    comparison = compared(tmp_path / "pred", tmp_path / "ref")
    assert comparison.num_measured == 1
    (note,) = comparison.notes["length"]
    assert "only what both show is compared" in note
    folders = tmp_path / "pred", tmp_path / "ref"
    (measured,) = compare_folders(*folders, evaluator=by_landmarks(), max_frames=100)
    assert len(measured.samples["pred"]["lips"]) == 12


# Defects of one of many pairs: how they are made, in the results; what is reported.
SPOILED: dict[str, tuple[Callable[[Path], object], str]] = {
    "blank.mp4": (lambda path: write_bar(path, [0] * 30), "pred/blank.mp4"),
    "faceless.mp4": (lambda path: write_bar(path, [0] * 30), "no face found in any of 24 frames"),
    "text.mp4": (lambda path: path.write_text("no video\n" * 99), "cannot be opened as video"),
    "cut.mp4": (write_half, "is damaged"),
    "empty.mp4": (lambda path: path.touch(), "is empty"),
    "large.mp4": (lambda path: write_bar(path, SPEECH, size=96), "is 96x96, but"),
    "pipe.mp4": (os.mkfifo, "is no regular file"),
    "nowhere.mp4": (lambda path: path.symlink_to("nothing"), "is no regular file"),
    "lonely.mp4": (lambda path: write_bar(path, SPEECH), "there is no reference of this name"),
}


def compare_command(tmp_path: Path, networks: Path, *more: str) -> None:
    overrides = [
        f"pred={tmp_path / 'pred'}", f"ref={tmp_path / 'ref'}", f"out={tmp_path / 'out'}",
        "compare.resolution=64",
        "evaluator.reader=null", "evaluator.syncnet=null", "evaluator.mesh=true",
        "~faces", "+faces._target_=smoke.test_evaluate.SeesTheMouth",
    ]  # fmt: skip
    run(config_for(tmp_path, networks, *overrides, *more))


def test_one_bad_pair_is_a_line_and_the_others_are_measured(
    tmp_path: Path, networks: Path, caplog: pytest.LogCaptureFixture
):
    write_bar(tmp_path / "pred" / "good.mkv", SPEECH)
    write_bar(tmp_path / "ref" / "good.mp4", SPEECH)
    # Other files next to the videos.
    for name in ("._good.mp4", "good.report.json", "notes.txt"):
        (tmp_path / "pred" / name).write_text("Mac OS X")
    for name, (spoil, _) in SPOILED.items():
        spoil(tmp_path / "pred" / name)
        if name != "lonely.mp4":
            write_bar(tmp_path / "ref" / name, [0] * 30 if name == "faceless.mp4" else SPEECH)
    write_bar(tmp_path / "ref" / "gone.mp4", SPEECH)
    with caplog.at_level("INFO"), pytest.raises(ValueError, match="10 of 11 pairs could not be"):
        compare_command(tmp_path, networks)
    lines = (tmp_path / "out" / "pairs.jsonl").read_text().splitlines()
    rows = {row["pred"]: row for row in map(json.loads, lines)}
    assert rows.keys() == {"good.mkv", "gone.mp4", *SPOILED}
    assert "has no result for it" in rows["gone.mp4"]["failed"]
    for name, (_, reason) in SPOILED.items():
        assert reason in rows[name]["failed"]
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["rows"]["pred"]["num_clips"] == metrics["rows"]["ref"]["num_clips"] == 1
    assert metrics["rows"]["pred"]["psnr_inside"] == 100
    assert {row["pred"] for row in metrics["failed"]} == {"gone.mp4", *SPOILED}
    assert "PSNR inside" in (tmp_path / "out" / "table.md").read_text()
    assert "pictures and videos" not in caplog.text  # there are none


def test_a_method_is_compared_with_an_earlier_one_clip_by_clip(tmp_path: Path, networks: Path):
    blurs = {"one": 2, "two": 3, "three": 4}
    for name, size in blurs.items():
        blurred(tmp_path / "ref" / f"{name}.mp4", 1)
        blurred(tmp_path / "pred" / f"{name}.mp4", size)
    compare_command(tmp_path, networks)
    first = (tmp_path / "out" / "metrics.json").read_text()
    compare_command(tmp_path, networks, f"out={tmp_path / 'again'}")
    assert (tmp_path / "again" / "metrics.json").read_text() == first
    span = json.loads(first)["intervals"]["pred"]["psnr_inside"]
    assert span["low"] < json.loads(first)["rows"]["pred"]["psnr_inside"] < span["high"]
    assert (span["num_clips"], span["num_speakers"]) == (3, 3)
    # The sharper method is as the reference: 100 dB.
    for name in blurs:
        blurred(tmp_path / "pred" / f"{name}.mp4", 1)
    against = f"against={tmp_path / 'out'}"
    compare_command(tmp_path, networks, f"out={tmp_path / 'sharp'}", against)
    metrics = json.loads((tmp_path / "sharp" / "metrics.json").read_text())
    found = metrics["differences"]["rows"]["pred"]["psnr_inside"]
    before = json.loads(first)["rows"]["pred"]["psnr_inside"]
    assert found["difference"] == pytest.approx(100 - before)
    assert 0 < found["low"] <= found["high"]
    assert found["p_value"] == 2 / 2**3
    assert "minus out" in (tmp_path / "sharp" / "table.md").read_text()
    with pytest.raises(ValueError, match="measured with max_frames=24, this with max_frames=12"):
        compare_command(tmp_path, networks, f"out={tmp_path / 'x'}", against, "max_frames=12")


@pytest.mark.parametrize(
    ("names", "message"),
    [([], "holds no file"), (["._a.mp4"], "holds no file"), (["a.txt"], r"namesake .*a\.txt")],
)
def test_folders_that_do_not_match_leave_nothing(
    tmp_path: Path, networks: Path, names: list[str], message: str
):
    write_bar(tmp_path / "ref" / "b.mp4", SPEECH)
    (tmp_path / "pred").mkdir()
    for name in names:
        (tmp_path / "pred" / name).write_text("Mac OS X")
    with pytest.raises((FileNotFoundError, ValueError), match=message):
        compare_command(tmp_path, networks)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("pred_fps", "ref_fps", "warned"),
    [(30, 25, True), (25, 30, True), (50, 25, True), (25, 25, False), (30000 / 1001, 30, False)],
)
def test_two_rates_are_compared_by_time_and_said(
    tmp_path: Path, pred_fps: float, ref_fps: float, warned: bool
):
    # One second of a bar that grows evenly.
    for folder, fps in (("pred", pred_fps), ("ref", ref_fps)):
        write_bar(
            tmp_path / folder / "a.mp4", [1 + int(20 * n / fps) for n in range(round(fps))], fps=fps
        )
    comparison = compared(tmp_path / "pred", tmp_path / "ref")
    assert ("rate" in comparison.notes) is warned
    # Paired by number, 30 fps would be a sixth of a second late after one second: a large
    # difference.
    folders = tmp_path / "pred", tmp_path / "ref"
    (measured,) = compare_folders(*folders, evaluator=by_landmarks(), max_frames=100)
    sample = measured.samples["pred"]
    pred, ref = sample["landmarks"], sample["driving_landmarks"]
    assert len(pred) == 25
    assert (pred - ref)[:, 0].abs().max() <= 1.5 / 12  # about a row of the mouth, in its own unit


def test_a_pair_too_short_for_sync_is_measured_all_the_same(tmp_path: Path, networks: Path):
    for folder in ("pred", "ref"):
        write_bar(tmp_path / folder / "brief.mp4", SPEECH[:10])
        write_bar(tmp_path / folder / "long.mp4", SPEECH)
    compare_command(tmp_path, networks, f"evaluator.syncnet={networks / 'model' / 'syncnet'}")
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["pairs"] == 2
    assert metrics["notes"] == ["no sync: it needs 16 frames or more, got 10"]


def test_every_speaker_before_anybody_twice(tmp_path: Path):
    def clip(source: str, part: int) -> Clip:
        path = tmp_path / f"{source}{part}.mp4"
        return Clip(path, path, None, 50, source, 0, 64, 25.0)

    clips = [clip(source, part) for source in "abcd" for part in range(3)]
    chosen = choose_clips(clips, 6, seed=0)
    assert {clip.source for clip in chosen[:4]} == set("abcd")
    assert len({clip.path for clip in chosen}) == 6
    with pytest.raises(ValueError, match="got num_clips=6 of 2 speakers"):
        choose_clips(clips[:6], 6, seed=0)


def test_a_driver_is_always_somebody_else(test_set: Path):
    clips = read_manifest(test_set)
    examples = [load_example(clip, resolution=RESOLUTION, max_frames=20) for clip in clips]
    for index, example in enumerate(examples):
        driver = choose_driver(examples, index, besides={example.source})
        assert examples[driver].source != example.source
    with pytest.raises(ValueError, match="no voice of another speaker"):
        choose_driver(examples, 0, besides={example.source for example in examples})


PAGE = Path(__file__).parents[2] / "docs" / "extending.md"
FILE = re.compile(r"```(?:python|yaml)\n# (\S+)\n(.*?)```", re.DOTALL)


def blurred(path: Path, size: int) -> None:
    """Stripes, averaged over `size` neighbouring pixels."""
    path.parent.mkdir(exist_ok=True)
    stripes = np.full((64, 64, 3), 40, np.uint8)
    stripes[:, ::8] = 200
    stripes[:, 1::8] = 200
    with VideoWriter(path, fps=25, width=64, height=64, crf=4) as writer:
        for _ in range(20):
            frame = cv2.blur(stripes, (size, 1))
            frame[40:52, 20:44] = 255  # the bar that the detector looks for
            writer.write(frame)


def test_the_metric_of_the_page_is_a_class_and_a_file(
    tmp_path: Path, networks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chapter = PAGE.read_text(encoding="utf-8").split("## A metric\n")[1].split("\n## ")[0]
    for name, content in FILE.findall(chapter):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    words = re.findall(r"'(~?metrics[^']*)'", chapter)
    assert words == ["metrics=[default,sharpness]", "~metrics.leak"]
    for name in ("same", "soft"):
        blurred(tmp_path / "ref" / f"{name}.mp4", 1)
        blurred(tmp_path / "pred" / f"{name}.mp4", 4 if name == "soft" else 1)
    conf = f"hydra.searchpath=['file://{tmp_path / 'my_conf'}']"
    compare_command(tmp_path, networks, conf, *words)
    lines = (tmp_path / "out" / "pairs.jsonl").read_text().splitlines()
    rows = {row["pred"]: row["rows"]["pred"] for row in map(json.loads, lines)}
    # Each edge is as high and four times as wide: the same sum of differences relative to its
    # height.
    same, soft = (rows[f"{name}.mp4"]["sharpness"] for name in ("same", "soft"))
    assert same == 1
    assert soft < 0.8
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["rows"]["pred"]["sharpness"] == pytest.approx((same + soft) / 2)
    table = (tmp_path / "out" / "table.md").read_text()
    assert "| sharpness, truth 1 | " in table
    assert "| sharpness | ratio | 1 | 0 | inf | my paper |" in table
    # What cannot be measured on videos, or was not requested, and why.
    assert metrics["not_measured"].keys() == {
        "traits", "sync", "closed_in_silence", "leak_mesh", "leak_share", "leak_share_mesh",
        "same_face", "csim", "csim_other",
    }  # fmt: skip
    assert "evaluator.syncnet is null" in metrics["not_measured"]["sync"]
    assert "no drawn truth" in metrics["not_measured"]["traits"]


class NeedsSmell(MaskedPSNR):
    def __init__(self) -> None:
        super().__init__("inside")
        self.needs = frozenset({"pixels", "smell"})


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ({"mine": NeedsSmell()}, "metrics.mine needs smell, which no clip is given with; there"),
        ({"mine": torch.nn.Identity()}, "metrics.mine is a Identity: a metric is a torchmetrics"),
        ({"mine": MeanMetric()}, "metrics.mine is a MeanMetric: a metric is a torchmetrics"),
        (
            {"one": MaskedPSNR("inside"), "two": MaskedPSNR("inside")},
            "metrics.one and metrics.two both have 'psnr_inside'",
        ),
    ],
)
def test_a_metric_that_cannot_be_is_refused_before_anything_is_measured(
    metrics: dict, message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        check_metrics(metrics)


def test_every_figure_lies_where_it_says(test_set: Path, networks: Path, tmp_path: Path) -> None:
    config = config_for(test_set, networks, f"out={tmp_path}", "~metrics.sync")
    metrics = build_metrics(config)
    # SyncNet is not even loaded: nothing needs it.
    assert build_evaluator(config, tiny_model().format, metrics).syncnet is None
    run(config)
    rows = json.loads((tmp_path / "metrics.json").read_text())["rows"]
    assert all("sync" not in row for row in rows.values())
    figures = {figure.key: figure for figure in figures_of(metrics)}
    for row in rows.values():
        assert row.keys() - figures.keys() == {"num_clips"}
        for key in row.keys() & figures.keys():
            if row[key] is not None:
                assert figures[key].low <= row[key] <= figures[key].high, key


def test_the_ablation_measures_a_model_and_its_bounds(
    test_set: Path, networks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(__file__).parents[2] / "experiments" / "ablation" / "measure.py"
    spec = importlib.util.spec_from_file_location("ablation_measure", path)
    measure = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, measure)
    spec.loader.exec_module(measure)
    bench = measure.Bench(test_set, RESOLUTION)
    figures = bench.measure(networks / "model", 1.0, "previous")
    assert figures.keys() == {
        "r_open", "r_width", "sync", "sync_confidence", "in_over_off", "leak", "flicker",
    }  # fmt: skip
    truth, copied = bench.bounds(networks / "model").values()
    assert truth["num_clips"] == copied["num_clips"] == NUM_CLIPS
    # Only the truth has pictures to compare, and only the copy another's voice.
    assert "psnr_inside" in truth
    assert "psnr_inside" not in copied
    assert copied["leak"] > copied["r_open"]
