"""What a stream makes of a site's records: blurred, relabelled, joint, or left out."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchain_fl.config.schema import RunConfig
from simulations.streams import Record, Share, blurred, relabelled, shaped

SIZES = st.dictionaries(st.sampled_from("abcd"), st.integers(0, 30), max_size=4)


def run(seed: int = 1, **stream: Any) -> RunConfig:
    """Stages ``a`` and ``b`` of two rounds each, labels x, y and z."""
    stages = [{"name": name, "rounds": 2} for name in "ab"]
    tree = {
        "seed": seed,
        "task": {"labels": ["x", "y", "z"]},
        "data": {"train": "t"},
        "sites": {"count": 4},
        "stage": stages,
    }
    return RunConfig.model_validate({**tree, "stream": stream})


def rows(stage: str, count: int) -> list[Record]:
    return [{"text": f"{stage}{i}", "label": "xy"[i % 2]} for i in range(count)]


def shares(count: int = 10) -> dict[str, Share]:
    return {stage: Share(rows(stage, count), rows(f"{stage} held out ", 3)) for stage in "ab"}


def texts(records: list[Record]) -> list[str]:
    return [record["text"] for record in records]


# -- blur -------------------------------------------------------------------------------------------------------------


@given(SIZES, st.floats(0, 1), st.integers(0, 9))
def test_blurring_uses_every_record_once_and_keeps_the_size_of_every_stage(
    sizes: dict[str, int], share: float, seed: int
) -> None:
    parts = {stage: rows(stage, count) for stage, count in sizes.items()}
    found = blurred(parts, share, random.Random(seed))
    assert {stage: len(records) for stage, records in found.items()} == sizes
    assert Counter(t for r in found.values() for t in texts(r)) == Counter(t for r in parts.values() for t in texts(r))
    assert parts == {stage: rows(stage, count) for stage, count in sizes.items()}


@given(SIZES, st.floats(0, 1), st.integers(0, 9))
def test_as_many_records_as_asked_for_are_of_other_stages(sizes: dict[str, int], share: float, seed: int) -> None:
    found = blurred({stage: rows(stage, count) for stage, count in sizes.items()}, share, random.Random(seed))
    foreign = {stage: sum(not text.startswith(stage) for text in texts(found[stage])) for stage in sizes}
    wanted = {stage: round(share * count) for stage, count in sizes.items()}
    most = max(wanted.values(), default=0)
    others = sum(wanted.values()) - most
    assert all(foreign[stage] <= wanted[stage] for stage in sizes)
    if most > others:  # the surplus stays at home
        assert sum(foreign.values()) == 2 * others
    else:
        assert sum(wanted.values()) - sum(foreign.values()) == sum(wanted.values()) % 2


def test_blurred_records_come_from_all_other_stages_and_from_anywhere_in_them() -> None:
    parts = {stage: rows(stage, 300) for stage in "abc"}
    found = blurred(parts, 0.5, random.Random(0))
    origins = Counter(text[0] for text in texts(found["a"]))
    assert origins["a"] == 150
    assert 40 < origins["b"] < 110
    places = [i for i, text in enumerate(texts(found["a"])) if text[0] != "a"]
    assert all(60 < sum(start <= i < start + 150 for i in places) < 90 for start in (0, 150))
    taken = [int(text[1:]) for text in texts(found["a"]) if text[0] == "b"]
    assert min(taken) < 30
    assert max(taken) > 270


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_share_of_nothing_moves_nothing_and_one_of_all_leaves_nothing_at_home(share: float) -> None:
    found = blurred({stage: rows(stage, 10) for stage in "ab"}, share, random.Random(0))
    assert {text[0] for text in texts(found["a"])} == ({"a"} if share == 0 else {"b"})


def test_a_stage_by_itself_stays_as_it_is() -> None:
    assert blurred({"a": rows("a", 9)}, 0.9, random.Random(0)) == {"a": rows("a", 9)}


# -- labels -----------------------------------------------------------------------------------------------------------


def test_labels_change_all_at_once_and_nothing_else_of_a_record_does() -> None:
    records = [{"text": str(i), "label": label, "person": "p"} for i, label in enumerate("xyz")]
    found = relabelled(records, {"x": "y", "y": "x"})
    assert [record["label"] for record in found] == ["y", "x", "z"]
    assert [{**record, "label": ""} for record in found] == [{**record, "label": ""} for record in records]
    assert [record["label"] for record in records] == ["x", "y", "z"]


def test_only_the_site_with_the_odd_task_is_relabelled_in_training_and_in_its_own_score() -> None:
    config = run(arrival={"odd": {"relabel": {"x": "z"}}})
    odd, other = shaped(config, "odd", shares()), shaped(config, "other", shares())
    assert other == shares()
    for stage in "ab":
        for mine, theirs in ((odd[stage].train, other[stage].train), (odd[stage].held_out, other[stage].held_out)):
            assert texts(mine) == texts(theirs)
            assert [r["label"] for r in mine] == [{"x": "z", "y": "y"}[r["label"]] for r in theirs]


# -- the whole --------------------------------------------------------------------------------------------------------


def test_without_a_stream_a_site_gets_its_shares_as_they_are() -> None:
    assert shaped(run(), "any", shares()) == shares()


def test_a_site_gets_the_stages_that_it_is_sent_to() -> None:
    config = run(arrival={"late": {"joins": 3}, "one": {"order": ["a"]}, "gone": {"leaves": 2}})
    assert {site: list(shaped(config, site, shares())) for site in ("late", "one", "gone", "any")} == {
        "late": ["b"],
        "one": ["a"],
        "gone": ["a"],
        "any": ["a", "b"],
    }


def test_a_joint_run_adds_one_file_with_the_training_records_of_all_stages() -> None:
    found = shaped(run(play="joint"), "any", shares())
    assert list(found) == ["a", "b", "joint"]
    assert texts(found["joint"].train) == texts(rows("a", 10)) + texts(rows("b", 10))
    assert found["joint"].held_out == []
    assert {stage: found[stage] for stage in "ab"} == shares()


def test_blur_is_of_training_records_alone_and_the_same_in_every_run_of_a_seed_and_a_site() -> None:
    config = run(kind="blurry", blur=0.4)
    found = shaped(config, "north", shares())
    assert [sum(t[0] != stage for t in texts(found[stage].train)) for stage in "ab"] == [4, 4]
    assert [found[stage].held_out for stage in "ab"] == [shares()[stage].held_out for stage in "ab"]
    assert shaped(config, "north", shares()) == found
    assert shaped(config, "south", shares()) != found
    assert shaped(run(seed=2, kind="blurry", blur=0.4), "north", shares()) != found


def test_a_site_swaps_records_of_its_own_stages_only() -> None:
    config = run(kind="blurry", blur=0.4, arrival={"late": {"joins": 3}})
    assert shaped(config, "late", shares()) == {"b": shares()["b"]}
