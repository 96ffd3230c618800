"""Every option that names a file accepts any name literally, on command lines and in lists."""

import csv
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins import basic_sweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from latentsync.cli.choices import assigned
from latentsync.cli.command import conf_dir, register_resolvers
from latentsync.cli.names import LISTS, NAMING, as_typed, build, quote, unquoted
from latentsync.pipeline.batch import read_rows
from names import EVERY

ROOT = Path(__file__).parents[2]
CONF = conf_dir()
EXPERIMENTS = sorted(
    path.relative_to(CONF / "experiment").with_suffix("").as_posix()
    for path in (CONF / "experiment").rglob("*.yaml")
)
# Overrides that select parts of a command with options of their own.
PARTS = {
    "infer": [["++assign.1=a.wav"]],
    "prepare": [["audio_encoder=whisper"]],
    "evaluate": [["audio_encoder=whisper", "metrics=[default,lse,perceptual,fid,cmmd,fvd]"]],
    "train": [
        *([f"experiment={name}", "logger=wandb"] for name in EXPERIMENTS),
        ["experiment=demo/unet_stage1", "callbacks=evaluate"],
    ],
    "synthesize": [[]],
}
A_PATH = re.compile(r"(^|[._])(dir|folder|path|manifest|dirpath)$")


@pytest.fixture(autouse=True, scope="module")
def resolvers() -> None:
    register_resolvers()


def composed(command: str, *words: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(command, overrides=as_typed(words, command))


def leaves(node: object, prefix: str = "") -> Iterator[str]:
    if not isinstance(node, dict):
        yield prefix.removesuffix(".")
        return
    for name, child in node.items():
        yield from leaves(child, f"{prefix}{name}.")


def entry(command: str, option: str) -> str | None:
    return next((name for name in NAMING[command] if fnmatchcase(option, name)), None)


@cache
def options(command: str, place: int) -> list[str]:
    """Dotted names of a command's config, with the parts at one index of PARTS."""
    config = composed(command, *PARTS[command][place])
    return list(leaves(OmegaConf.to_container(config)))


def every_option() -> Iterator[tuple[str, int, str]]:
    for command, parts in PARTS.items():
        for place in range(len(parts)):
            for option in options(command, place):
                yield command, place, option


def meant(command: str, option: str, name: str) -> object:
    """What the code should receive when `name` is typed: the name, except for the few special
    words."""
    words = NAMING[command][entry(command, option) or ""]
    if name.lower() in words:
        return {"null": None, "true": True, "false": False}[name.lower()]
    return "./???" if name == "???" else name  # the same file


def typed(option: str, name: str) -> str:
    """How a person types the name: in quotes where it would be a list of names."""
    return f"{option}='{name}'" if option in LISTS and name == "[1,2]" else f"{option}={name}"


def test_the_table_names_every_option_that_is_called_a_path_and_none_that_is_not_there():
    named, left_out = set(), set()
    for command, _, option in every_option():
        found = entry(command, option)
        named.add((command, found))
        if found is None and A_PATH.search(option):
            left_out.add((command, option))
    assert left_out == set()
    assert {(command, name) for command in NAMING for name in NAMING[command]} - named == set()


@cache
def read_by_hydra(value: str) -> list[str]:
    """How Hydra's parser and OmegaConf read the text after =, on its own and within other values; a
    command line passes through nothing else."""
    given = OverridesParser.create().parse_override(f"option={value}").value()
    config = OmegaConf.create({"given": given, "again": "${given}", "within": "${given}/x"})
    return [config.given, config.again, config.within]


@pytest.mark.parametrize("command", NAMING)
def test_hydra_reads_every_name_at_every_option_as_typed(command: str):
    there = sorted({option for found, _, option in every_option() if found == command})
    for option in (each for each in there if entry(command, each)):
        for name in EVERY:
            (word,) = as_typed([typed(option, name)], command)
            wanted = meant(command, option, name)
            assert read_by_hydra(word.split("=", 1)[1]) == [wanted, wanted, f"{wanted}/x"], word
            assert as_typed([word], command) == [word], "a command that starts itself again"


@pytest.mark.parametrize("number", range(len(EVERY)))
def test_a_whole_command_takes_a_name_at_all_its_options_at_once(number: int):
    name = EVERY[number]
    command = list(PARTS)[number % len(PARTS)]
    place = number % len(PARTS[command])
    there = [option for option in options(command, place) if entry(command, option)]
    words = [typed(option, name) for option in there]
    config = composed(command, *PARTS[command][place], *words)
    for option in there:
        assert OmegaConf.select(config, option) == meant(command, option, name), option


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_list_of_jobs_takes_every_name_in_every_column(tmp_path: Path, delimiter: str):
    columns = ["video", "audio", "out", "ckpt", "plan", "published.vae", "assign.1"]
    with (tmp_path / "list.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, delimiter=delimiter, quoting=csv.QUOTE_ALL)
        table.writerow(columns)
        table.writerows([[name, name, f"{name}.mp4", *[name] * 4] for name in EVERY])
    rows = read_rows(tmp_path / "list.csv")
    for row, name in zip(rows, EVERY, strict=True):
        assert (row.video, row.audio) == (tmp_path / name, tmp_path / name)
        assert row.out == tmp_path / f"{name}.mp4"
        assert row.options == dict.fromkeys(columns[3:], name)
        words = as_typed([f"{option}={cell}" for option, cell in row.options.items()], "infer")
        for option, word in zip(row.options, words, strict=True):
            sign = "++" if option == "assign.1" else ""
            assert word.startswith(f"{sign}{option}=")
            assert read_by_hydra(word.split("=", 1)[1])[0] == meant("infer", option, name)


@pytest.mark.parametrize(
    ("line", "cells"),
    [
        ("a.mp4, b.wav ,\tc.mp4", ("a.mp4", "b.wav", "c.mp4")),
        ('" a.mp4", "b.wav ", c.mp4', (" a.mp4", "b.wav ", "c.mp4")),
        ('"a,b.mp4","say ""hi"".wav",5" disk.mp4', ("a,b.mp4", 'say "hi".wav', '5" disk.mp4')),
        ('"a\nb.mp4",b.wav,c.mp4', ("a\nb.mp4", "b.wav", "c.mp4")),
    ],
)
def test_spaces_count_in_the_quotes_of_a_cell(tmp_path: Path, line: str, cells: tuple[str, ...]):
    (tmp_path / "list.csv").write_text(f"video,audio,out\n{line}\n")
    (row,) = read_rows(tmp_path / "list.csv")
    assert (row.video, row.audio, row.out) == tuple(tmp_path / cell for cell in cells)


@pytest.mark.parametrize(
    ("word", "voices"),
    [
        ("assign={0: a.wav, 1: b.wav}", {0: "a.wav", 1: "b.wav"}),
        ("assign={0: it's.wav}", {0: "it's.wav"}),
        ("assign={0: a,b.wav, 1: 12:30.wav}", {0: "a,b.wav", 1: "12:30.wav"}),
        ("assign={0: 123, 1: true, 2: 1.6}", {0: "123", 1: "true", 2: "1.6"}),
        ("assign={0: ${x}.wav,1:{}, 2: []}", {0: "${x}.wav", 1: "{}", 2: "[]"}),
        ("assign={0: 'a, 1.wav', 1: \"b\"}", {0: "a, 1.wav", 1: "b"}),
        ("assign={}", {}),
        ("assign={0: a, b.wav, turn12: 1:2.wav}", {0: "a, b.wav", "turn12": "1:2.wav"}),
        ("assign.turn3=c d.wav", {"turn3": "c d.wav"}),
        ("assign.1= a.wav", {1: " a.wav"}),
        ("+assign.1=${x}", {1: "${x}"}),
        ("assign.0=a=b.wav", {0: "a=b.wav"}),
    ],
)
def test_voices_of_persons_are_names_too(word: str, voices: dict[int | str, str]):
    assert assigned(composed("infer", word)) == {key: Path(name) for key, name in voices.items()}


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("video='a.mp4'", "a.mp4"),
        ('video="a, b.mp4"', "a, b.mp4"),
        ("video='it\\'s.mp4'", "it's.mp4"),
        ("video='${seed}.mp4'", "1247.mp4"),
        ("video='\\${seed}.mp4'", "${seed}.mp4"),
        ("+video=a b.mp4", "a b.mp4"),
        ("++video=1", "1"),
        ("video=null", None),
        ("video='null'", "null"),
        ("video=./null", "./null"),
    ],
)
def test_what_stands_in_quotes_is_read_by_hydra(word: str, value: str | None):
    assert composed("infer", word).video == value


def test_config_files_go_on_interpolating():
    config = composed("infer", "folder=${x} #1", "paths.experiments=a,b")
    assert config.out == "${x} #1/out.mp4"
    config = composed("train", "experiment=demo/unet_stage1", "paths.data=12:30", "name=2024")
    assert config.data.train_manifest == "12:30/drawn/train/manifest.jsonl"
    assert config.paths.run_dir.startswith("experiments/2024/")
    config = composed("train", "experiment=syncnet", "data.train_manifest=s3://bucket/my set")
    assert config.data.train_manifest == "s3://bucket/my set"


@pytest.mark.parametrize(
    ("word", "sets"),
    [
        ("data.train_manifest=[a,b c]", ["a", "b c"]),
        ("data.train_manifest=['a, b',12:30,1]", ["a, b", "12:30", "1"]),
        ("data.train_manifest=[a]", "[a]"),
        ("data.train_manifest='[a,b]'", "[a,b]"),
    ],
)
def test_a_list_of_sets_holds_names(word: str, sets: list[str] | str):
    for extra in ([], ["-m"]):
        typed = [each for each in as_typed([word, *extra], "train") if each != "-m"]
        read = OverridesParser.create().parse_override(typed[0]).value()
        assert str(read) == sets if isinstance(sets, str) else [str(each) for each in read] == sets


@pytest.mark.parametrize(
    ("word", "jobs"),
    [
        ("video=a.mp4,b c.mp4", ["a.mp4", "b c.mp4"]),
        ("video=${x}, 12:30", ["${x}", "12:30"]),
        ("video='a,b.mp4',it's.mp4", ["a,b.mp4", "it's.mp4"]),
        ("video='a,b.mp4'", ["a,b.mp4"]),
        ("video=choice('a b','1')", ["a b", "1"]),
        ("video=1,2", ["1", "2"]),
    ],
)
def test_files_can_be_swept(word: str, jobs: list[str]):
    sweeper = basic_sweeper.BasicSweeper(max_batch_size=None)
    (typed, _) = as_typed([word, "-m"], "infer")
    (batch,) = sweeper.split_arguments([OverridesParser.create().parse_override(typed)], None)
    videos = [composed("infer", *words).video for words in batch]
    assert videos == jobs


@pytest.mark.parametrize("name", EVERY)
def test_a_part_is_built_with_the_name_that_was_typed(name: str):
    node = OmegaConf.create(
        {
            "given": OverridesParser.create().parse_override(f"x={quote(name)}").value(),
            "part": {
                "_target_": "builtins.dict",
                "folder": "${given}",
                "inner": {"_target_": "builtins.dict", "path": "${given}/x", "list": ["${given}"]},
            },
        }
    )
    name = "./???" if name == "???" else name
    inner = {"path": f"{name}/x", "list": [name]}
    assert build(node.part) == {"folder": name, "inner": inner}
    assert build(node.part, without=["none"], more=1) == {"folder": name, "inner": inner, "more": 1}
    assert build(node.part, _partial_=True)() == {"folder": name, "inner": inner}


@pytest.mark.parametrize("name", EVERY)
def test_a_record_of_the_words_shows_the_name(name: str):
    (word,) = as_typed([f"stage1={name}"], "train")
    assert unquoted(word.removeprefix("stage1=")) == ("./???" if name == "???" else name)


@pytest.mark.parametrize(
    ("command", "word", "line"),
    [
        ("infer", "video=", "video= is empty: .*, or video=null for none"),
        ("infer", "out=", "out= is empty: give the name of a file or folder$"),
        ("prepare", "input=", "input= is empty"),
        ("train", "data.train_manifest=", "data.train_manifest= is empty"),
        ("evaluate", "pred=", "pred= is empty"),
        ("infer", "assign.1=", "assign.1= is empty"),
    ],
)
def test_an_option_without_a_name_is_told(command: str, word: str, line: str):
    with pytest.raises(ValueError, match=line):
        as_typed([word], command)
