"""clips.parquet has what clips.csv has, or the log says why there is none; what tables and the page
say of clips and judges that are left out."""

import logging
import math
import re
from pathlib import Path

import pytest

from latentsync.evaluation import clip_values
from latentsync.evaluation.clip_values import (
    ClipTable,
    read_clips,
    write_clips,
    write_clips_table,
)
from latentsync.evaluation.report_page import Page, write_page
from latentsync.evaluation.tables import Content, latex_table, lines
from latentsync.metrics.base import Figure
from latentsync.metrics.identity import IdentitySimilarity
from latentsync.metrics.lips import LandmarkDistance


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


def test_a_mean_over_fewer_clips_than_the_row_has_says_over_how_many() -> None:
    figures = [*LandmarkDistance.figures, *IdentitySimilarity.figures]
    span = {"low": 0.1, "high": 0.3, "num_speakers": 2}
    one = {"low": math.nan, "high": math.nan, "num_speakers": 1, "num_clips": 1}
    rows = {"pred": {"num_clips": 3, "lmd": 0.2, "csim": 0.2}}
    for counted, shown in (
        ({**span, "num_clips": 2}, "0.1000 to 0.3000, n=2"),
        ({**span, "num_clips": 3}, "0.1000 to 0.3000"),
        (one, "n=1"),
    ):
        spans = {"pred": {"lmd": counted, "csim": {**span, "num_clips": 3}}}
        cells = {line[0][0]: line[1][1] for line in lines(Content(rows, figures, spans))}
        assert cells == {"LMD, lips": shown, "CSIM": "0.100 to 0.300", "clips": ""}


@pytest.mark.parametrize("judge", ["sync", "lse", "speaker"])
def test_the_page_says_why_a_judge_is_left_out(judge: str, tmp_path: Path) -> None:
    reason = "not valid here: such faces are unknown"
    written = {"settings": {}, f"{judge}_not_valid": reason}
    content = Content({}, [])
    write_page(tmp_path, title="x", content=content, rows={}, written=written, page=Page())
    assert reason in (tmp_path / "report.html").read_text()


def test_the_latex_table_is_a_tabular_of_escaped_cells() -> None:
    figures = [figure("r"), Figure("p_%", "P(in>off) & 50 %_#$", "r", "higher", 0.0, 1.0, "here")]
    rows = {"pred_a & b": {"num_clips": 2, "r": 0.5, "p_%": 0.25}, "ref": {"num_clips": 2}}
    first, *body, last = latex_table(Content(rows, figures)).splitlines()
    assert (first, last) == (r"\begin{tabular}{lrr}", r"\end{tabular}")
    assert body.pop(1) == r"\hline"
    cells = [re.split(r"(?<!\\)&", line.removesuffix(r" \\")) for line in body]
    assert [len(line) for line in cells] == [3] * 4
    assert [line[0].strip() for line in cells] == ["", "r", r"P(in$>$off) \& 50 \%\_\#\$", "clips"]
    assert cells[0][1].strip() == r"pred\_a \& b"
    assert [cell.strip() for cell in cells[2][1:]] == ["0.250", "-"]
    assert not re.search(r"(?<!\\)[%#_]", "".join(body))
