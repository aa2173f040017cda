from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.dataset import SiteRecords
from client.rehearsal import Part, chosen, mixed
from llmchain_fl.config.read import build
from llmchain_fl.errors import PrivacyError
from llmchain_fl.privacy.charges import training_charges, training_event
from llmchain_fl.privacy.forecast import calibrated_noise, forecast
from llmchain_fl.privacy.plan import PrivacyPlan
from llmchain_fl.privacy.units import Units
from llmchain_fl.tasks.base import Examples
from llmchain_fl.work import GuardSpec

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
