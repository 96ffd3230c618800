"""clips.parquet has what clips.csv has, or the log says why there is none."""

import logging
import math
from pathlib import Path

import pytest

from latentsync.evaluation import clip_values
from latentsync.evaluation.clip_values import (
    ClipTable,
    read_clips,
    write_clips,
    write_clips_table,
)
from latentsync.metrics.base import Figure


def figure(key: str) -> Figure:
    return Figure(key, key, "r", "higher", -1.0, 1.0, "here")


FIGURES = [figure("r"), figure("never"), figure("lmd")]


def tables() -> dict[str, ClipTable]:
    pred, ref = ClipTable(), ClipTable()
    pred.add("a.mp4", "one", {"r": 0.1 + 0.2, "lmd": 3e-5})
    pred.add("b.mp4", "two", {"r": -1 / 3, "lmd": math.nan})
    ref.add("a.mp4", "one", {"lmd": 0.0})
    return {"pred": pred, "ref": ref}


def test_the_table_is_the_csv(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    write_clips(tmp_path / "clips.csv", tables(), FIGURES)
    write_clips_table(tmp_path / "clips.parquet", tables(), FIGURES)
    rows = parquet.read_table(tmp_path / "clips.parquet").to_pylist()
    assert list(rows[0]) == ["row", "clip", "speaker", "r", "lmd"]
    assert rows[1] == {"row": "pred", "clip": "b.mp4", "speaker": "two", "r": -1 / 3, "lmd": None}
    assert rows[2]["r"] is None
    for name, table in read_clips(tmp_path / "clips.csv").items():
        for index, clip in enumerate(table.clips):
            (row,) = (each for each in rows if (each["row"], each["clip"]) == (name, clip))
            for key, column in table.values.items():
                assert row[key] == (None if math.isnan(column[index]) else column[index])
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["clips.csv", "clips.parquet"]


def test_without_pyarrow_one_line_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(clip_values, "can_read_tables", lambda: False)
    with caplog.at_level(logging.INFO):
        write_clips_table(tmp_path / "clips.parquet", tables(), FIGURES)
    assert not list(tmp_path.iterdir())
    (line,) = caplog.messages
    assert line.startswith("clips.parquet is not written")
    assert "pyarrow" in line
