"""Training and validation have no recording and no person in common, and the shares asked for."""

from pathlib import Path

import pytest

from latentsync.data import Clip, ClipDataset
from latentsync.data.datamodule import ClipDataModule
from latentsync.prepare import Outcome, Split, filter_clips, prepare_clips
from latentsync.prepare.stage import Source


def outcome(name: str, *persons: str | int, num_frames: int = 50) -> Outcome:
    clips = [
        Clip(
            Path(f"/set/clips/{name.replace('/', '-')}_{index}.mp4"), Path("/f"), None, num_frames,
            name, 0, 64, 25.0, measures={"person": person},
        )
        for index, person in enumerate(persons)
    ]  # fmt: skip
    return Outcome(Source(Path("/raw") / name, name, name, Path("/set")), clips)


def splits(outcomes: list[Outcome]) -> dict[str, set]:
    """For each source the splits of its clips."""
    return {each.source.name: {clip.measures["split"] for clip in each.clips} for each in outcomes}


def test_shares_are_reached_and_no_source_is_divided() -> None:
    outcomes = [outcome(f"{number}.mp4", 0, 1) for number in range(100)]
    found = splits(Split(val=0.1, test=0.05)(outcomes))
    assert all(len(each) == 1 for each in found.values())
    counts = [sum(each == {name} for each in found.values()) for name in ("train", "val", "test")]
    assert counts == [85, 10, 5]


def test_a_person_is_in_one_split_through_all_recordings_they_share() -> None:
    """b and c share ben, c and d share cleo; numbers are people of one recording only."""
    chain = [outcome("b", "ben"), outcome("c", "ben", "cleo"), outcome("d", "cleo")]
    others = [outcome(f"{number}", 0) for number in range(20)]
    for seed in range(20):
        found = splits(Split(val=0.3, test=0.2, seed=seed)([*chain, *others]))
        assert found["b"] == found["c"] == found["d"]
    assert len({frozenset(found[f"{number}"]) for number in range(20)}) == 3


def test_folders_name_the_speaker() -> None:
    outcomes = [outcome(f"{speaker}/{video}", 0) for speaker in "abcdef" for video in "xyz"]
    found = splits(Split(val=0.3, folders=1)(outcomes))
    for speaker in "abcdef":
        assert found[f"{speaker}/x"] == found[f"{speaker}/y"] == found[f"{speaker}/z"]
    assert len(splits(Split(val=0.3, folders=1)(outcomes[:6]))) == 6


def test_the_seed_decides_and_order_does_not() -> None:
    outcomes = [outcome(f"{number}", 0) for number in range(30)]
    first = splits(Split(val=0.2)(outcomes))
    assert splits(Split(val=0.2)(outcomes[::-1])) == first
    assert splits(Split(val=0.2, seed=1)(outcomes)) != first


def test_a_small_set_has_a_group_for_each_or_says_so() -> None:
    outcomes = [outcome(f"{number}", 0) for number in range(3)]
    found = splits(Split(val=0.01, test=0.01)(outcomes))
    assert sorted(map(str, found.values())) == ["{'test'}", "{'train'}", "{'val'}"]
    with pytest.raises(ValueError, match="2 group"):
        Split(val=0.01, test=0.01)(outcomes[:2])
    with pytest.raises(ValueError, match=r"val=0\.6"):
        Split(val=0.6, test=0.4)


def test_without_shares_there_is_no_column() -> None:
    assert Split()([outcome("a", 0)])[0].clips[0].measures == {"person": 0}


def test_one_folder_serves_training_and_validation(raw_dir, recipe, tmp_path) -> None:
    folder = tmp_path / "set"
    prepare_clips(raw_dir, folder, stages=recipe.stages())

    def sources(**values) -> tuple[list[str], list[str]]:
        module = ClipDataModule(folder, folder, both={"num_frames": 4, "resolution": 64}, **values)
        module.setup("fit")
        assert isinstance(module.train_set, ClipDataset)
        assert isinstance(module.val_set, ClipDataset)
        return tuple(
            [clip.source for clip in each.clips] for each in (module.train_set, module.val_set)
        )

    assert [len(each) for each in sources()] == [4, 4]
    filter_clips(folder, {}, rules=[Split(val=0.3, folders=1)])
    train, val = sources()
    assert sorted(len(each) for each in (train, val)) == [2, 2]
    assert {Path(each).parent.name for each in train}.isdisjoint(
        Path(each).parent.name for each in val
    )
    filter_clips(folder, {}, rules=[Split(test=0.3, folders=1)])
    with pytest.raises(ValueError, match="none of val"):
        sources()
