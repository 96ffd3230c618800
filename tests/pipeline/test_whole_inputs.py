"""Checks of a video before anything is loaded: its end, with any timestamps."""

from pathlib import Path

import pytest

from latentsync.media.video import probe
from latentsync.pipeline.checks import check_decodes
from media.test_whole import CODECS, CUT, MAKERS

KNOW_THEIR_LENGTH = ("mkv", "webm")


@pytest.mark.parametrize("ending", CODECS)
@pytest.mark.parametrize("kind", MAKERS)
def test_odd_times_are_no_damage(tmp_path: Path, kind: str, ending: str) -> None:
    make, seconds = MAKERS[kind]
    check_decodes(probe(make(tmp_path / f"a{ending}", seconds)))


@pytest.mark.parametrize("kind", CUT)
def test_less_than_half_a_file_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    make, ending = CUT[kind]
    whole = make(tmp_path / f"a{ending}")
    check_decodes(probe(whole))
    cut = tmp_path / f"cut{ending}"
    data = whole.read_bytes()
    cut.write_bytes(data[: int(len(data) * 0.4)])
    if kind in KNOW_THEIR_LENGTH:
        with pytest.raises(ValueError, match="truncated or damaged"):
            check_decodes(probe(cut))
    else:
        check_decodes(probe(cut))
