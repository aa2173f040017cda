from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.dataset import Part, SiteRecords
from client.rehearsal import chosen, mixed
from llmchain_fl.config.read import build
from llmchain_fl.core.errors import PrivacyError
from llmchain_fl.core.privacy.charges import training_charges, training_event
from llmchain_fl.core.privacy.plan import PrivacyPlan
from llmchain_fl.core.privacy.units import Units
from llmchain_fl.core.tasks.base import Examples
from llmchain_fl.core.work import GuardSpec
from llmchain_fl.planning.forecast import calibrated_noise, forecast

KEY = b"k" * 32
PLAN = PrivacyPlan(0.1, 1.0, 1.0, 2, 4.0, 1e-5, rehearsal="earlier")
PEOPLE = st.lists(st.sampled_from("abcdefg"), min_size=1, max_size=12)


def part(stage: str, people: list[str], *, named: bool = True, first: int = 0) -> Part:
    """All kept; records whose only token tells stage and place, so that they can be found again."""
    ids = [np.array([first + i], dtype=np.int64) for i in range(len(people))]
    examples = Examples(ids, np.arange(first, first + len(people), dtype=np.int64))
    units = Units.of_people(people) if named else Units.of_records(len(people))
    names = tuple(dict.fromkeys(people)) if named else ()
    return Part(stage, f"notes/{stage}", SiteRecords(examples, units, names), np.ones(len(units), dtype=bool))


def all_of(*parts: Part) -> list[np.ndarray]:
    """Everybody may take part."""
    return [np.ones(len(each.records.units), dtype=bool) for each in parts]


def kept(stage: str, people: list[str], keep: float, *, key: bytes = KEY, run: str = "r") -> np.ndarray:
    return chosen(key, run, stage, part(stage, people).records, keep)


def owners(examples: Examples, units: Units, people: dict[int, str]) -> list[set[str]]:
    return [{people[int(examples.ids[int(r)][0])] for r in unit} for unit in units.members]


@given(PEOPLE, PEOPLE, st.data())
def test_a_person_is_one_unit_with_the_records_of_both_stages(now: list[str], then: list[str], data: Any) -> None:
    current, earlier = part("b", now), part("a", then, first=100)
    stays = np.array(data.draw(st.lists(st.booleans(), min_size=len(set(then)), max_size=len(set(then)))))
    earlier = replace(earlier, kept=stays)
    examples, units = mixed([current, earlier], all_of(current, earlier))
    people = dict(enumerate(now)) | {100 + i: name for i, name in enumerate(then)}
    found = owners(examples, units, people)
    assert all(len(names) == 1 for names in found)
    assert len({next(iter(names)) for names in found}) == len(found)
    staying = {name for name, stay in zip(dict.fromkeys(then), stays, strict=True) if stay}
    wanted = sorted(i for i, name in people.items() if i < 100 or name in staying)
    assert sorted(int(examples.ids[int(r)][0]) for unit in units.members for r in unit) == wanted
    assert [int(ids[0]) for ids in examples.ids] == examples.targets.tolist()


def test_somebody_who_may_not_take_part_is_left_out_even_if_kept() -> None:
    current, earlier = part("b", ["x", "y"]), part("a", ["u", "v"], first=100)
    _, units = mixed([current, earlier], [np.array([True, True]), np.array([False, True])])
    assert len(units) == 3


def test_records_without_names_stay_units_of_their_own_stage() -> None:
    current, earlier = part("b", ["?"] * 3, named=False), part("a", ["?"] * 2, named=False, first=100)
    earlier = replace(earlier, kept=np.array([True, False]))
    _, units = mixed([current, earlier], all_of(current, earlier))
    assert [len(unit) for unit in units.members] == [1, 1, 1, 1]


@pytest.mark.parametrize(("keep", "share"), [(0.0, 0.0), (1.0, 1.0)])
def test_nobody_and_everybody_can_be_kept(keep: float, share: float) -> None:
    assert kept("a", [f"p{i}" for i in range(50)], keep).mean() == share


def test_who_is_kept_depends_on_key_run_stage_and_name_alone() -> None:
    names = [f"p{i}" for i in range(400)]
    found = kept("a", names, 0.3)
    assert np.array_equal(found, kept("a", names, 0.3))
    assert np.array_equal(found[:100], kept("a", names[:100], 0.3))  # the others do not matter
    assert 0.2 < found.mean() < 0.4
    for other in (kept("a", names, 0.3, key=b"o" * 32), kept("a", names, 0.3, run="s")):
        assert 0.3 < (found == other).mean() < 0.8
    assert not np.array_equal(found, kept("b", names, 0.3))
    assert np.array_equal(found, found & kept("a", names, 0.6))  # more keep, the same and others


@pytest.mark.parametrize(
    ("stages", "rehearsal", "groups"),
    [
        ("shared", "earlier", ["training"]),
        ("disjoint", "earlier", ["training:c", "training:a", "training:b"]),
        ("disjoint", "none", ["training:c"]),
    ],
)
def test_every_rehearsed_group_pays_for_the_round(stages: str, rehearsal: str, groups: list[str]) -> None:
    plan = replace(PLAN, stages=stages, rehearsal=rehearsal)
    charges = training_charges(plan, "c", ("a", "b"))
    assert [charge.group for charge in charges] == groups
    assert {charge.event for charge in charges} == {training_event(plan)}


@pytest.mark.parametrize("guards", [[], ["rehearsal"]])
def test_disjoint_stages_with_rehearsal_need_the_noise_of_all_rounds(guards: list[str]) -> None:
    def config(stages: str) -> Any:
        return build(
            {
                "task": {"labels": ["a"]},
                "data": {"train": "x"},
                "privacy": {"enabled": True, "epsilon": 4.0, "stages": stages},
                "continual": {"guards": guards},
                "stage": [{"name": "a", "rounds": 3}, {"name": "b", "rounds": 3}],
            }
        )

    disjoint, shared = calibrated_noise(config("disjoint")), calibrated_noise(config("shared"))
    assert (disjoint == shared) == bool(guards)
    expected = forecast(config("disjoint"))
    assert expected is not None
    assert expected.epsilon_after(6) <= 4.0


def test_a_site_refuses_a_rehearsal_that_the_plan_does_not_pay_for(small: Any, tmp_path: Path) -> None:
    from client.site import Site, SiteData

    site = Site(name="s", state=str(tmp_path), data=SiteData(train="x"))
    plan = small.plan(unit="person", records_per_unit=1)
    work = replace(small.work(plan=plan), guards=(GuardSpec("rehearsal", (("keep", 0.5),)),))
    with pytest.raises(PrivacyError, match="rehearsal reads records again"):
        site.check(work)
    site.check(replace(work, plan=replace(plan, rehearsal="earlier")))


# -- records that stand in several files ------------------------------------------------------------------------------

STAGES = ("now", "then", "before")
Person = tuple[tuple[int, frozenset[str]], ...]
"""What a person has: for each record what it says, and the files it stands in."""
RECORD = st.tuples(st.integers(0, 2), st.frozensets(st.sampled_from(STAGES), min_size=1))


def files_of(people: dict[str, Person], named: bool, seed: int) -> list[Part]:
    """The site's files with the records of these people, in some order that does not depend on who else is there."""
    found = []
    for stage in STAGES:
        lines = [(name, says) for name, records in people.items() for says, where in records if stage in where]
        lines.sort(key=lambda line: hashlib.sha256(repr((seed, stage, line[0])).encode()).digest())
        ids = [np.array([7, says], dtype=np.int64) for _, says in lines]
        examples = Examples(ids, np.zeros(len(ids), dtype=np.int64))
        units = Units.of_people([name for name, _ in lines]) if named else Units.of_records(len(lines))
        records = SiteRecords(examples, units, tuple(dict.fromkeys(name for name, _ in lines)) if named else ())
        found.append(Part(stage, "g", records, np.ones(len(units), dtype=bool)))
    return found


def units_of(parts: list[Part], keep: float, key: bytes) -> Counter[tuple[int, ...]]:
    """What each unit of the round says, as a site mixes it."""
    first, *others = parts
    kept_parts = [first, *(replace(p, kept=chosen(key, "r", p.stage, p.records, keep)) for p in others)]
    examples, units = mixed(kept_parts, all_of(*kept_parts))
    return Counter(tuple(sorted(int(examples.ids[int(i)][1]) for i in unit)) for unit in units.members)


@settings(max_examples=300)
@given(
    st.lists(st.lists(RECORD, min_size=1, max_size=4), min_size=1, max_size=5),
    st.sampled_from([0.3, 0.7, 1.0]),
    st.integers(0, 50),
)
def test_a_person_is_one_unit_and_changes_no_other_whatever_files_hold_the_records(
    records: list[list[tuple[int, frozenset[str]]]], keep: float, seed: int
) -> None:
    """One file for all stages, copies, and others who have the very same records."""
    people = {f"p{i}": tuple(own) for i, own in enumerate(records)}
    others = {name: own for name, own in people.items() if name != "p0"}
    key = bytes([seed]) * 32
    whole, without = (units_of(files_of(told, True, seed), keep, key) for told in (people, others))
    assert sum((without - whole).values()) == 0
    assert sum((whole - without).values()) <= 1


@settings(max_examples=300)
@given(st.lists(RECORD, min_size=1, max_size=7), st.sampled_from([0.3, 0.7, 1.0]), st.integers(0, 50))
def test_a_record_without_a_name_is_one_unit_and_changes_no_other_whatever_files_hold_it(
    records: list[tuple[int, frozenset[str]]], keep: float, seed: int
) -> None:
    people = {f"p{i}": (record,) for i, record in enumerate(records)}
    others = {name: own for name, own in people.items() if name != "p0"}
    key = bytes([seed]) * 32
    whole, without = (units_of(files_of(told, False, seed), keep, key) for told in (people, others))
    assert sum((without - whole).values()) == 0
    assert sum((whole - without).values()) <= 1


def test_one_file_for_all_stages_holds_each_record_once() -> None:
    everything = {f"p{i}": ((i, frozenset(STAGES)),) for i in range(5)}
    for named in (True, False):
        found = units_of(files_of(everything, named, 1), 1.0, KEY)
        assert found == Counter({(i,): 1 for i in range(5)})


def test_a_person_who_has_two_equal_records_keeps_both() -> None:
    found = units_of(files_of({"ann": ((1, frozenset({"now"})),) * 2}, True, 1), 1.0, KEY)
    assert found == Counter({(1, 1): 1})


def test_a_unit_without_a_name_that_has_several_records_is_mixed_like_any_other() -> None:
    """``one_record_per_person``, which the file contradicts: they are protected together."""
    parts = []
    for stage in STAGES:
        examples = Examples([np.array([7, says], dtype=np.int64) for says in (1, 2, 3)], np.zeros(3, dtype=np.int64))
        records = SiteRecords(examples, Units.of_people(["a", "b", "a"]), ())
        parts.append(Part(stage, "g", records, np.ones(2, dtype=bool)))
    assert units_of(parts, 1.0, KEY) == Counter({(1, 3): 1, (2,): 1})


def test_who_of_several_equal_records_is_kept_does_not_depend_on_how_many_there_are() -> None:
    """Kept by their place in the file, one record that goes would move the places of the others in one file of two."""
    told = {"p0": ((1, frozenset({"then", "before"})),), "p1": ((1, frozenset({"before"})),)}
    for seed in range(60):
        key = bytes([seed]) * 32
        counts = [units_of(files_of(people, False, 1), 0.5, key)[(1,)] for people in (told, {"p1": told["p1"]})]
        assert 0 <= counts[0] - counts[1] <= 1
