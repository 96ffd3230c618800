"""`python -m latentsync.data merge|sample|filter`: chosen rows, and their files, in a new place."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from latentsync.data import ClipDataset, read_manifest
from latentsync.data.__main__ import main
from latentsync.data.items import Items


@pytest.fixture
def sets(data_dir: Path, tmp_path: Path) -> list[Path]:
    """Two sets of three clips with a measure."""
    folders = [Path(shutil.copytree(data_dir, tmp_path / name)) for name in ("a", "b")]
    for folder in folders:
        rows = rows_of(folder / "manifest.jsonl")
        for row, blur in zip(rows, (0.2, None, 0.6), strict=True):
            row |= {"blur": blur, "speaker": f"of {folder.name}"}
        write(folder / "manifest.jsonl", rows)
    return folders


def rows_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def write(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def failed(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    return capsys.readouterr().err


def test_merged_clips_are_the_clips_of_both(sets: list[Path], tmp_path: Path) -> None:
    (tmp_path / "lists").mkdir()
    output = tmp_path / "lists" / "both.jsonl"
    main(["merge", *map(str, sets), "--output", str(output)])
    clips = read_manifest(output)
    own = [clip for folder in sets for clip in read_manifest(folder)]
    assert [clip.path.resolve() for clip in clips] == [clip.path for clip in own]
    assert [row["speaker"] for row in rows_of(output)] == ["of a"] * 3 + ["of b"] * 3
    items = Items(num_frames=4, with_mel=False)
    merged, first = ClipDataset(clips, items), ClipDataset(own, items)
    for index in range(6):
        torch.testing.assert_close(merged[index]["pixels"], first[index]["pixels"])


def test_a_sample_is_the_seeds_and_in_order(sets: list[Path], tmp_path: Path) -> None:
    names = []
    for number, seed in enumerate((0, 0, 1, 2, 3, 4)):
        output = tmp_path / f"{number}.jsonl"
        main(["sample", str(sets[0]), "--count", "2", "--seed", str(seed), "--output", str(output)])
        names.append([clip.name for clip in read_manifest(output)])
    whole = [clip.name for clip in read_manifest(sets[0])]
    assert all(len(each) == 2 and sorted(each, key=whole.index) == each for each in names)
    assert names[0] == names[1]
    assert len({tuple(each) for each in names}) > 1


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        (["--min", "blur=0.2"], [0.2, None, 0.6]),
        (["--min", "blur=0.21"], [None, 0.6]),
        (["--max", "blur=0.3"], [0.2, None]),
        (["--max", "blur=0.3", "--equal", "blur=0.2"], [0.2]),
        (["--equal", "speaker=of a"], [0.2, None, 0.6]),
    ],
)
def test_a_filter_keeps_what_is_within(
    words: list[str], kept: list, sets: list[Path], tmp_path: Path
) -> None:
    output = tmp_path / "some.jsonl"
    main(["filter", str(sets[0]), *words, "--output", str(output)])
    assert [row["blur"] for row in rows_of(output)] == kept
    assert len(read_manifest(output)) == len(kept)


def test_what_cannot_be_is_one_line(
    sets: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = map(str, sets)
    free = ["--output", str(tmp_path / "free.jsonl")]
    taken = ["--output", str(sets[0] / "manifest.jsonl")]
    for words, text in [
        (["merge", a, b, *taken], "exists: give a name that is free"),
        (["merge", a, a, *free], "is listed twice"),
        (["sample", a, "--count", "4", *free], "4 of the 3 clips"),
        (["filter", a, "--min", "blurr=1", *free], "no clip has the column blurr"),
        (["filter", a, "--min", "speaker=1", *free], "compare with --equal"),
        (["filter", a, "--equal", "speaker=of b", *free], "no clip is left"),
        (["filter", a, "--min", "blur", *free], "must be COLUMN=VALUE"),
        (["merge", "nowhere", *free], "no manifest at nowhere"),
    ]:
        assert text in failed(words, capsys)
    rows = rows_of(sets[1] / "manifest.jsonl")
    write(sets[1] / "manifest.jsonl", [row | {"resolution": 128} for row in rows])
    assert "mixes clips of resolution [64, 128]" in failed(["merge", a, b, *free], capsys)
    assert not (tmp_path / "free.jsonl").exists()
    assert not list(tmp_path.glob(".*"))
