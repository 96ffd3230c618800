"""Every command in README.md and docs/ runs as documented, on tiny files with the names it uses.

A command runs in a folder where every name of the documentation (RAW, VAE, in.mp4, data/my_set) is
a small file or folder. Overrides that make networks tiny are added; only optional ones in
[brackets] are removed. Commands that cannot run here are listed with the reason.
"""

import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import pytest
import torch
import torchvision
from hydra import compose, initialize_config_dir

from latentsync.cli.command import conf_dir, register_resolvers
from latentsync.cli.names import as_typed
from latentsync.data.synthetic import render_clip
from latentsync.faces.detectors.model_files import default_cache
from latentsync.media.audio import SAMPLE_RATE, read_waveform, write_wav
from latentsync.prepare import encode_latents
from losses.published import published_state
from official.recipe import official_shapes, recipe_value
from smoke.tiny import POINTS, SYNCNETS, TINY_STAGE1, TINY_UNET
from smoke.tiny import run as train_experiment
from weights.published import write_published

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
OPTIONAL = re.compile(r"(?<=\s)\[[^\]]*\]")
FACES = ["faces=fixed", f"faces.points={POINTS}".replace(" ", "")]
FACE_MODELS = default_cache()  # before tests have a cache of their own

# By prefix; overrides of composed commands are at least checked against conf/.
NOT_RUN = {
    "make demo": "sets a new environment up; test_infer.py runs what it runs then",
    "make test": "runs this test",
    "make train-demo": "takes hours; test_train.py runs each of its trainings",
    "pip install": "asks a package index",
    "aws s3 sync": "asks a cloud",
    "python app.py": "serves until it is interrupted; test_app.py asks it",
    "python -m latentsync.weights fetch": "asks the hub; tests/weights/test_fetch.py",
    "python bench/bench_wild.py": "wants labelled clips; tests/wild asks its arithmetic",
    "PYTHONPATH=.": "wants the files that the page shows; tests/conf/test_extending.py makes them",
    "python bench/memory_table.py": "traces networks of full size for minutes",
}
COMPOSED = {
    "experiment=demo/adapt": "wants a minute of speech; test_adapt.py runs it on a few seconds",
    "ckpt=experiments/demo/adapt": "wants what the command above it made",
    "s3://": "asks a cloud; tests/data/test_remote.py reads sets from other stores",
    "ckpt=hf:": "asks the hub; tests/weights/test_fetch.py",
    "syncnet_v2=": "wants published weights; test_lse.py runs it with files of random ones",
    "evaluate.py benchmark=": "wants a prepared set and other programs; test_benchmark.py runs it",
    "prepare=voxceleb2": "wants VoxCeleb2",
    "prepare=hdtf": "wants the videos of HDTF; tests/prepare/test_lists.py prepares such a list",
    "prepare=own_footage": "wants a folder per speaker",
    "torchrun": "wants two machines of eight GPUs",
    "srun": "wants a cluster",
    "=registered": "wants a package that brings a part; test_extending.py installs one",
}
# Take minutes in total.
SLOW = (
    "evaluate.py", "infer.py", "-m experiment", "sweep=", "hparams_search=", "overfit", "doctor",
    "--cfg", "unet_stage2",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Documented:
    """A command, and the file that documents it."""

    file: str
    text: str

    def __str__(self) -> str:
        return f"{self.file}: {self.text}"


def fenced(language: str) -> Iterator[tuple[str, str]]:
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        for kind, body in FENCE.findall(path.read_text()):
            if kind == language and not body.startswith("prepare.py train.py"):  # a list of files
                yield path.name, body


def documented() -> list[Documented]:
    """All commands, each once, without continuation lines and comments."""
    commands = (
        Documented(name, re.sub(r"\s+", " ", line.split(" # ")[0]).strip())
        for name, body in fenced("")
        for line in body.replace("\\\n", " ").splitlines()
        if line.strip() and not line.startswith("#")
    )
    return list({command.text: command for command in reversed(list(commands))}.values())[::-1]


def chosen(kind: str) -> list:
    """The commands that are run, composed or omitted."""
    parameters = []
    for command in documented():
        listed = any(command.text.startswith(start) for start in NOT_RUN)
        composed = any(part in command.text for part in COMPOSED)
        if kind == ("listed" if listed else "composed" if composed else "run"):
            marks = [pytest.mark.slow] if any(part in command.text for part in SLOW) else []
            parameters.append(pytest.param(command, id=str(command), marks=marks))
    return parameters


@pytest.fixture(scope="module")
def files(
    work: Path, syncnet_run: Path, stage1_run: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A file or folder for every name in the documentation."""
    folder = tmp_path_factory.mktemp("names")
    for name, seed in (("in", 1), ("other", 2)):
        render_clip(folder / name, seed=seed, seconds=1.0, size=128)
    # A single chunk: the commands of version 1.6 generate it at 512 px.
    write_wav(folder / "voice.wav", read_waveform(folder / "other.mp4")[: SAMPLE_RATE // 2])
    (folder / "list.csv").write_text("video,audio,out\nin.mp4,voice.wav,of_list.mp4\n")
    (folder / "talk.rttm").write_text("SPEAKER talk 1 0.0 0.8 <NA> <NA> 0 <NA> <NA>\n")
    torch.save(published_lr_asd(), folder / "pretrain_AVA.model")
    for name in ("a.mp4", "b.mp4"):
        (folder / name).symlink_to(folder / "in.mp4")
    for name in ("results", "references"):
        (folder / name).mkdir()
        (folder / name / "a.mp4").symlink_to(folder / "in.mp4")
    shutil.copytree(work / "set", folder / "SET", ignore=shutil.ignore_patterns("latents"))
    encode_latents(folder / "SET", work / "sd_vae")
    write_published(folder / "checkpoints")
    vgg = torchvision.models.vgg16(weights=None).state_dict()
    torch.save({name: vgg[name] for name in vgg if "features" in name}, folder / "VGG")
    mae = {"module": published_state(torch.Generator().manual_seed(0))}
    torch.save(mae, folder / "VIDEOMAE")
    sets = [f"data.{part}_manifest='{folder / 'SET'}'" for part in ("train", "val")]
    files = [f"vae='{work / 'sd_vae'}'", f"whisper='{work / 'whisper'}'"]
    stage1 = train_experiment(work, "unet_stage1", "documented", *TINY_STAGE1, *sets, *files)
    named = {
        "RAW": work / "raw", "data/raw": work / "raw", "WHISPER": work / "whisper",
        "VAE": work / "sd_vae", "sd-vae-ft-mse": work / "sd_vae",
        "FOLDER": stage1_run / "model", "RUN": stage1_run, "STAGE1": stage1,
        "SYNCNET": syncnet_run, "FILE": folder / "checkpoints" / "latentsync_unet.pt",
    }  # fmt: skip
    (folder / "data").mkdir()
    for name, path in named.items():
        (folder / name).symlink_to(path)
    return folder


def published_lr_asd() -> dict[str, torch.Tensor]:
    """In the layout of LR-ASD's files; everybody counts as speaking."""
    shapes = official_shapes("lr_asd")
    state = {
        name: recipe_value(name, shape) if shape else torch.tensor(0)
        for name, shape in shapes.items()
    }
    return state | {"lossAV.FC.bias": torch.tensor([-3.0, 3.0])}


@pytest.fixture
def place(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A separate folder with all the names, and copies of what commands modify."""
    cache = tmp_path / "cache" / "latentsync"
    cache.mkdir(parents=True)
    if FACE_MODELS.is_dir():
        (cache / "faces").symlink_to(FACE_MODELS)
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache.parent))
    here = tmp_path / "here"
    (here / "data").mkdir(parents=True)
    (here / "models").mkdir()
    for path in files.iterdir():
        if path.name != "data":
            (here / path.name).symlink_to(path)
    (here / "data" / "raw").symlink_to(files / "data" / "raw")
    for name in ("my_set", "my_val"):
        shutil.copytree(files / "SET", here / "data" / name)
    monkeypatch.chdir(here)
    return here


def typed(text: str) -> list[str]:
    """The words of a command; NAME becomes one of the experiments, placeholders are removed."""
    text = OPTIONAL.sub("", text).replace("experiment=NAME", "experiment=demo/autoencoder")
    # In double quotes a shell removes a backslash before a dollar; shlex does not.
    words = [word.replace("\\$", "$") for word in shlex.split(text)]
    return [word for word in words if not word.endswith("...")]


def made_tiny(program: str, words: list[str]) -> list[str]:
    """Overrides that make it fast."""
    if program in ("train.py", "latentsync.cli.doctor"):
        return tiny_training(words)
    if program == "infer.py":
        tiny = ["device=cpu", "cache=false", "faces.min_size=0", "sampler.num_steps=1"]
        tiny += [] if "faces.select=speaker" in words else FACES
        return tiny if any(word.startswith("ckpt=") for word in words) else [*tiny, "ckpt=FOLDER"]
    if program == "prepare.py":
        return [*FACES, "executor=serial", "progress=false"]
    if program == "latentsync-synthesize":
        return ["num_speakers=1", "seconds=1", "size=64", "progress=false"]
    if program == "evaluate.py":
        small = ["ckpt=FOLDER", "num_clips=3", "max_frames=24", "sampler.num_steps=1", "device=cpu"]
        world = [f"world.{word}" for word in ("num_speakers=3", "seconds=2.2", "size=128")]
        return [*small, *world, "executor=serial", "progress=false"]
    return []


def tiny_training(words: list[str]) -> list[str]:
    experiment = next(word.split("=")[1] for word in words if word.startswith("experiment="))
    given = {word.split("=")[0] for word in words}
    added = [] if any(word.startswith("+debug=") for word in words) else ["+debug=tiny"]
    added += [
        f"data.{part}_manifest=SET"
        for part in ("train", "val")
        if f"data.{part}_manifest" not in given
    ]
    if experiment == "unet_stage1":
        added += TINY_UNET
    if experiment == "demo/autoencoder":
        added += ["task.vae.block_out_channels=[8,8,8]", "trainer.max_steps=2"]
    if "syncnet" in experiment:
        added += ["data.train.windows_per_clip=2"]
        added += SYNCNETS.get(experiment, [])
    if "hparams_search" in given:
        added += ["hydra.sweeper.n_trials=2"]
    return added


def run(program: str, words: list[str]) -> None:
    """Run a command in this process; it may exit with status 0."""
    module = {
        "latentsync-synthesize": "latentsync.cli.synthesize",
        "latentsync.data": "latentsync.data.__main__",
        "latentsync.weights": "latentsync.weights.__main__",
    }.get(program, program)
    name = "main"
    if program.endswith(".py"):
        module, name = "latentsync.cli.entry", program.removesuffix(".py")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [program, *words])
        try:
            getattr(import_module(module), name)()
        except SystemExit as ended:
            assert not ended.code


def split(words: list[str]) -> tuple[str, list[str], str | None]:
    """The program, its own arguments, and the file to which its output is redirected."""
    target = None
    if ">" in words:
        *words, _, target = words
    if words[:2] == ["python", "-m"]:
        return words[2], words[3:], target
    return (words[1], words[2:], target) if words[0] == "python" else (words[0], words[1:], target)


@pytest.mark.filterwarnings("default")  # from libraries, about two steps on two clips
@pytest.mark.parametrize("command", chosen("run"))
def test_it_runs_as_it_stands(
    command: Documented, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program, words, target = split(typed(command.text))
    if program == "evaluate.py" or "faces.select=speaker" in words:
        needs_mesh()
    if "input" in {word.split("=")[0] for word in words}:
        shutil.rmtree(place / "data" / "my_set")
    if "output=data/raw" in words:
        (place / "data" / "raw").unlink()
    before(words, place, capsys)
    capsys.readouterr()
    # Hydra accepts no overrides after a flag.
    flag = next((place for place, word in enumerate(words) if word.startswith("--")), len(words))
    run(program, [*words[:flag], *made_tiny(program, words), *words[flag:]])
    said = capsys.readouterr().out
    if target:
        Path(target).write_text(said)
    for word in words:
        name, _, value = word.partition("=")
        if name in ("out", "output") and "-m" not in words:
            assert Path(value).exists()


def before(words: list[str], place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Run the preceding commands of the documentation."""
    if "plan=plan.json" in words:
        asked = ["video=in.mp4", "audio=voice.wav", "plan=true"]
        capsys.readouterr()
        run("infer.py", [*asked, *made_tiny("infer.py", asked)])
        (place / "plan.json").write_text(capsys.readouterr().out)
    if "against=measured/theirs" in words:
        asked = [*words[:2], "out=measured/theirs"]
        run("evaluate.py", [*asked, *made_tiny("evaluate.py", asked)])
    if "ckpt=models/v1.6" in words or words[:2] == ["export", "models/mine"]:
        out = words[1] if words[0] == "export" else "models/v1.6"
        run(
            "latentsync.weights",
            ["import", "checkpoints/latentsync_unet.pt", out, "--version", "1.6"],
        )


def needs_mesh() -> None:
    if not FACE_MODELS.is_dir():
        pytest.skip("python -m latentsync.faces.fetch has not run")


@pytest.mark.parametrize("command", chosen("composed"))
def test_its_words_compose(command: Documented) -> None:
    register_resolvers()
    words = typed(command.text)
    program = next(word for word in words if word.endswith(".py"))
    asked = words[words.index(program) + 1 :]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        program = program.removesuffix(".py")
        config = compose(program, overrides=as_typed(asked, program))
    assert config is not None


def test_lists_name_commands_that_there_are() -> None:
    texts = [command.text for command in documented()]
    assert len(texts) > 40
    assert [start for start in NOT_RUN if not any(t.startswith(start) for t in texts)] == []
    assert [part for part in COMPOSED if not any(part in t for t in texts)] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "body", [body for name, body in fenced("python") if name != "extending.md"]
)
def test_python_runs_as_it_stands(body: str, place: Path) -> None:
    needs_mesh()
    exec(compile(body, "README.md", "exec"), {})
    assert (place / "out.mp4").is_file()
