"""Manifests as Parquet hold the same clips as lines of JSON, and give way to newer lines."""

import json
import logging
import pickle
import shutil
from pathlib import Path

import pytest

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

from latentsync.data import ClipDataset, Items, read_manifest  # noqa: E402
from latentsync.data.__main__ import main  # noqa: E402
from latentsync.data.manifest import manifest_of, write_both, write_manifest  # noqa: E402
from latentsync.data.mixing import column_of, of_split, sets_of  # noqa: E402
from latentsync.data.rows import Made  # noqa: E402
from latentsync.data.tables import TableRows, write_table  # noqa: E402

ROWS = [
    {"clip": "a", "level": 1, "person": "x", "num": 3},
    {"clip": "b", "level": 2.5, "person": "x", "num": 4},
    {"clip": "c", "level": None, "person": None, "num": 5},
    {"clip": "d", "num": 6},
    {"clip": "e", "level": -3e9, "note": "late", "person": "y", "num": 7},
]
COLUMNS = ("clip", "level", "person", "num", "note")


@pytest.fixture
def folder(data_dir: Path, tmp_path: Path) -> Path:
    """A set of both manifests, whose clips have measures and splits."""
    folder = Path(shutil.copytree(data_dir, tmp_path / "set"))
    lines = folder / "manifest.jsonl"
    rows = [json.loads(line) for line in lines.read_text().splitlines()]
    for row, split, blur in zip(rows, ("train", "val", "train"), (0.25, None, 0.5), strict=True):
        row |= {"split": split, "blur": blur}
    lines.write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_both(read_manifest(lines), folder)
    return folder


def test_rows_come_out_as_they_were_put_in(tmp_path) -> None:
    write_table(ROWS, tmp_path / "a.parquet", same_as=None)
    rows = TableRows(tmp_path / "a.parquet")
    whole = [{name: row.get(name) for name in COLUMNS} for row in ROWS]
    for each in (rows, pickle.loads(pickle.dumps(rows))):  # noqa: S301
        assert [each[index] for index in range(len(each))] == whole
        for name in COLUMNS:
            assert list(each.values(name)) == [row[name] for row in whole]
        assert list(each.values("other")) == [None] * 5
        chosen = each.select([4, 0, 2]).select([0, 2])
        assert [chosen[0], chosen[1], len(chosen)] == [whole[4], whole[2], 2]
        assert list(chosen.values("clip")) == ["e", "c"]
    few = TableRows(tmp_path / "a.parquet", names=("num", "clip"))
    assert few[1] == {"clip": "b", "num": 4}


def test_a_pickle_holds_no_column(tmp_path) -> None:
    write_table(
        [{"clip": f"clip {number}"} for number in range(10_000)],
        tmp_path / "a.parquet",
        same_as=None,
    )
    rows = TableRows(tmp_path / "a.parquet")
    assert rows[9_999] == {"clip": "clip 9999"}
    assert len(pickle.dumps(rows)) < 1000


def test_a_set_is_read_from_its_table_as_from_its_lines(folder) -> None:
    by_lines = read_manifest(folder / "manifest.jsonl")
    by_table = read_manifest(folder)
    assert manifest_of(folder).name == "manifest.parquet"
    assert isinstance(by_table, Made)
    assert isinstance(by_table.rows, TableRows)
    assert by_table == by_lines
    assert [clip.measures for clip in by_table] == [clip.measures for clip in by_lines]
    assert [len(each) for each in sets_of(by_table)] == [3]
    assert list(column_of(by_table, "num_frames")) == [60, 75, 90]
    trained = of_split(read_manifest(folder, with_measures=False), "train", folder)
    assert [clip.num_frames for clip in trained] == [60, 90]
    assert [clip.measures for clip in trained] == [{"split": "train"}] * 2
    (folder / "manifest.jsonl").unlink()
    assert read_manifest(folder) == by_lines


def test_lines_that_were_changed_count(folder, caplog) -> None:
    lines = folder / "manifest.jsonl"
    text = lines.read_text()
    lines.write_text(text.replace('"split": "val"', '"split": "tes"'))  # of the same length
    with caplog.at_level(logging.WARNING):
        assert [clip.measures["split"] for clip in read_manifest(folder)] == [
            "train",
            "tes",
            "train",
        ]
    assert "is older than" in caplog.text
    lines.write_text(text)
    assert manifest_of(folder).name == "manifest.parquet"


def test_other_tools_read_columns_and_types(folder) -> None:
    table = pq.read_table(folder / "manifest.parquet")
    assert table.num_rows == 3
    kinds = {field.name: str(field.type) for field in table.schema}
    assert kinds["clip"] == kinds["split"] == "string"
    assert kinds["num_frames"] == "int64"
    assert kinds["blur"] == kinds["fps"] == "double"
    assert table.column("blur").to_pylist() == [0.25, None, 0.5]


def test_pandas_reads_it(folder) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.read_parquet(folder / "manifest.parquet")
    assert frame["num_frames"].sum() == 225


def test_polars_reads_it(folder) -> None:
    polars = pytest.importorskip("polars")
    frame = polars.read_parquet(folder / "manifest.parquet")
    assert frame["num_frames"].sum() == 225


def test_duckdb_reads_it(folder) -> None:
    duckdb = pytest.importorskip("duckdb")
    found = duckdb.sql(f"SELECT sum(num_frames) FROM '{folder}/manifest.parquet'").fetchall()
    assert found == [(225,)]


@pytest.mark.parametrize("output", ["some.parquet", "some.jsonl"])
def test_commands_take_and_write_tables(folder, tmp_path, output, capsys) -> None:
    written = tmp_path / "other" / output
    written.parent.mkdir()
    main(["filter", str(folder), "--max", "blur=0.3", "--output", str(written)])
    found, whole = read_manifest(written), read_manifest(folder)[:2]
    assert [clip.path.resolve() for clip in found] == [clip.path for clip in whole]
    assert [clip.measures for clip in found] == [clip.measures for clip in whole]
    main(["stats", str(folder / "manifest.parquet"), str(written)])
    main(["verify", str(folder / "manifest.parquet")])
    main(["sample", str(written), "--count", "1", "--output", str(tmp_path / "one.parquet")])
    assert len(read_manifest(tmp_path / "one.parquet")) == 1
    assert "2 clips" in capsys.readouterr().out


def test_what_is_no_manifest_is_told(folder, tmp_path) -> None:
    (tmp_path / "text.parquet").write_text("no table")
    with pytest.raises(ValueError, match=r"text\.parquet is no Parquet file"):
        read_manifest(tmp_path / "text.parquet")
    write_table([{"clip": "a"}], tmp_path / "other.parquet", same_as=None)
    with pytest.raises(ValueError, match="its column features is missing"):
        read_manifest(tmp_path / "other.parquet")
    rows = [clip.as_row(folder) for clip in read_manifest(folder)]
    rows[1]["num_frames"] = None
    write_table(rows, folder / "gap.parquet", same_as=None)
    with pytest.raises(ValueError, match="its column num_frames is missing, of another type, or"):
        read_manifest(folder / "gap.parquet")


def test_items_are_the_same(folder) -> None:
    items = Items(num_frames=4, with_mel=False)
    first = ClipDataset(read_manifest(folder), items)
    second = ClipDataset(read_manifest(folder / "manifest.jsonl"), items)
    for index in range(3):
        one, other = first[index], second[index]
        assert all(one[name].equal(value) for name, value in other.items())


def test_clips_are_written_as_a_table_by_name(folder) -> None:
    clips = read_manifest(folder)
    write_manifest(clips, folder / "again.parquet")
    assert read_manifest(folder / "again.parquet") == clips
