"""Commands without required values: all of them reported in one line, with status 2."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from latentsync.cli import doctor, synthesize
from latentsync.cli.command import conf_dir
from latentsync.cli.entry import evaluate, infer, prepare, train
from latentsync.cli.missing import experiments, missing_values

ROOT = Path(__file__).parents[2]
QUIET = ("hydra/job_logging=none", "hydra/hydra_logging=none")
MANIFESTS = ("data.train_manifest", "data.val_manifest")
STAGE2 = (*MANIFESTS, "stage1", "syncnet")
# Required values of each experiment; those with none use the synthetic data.
NEEDED: dict[str, tuple[str, ...]] = {
    "adapt": ("video",),
    "adapt_24gb": ("video",),
    "autoencoder": MANIFESTS,
    "autoencoder_decoder": (*MANIFESTS, "vae"),
    "syncnet": MANIFESTS,
    "syncnet_25": MANIFESTS,
    "syncnet_latent": MANIFESTS,
    "syncnet_plain": MANIFESTS,
    "unet_stage1": (*MANIFESTS, "vae", "whisper"),
    "unet_stage1_512": (*MANIFESTS, "vae", "whisper"),
    "unet_stage2": STAGE2,
    "unet_stage2_16gb": (*STAGE2, "tiny_vae"),
    "unet_stage2_24gb": STAGE2,
    "unet_stage2_512": STAGE2,
    "unet_stage2_efficient": STAGE2,
    "demo/adapt": ("video",),
    "demo/adapt_base": (),
    "demo/adapt_stage2": ("stage1",),
    "demo/adapt_vae": (),
    "demo/autoencoder": (),
    "demo/mouth_reader": (),
    "demo/syncnet": (),
    "demo/unet_stage1": ("vae",),
    "demo/unet_stage2": ("stage1", "syncnet"),
}


@pytest.fixture
def start(tmp_path, monkeypatch, capsys) -> Callable[..., tuple[int, str]]:
    """Runs a command in an empty folder; returns its exit status and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)

    def start(main: Callable[[], None], *words: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["command", *words, *QUIET])
        with pytest.raises(SystemExit) as end:
            main()
        return int(end.value.code or 0), capsys.readouterr().err

    return start


def named(line: str) -> set[str]:
    return set(re.findall(r"(?<![\w=])([\w.]+)=(?=[ ,\n])", line))


def test_every_experiment_is_in_the_table():
    assert set(experiments(conf_dir())) == set(NEEDED)


@pytest.mark.parametrize("experiment", NEEDED)
def test_an_experiment_says_in_one_line_all_that_it_needs(start, experiment: str):
    status, line = start(train, f"experiment={experiment}")
    assert (status, line.count("\n")) == (2, 1)
    if NEEDED[experiment]:
        assert line.startswith(f"error: experiment={experiment} needs ")
        assert named(line) == set(NEEDED[experiment])
        assert line.count("= (") == len(NEEDED[experiment]), "each with a word on what it is"
    else:
        own = "read" if experiment == "demo/adapt_base" else "drawn"
        assert f"data/{own}/train" in line


def test_at_full_size_a_speaker_is_learned_by_a_model_that_is_given(start, tmp_path):
    (tmp_path / "me.mp4").write_bytes(b"a video")
    status, line = start(train, "experiment=adapt", "video=me.mp4")
    assert (status, line) == (
        2, "error: ckpt= must be given: the folder of the model to begin with\n"
    )  # fmt: skip


def test_what_is_given_is_not_asked_for(start):
    words = ("experiment=unet_stage2", "syncnet=s", "data.train_manifest=a")
    _, line = start(train, *words)
    assert named(line) == {"stage1", "data.val_manifest"}
    assert "stage1= (the folder unet_stage1 wrote)" in line
    _, line = start(train, "experiment=unet_stage2_512", *words[1:])
    assert "stage1= (the folder unet_stage1_512 wrote)" in line


@pytest.mark.parametrize("words", [(), ("-m",), ("seed=3",)])
def test_without_an_experiment_all_are_listed_with_a_word_on_each(start, words):
    status, told = start(train, *words)
    first, *lines = told.splitlines()
    assert (status, first) == (2, "error: experiment= must be given; there are:")
    assert [line.split()[0] for line in lines] == list(experiments(conf_dir()))
    assert all(len(line.split()) > 5 for line in lines)


def test_the_command_itself_says_so_too(tmp_path: Path):
    command = [sys.executable, str(ROOT / "train.py")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 + len(NEEDED)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("main", "words", "missing"),
    [
        (prepare, (), {"input", "output"}),
        (prepare, ("input=a",), {"output"}),
        (prepare, ("stage=latents",), {"output", "vae"}),
        (prepare, ("stage=features",), {"output"}),
        (
            prepare,
            ("stage=features", "audio_encoder=whisper"),
            {"output", "whisper"},
        ),
        (synthesize.main, (), {"output"}),
        (infer, ("faces=fixed",), {"faces.points"}),
        (evaluate, ("audio_encoder=whisper",), {"whisper"}),
        (doctor.main, ("experiment=syncnet",), set(MANIFESTS)),
        (train, ("-m", "experiment=unet_stage2,syncnet"), {"name"}),
    ],
)
def test_other_commands_say_it_in_one_line(start, tmp_path: Path, main, words, missing):
    status, line = start(main, *words)
    assert (status, line.count("\n")) == (2, 1)
    assert named(line.removeprefix("error: experiment=syncnet needs")) == missing
    # Hydra records the overrides before a run begins.
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path for path in left if path.parent.name != ".hydra"] == []


def test_experiments_that_are_not_there_list_all_of_them(start):
    status, line = start(train, "experiment=nope")
    assert (status, line.count("\n")) == (2, 1)
    assert set(re.findall(r"[\w/]+", line.split("there are: ")[1])) == set(NEEDED)
    assert "; unet_stage1, unet_stage1_512, unet_stage2" in line


def test_what_nobody_reads_is_not_missing():
    config = OmegaConf.create(
        {"used": {"a": "${one}/x", "b": {"c": "${..d}", "e": "${g}"}, "d": "${two.three}"}}
        | {"one": "???", "two": {"three": "???", "four": "???"}, "g": {"h": "???"}, "idle": "???"}
    )
    assert missing_values(config, ["used"]) == ["one", "two.three", "g.h"]
