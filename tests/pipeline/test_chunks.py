"""Slots => chunks: every slot is covered, weights add up to one, none is short, references do not
leak."""

import numpy as np
import pytest

from latentsync.pipeline.chunks import MAX_REFERENCE_CHUNKS, Run, apart, cut_chunks
from latentsync.pipeline.compositing import Cut, FaceStore

LENGTH = 16


def run_of(first: int, end: int) -> Run:
    return Run(0, 0, first, end, np.ones(end - first, dtype=np.float32))


@pytest.mark.parametrize("overlap", [0, 2, 4, 8])
@pytest.mark.parametrize("length", [1, 5, 16, 17, 27, 28, 29, 33, 200])
def test_shares_add_up_to_one_in_every_slot(overlap: int, length: int):
    run = run_of(7, 7 + length)
    chunks = cut_chunks([run], length=LENGTH, overlap=overlap)
    shares = np.zeros(length)
    for window in chunks:
        shares[window.first - 7 : window.end - 7] += window.weights
        assert window.end - window.first == min(LENGTH, length)
    np.testing.assert_allclose(shares, 1, atol=1e-6)


def test_only_neighbours_share_a_slot_and_only_for_the_overlap():
    chunks = cut_chunks([run_of(0, 200)], length=LENGTH, overlap=4)
    shared = sum(((window.weights > 0) & (window.weights < 1)).sum() for window in chunks)
    # Both neighbours have four slots with partial weights.
    assert shared == 2 * 4 * (len(chunks) - 1)
    by_hand = 1 + np.ceil((200 - 16) / 12)
    assert len(chunks) == by_hand


def test_official_windows_follow_each_other_and_the_last_is_short():
    chunks = cut_chunks(
        [run_of(0, 35)], length=LENGTH, overlap=0, reference="self", short_last=True
    )
    assert [(window.first, window.end) for window in chunks] == [(0, 16), (16, 32), (32, 35)]
    for window in chunks:
        np.testing.assert_array_equal(window.reference, window.slots)
        assert (window.weights == 1).all()


@pytest.mark.parametrize("length", [2, 8, 16, 24, 31, 32, 40, 100])
def test_the_reference_is_of_the_same_run_and_as_far_as_it_can_be(length: int):
    run = run_of(3, 3 + length)
    for window in cut_chunks([run], length=LENGTH, overlap=4):
        assert window.reference.min() >= run.first
        assert window.reference.max() < run.end
        distance = np.abs(window.reference - window.slots)
        assert distance.min() >= min(LENGTH, length // 2)


def test_the_reference_comes_before_where_there_is_a_before():
    run = run_of(0, 64)
    np.testing.assert_array_equal(apart(np.arange(20, 36), run, LENGTH), np.arange(4, 20))
    np.testing.assert_array_equal(apart(np.arange(0, 16), run, LENGTH), np.arange(16, 32))


def hidden_in(length: int, *spans: tuple[int, int]) -> np.ndarray:
    hidden = np.zeros(length, dtype=bool)
    for first, end in spans:
        hidden[first:end] = True
    return hidden


@pytest.mark.parametrize("spans", [[(30, 60)], [(0, 20)], [(10, 16), (40, 90), (150, 200)]])
def test_references_show_no_mouth_that_is_hidden(spans: list[tuple[int, int]]) -> None:
    run, hidden = run_of(7, 207), hidden_in(200, *spans)
    chunks = cut_chunks([run], length=LENGTH, overlap=4, hidden=[hidden])
    before = cut_chunks([run], length=LENGTH, overlap=4)
    assert len(chunks) == len(before)
    plain = {chunk.first: chunk for chunk in before}
    for chunk in chunks:
        assert not hidden[chunk.reference - run.first].any()
        assert not np.isin(chunk.reference, chunk.slots).any()
        usual = plain[chunk.first].reference
        if not hidden[usual - run.first].any():
            np.testing.assert_array_equal(chunk.reference, usual)


def test_where_hardly_anything_is_free_the_nearest_free_mouth_stands_for_the_others() -> None:
    run, hidden = run_of(0, 48), hidden_in(48, (0, 12), (18, 46))
    shown = apart(np.arange(32, 48), run, LENGTH, hidden=hidden)
    np.testing.assert_array_equal(shown, [12, 13, 14, 15, 16, *[17] * 11])
    for everything in (np.ones(48, dtype=bool), np.zeros(48, dtype=bool)):
        np.testing.assert_array_equal(
            apart(np.arange(32, 48), run, LENGTH, hidden=everything), np.arange(16, 32)
        )
    short = run_of(3, 15)
    np.testing.assert_array_equal(
        apart(np.arange(3, 15), short, LENGTH, hidden=hidden_in(12, (0, 6))),
        [9, 10, 11, 12, 13, 14, *[14] * 6],
    )


def test_references_that_lie_further_away_are_still_held_when_they_are_needed() -> None:
    runs = [run_of(0, 300), run_of(40, 260)]
    hidden = [hidden_in(300, (20, 75), (130, 190)), hidden_in(220, (0, 50), (60, 100))]
    chunks = cut_chunks(runs, length=LENGTH, overlap=4, hidden=hidden)
    face = np.zeros((1, 1, 3), dtype=np.uint8)
    cuts = (
        Cut(slot, {index: face + index for index, run in enumerate(runs) if slot < run.end})
        for slot in range(300)
    )
    store = FaceStore(cuts, keep_slots=(MAX_REFERENCE_CHUNKS + 1) * LENGTH)
    for chunk in chunks:
        assert (store(chunk.run, chunk.slots) == chunk.run).all()
        assert (store(chunk.run, chunk.reference) == chunk.run).all()
    assert max(np.abs(chunk.reference - chunk.slots).max() for chunk in chunks) > 3 * LENGTH


def test_windows_of_all_runs_come_in_the_order_of_their_last_face():
    runs = [run_of(0, 60), run_of(10, 40), run_of(70, 90)]
    ends = [window.needs_until for window in cut_chunks(runs, length=LENGTH, overlap=4)]
    assert ends == sorted(ends)


@pytest.mark.parametrize("overlap", [-1, 9])
def test_an_overlap_of_more_than_half_a_window_is_refused(overlap: int):
    with pytest.raises(ValueError, match=f"overlap={overlap}"):
        cut_chunks([run_of(0, 60)], length=LENGTH, overlap=overlap)
