"""What may change in a run that has begun: by key, by when, and never what was done."""

from __future__ import annotations

from typing import Any

import pytest

from llmchain_fl.config.changes import ANY_TIME, EXTENDS, changes, extension_faults, lay_over, resume_faults
from llmchain_fl.config.read import build, known_keys
from llmchain_fl.config.schema import RunConfig

STAGES = [{"name": "a", "rounds": 2}, {"name": "b.2", "rounds": 3}]
SITES = ["north", "south"]


def run(stages: list[dict[str, Any]] = STAGES, **sections: Any) -> RunConfig:
    tree = {"task": {"labels": ["x"]}, "data": {"train": "x"}, "sites": {"count": 2}, "stage": stages}
    for name, section in sections.items():
        known: Any = tree.get(name, {})
        tree[name] = {**known, **section} if isinstance(section, dict) else section
    return build(tree)


def faults(new: RunConfig, done: int = 5, ended: dict[str, int] | None = None, **old: Any) -> list[str]:
    return extension_faults(run(**old), new, done, SITES, ended or {})


def test_every_setting_that_may_change_is_one_that_there_is() -> None:
    names = {key.removesuffix(".order") for key in known_keys()}
    assert {key for key in ANY_TIME | EXTENDS if key not in known_keys() and key not in names} <= {"stream.arrival"}
    assert not ANY_TIME & EXTENDS


def test_changes_are_named_by_key_stages_and_arrivals_by_name() -> None:
    new = run(
        [{"name": "a", "rounds": 4}, {**STAGES[1], "labels": ["x"]}],
        train={"lr": 0.5},
        stream={"arrival": {"north": {"leaves": 3}}},
    )
    found = changes(run(), new)
    assert found["stage.a.rounds"] == (2, 4)
    assert found["stage.b.2.labels"] == ([], ["x"])
    assert found["train.lr"] == (0.002, 0.5)
    assert found["stream.arrival.north"][0] is None
    assert len(found) == 4
    assert changes(run(), run()) == {}


@pytest.mark.parametrize("key", ["title", "sites.reply_seconds", "sites.excluded"])
def test_what_changes_no_result_may_change_whenever_a_run_goes_on(key: str) -> None:
    area, _, name = key.rpartition(".")
    value: Any = {"title": "x", "reply_seconds": 5.0, "excluded": ["north"]}[name]
    new = run(**({area: {name: value}} if area else {name: value}))
    assert resume_faults(changes(run(), new)) == []


@pytest.mark.parametrize(
    ("sections", "key"),
    [
        ({"seed": 2}, "seed"),
        ({"train": {"lr": 0.5}}, "train.lr"),
        ({"aggregation": {"rule": "fedit"}}, "aggregation.rule"),
        ({"data": {"columns": {"text": "note"}}}, "data.columns"),
        ({"stages": [*STAGES, {"name": "c"}]}, "stage.c.name"),
    ],
)
def test_anything_else_is_refused_when_a_run_goes_on_and_named(sections: dict[str, Any], key: str) -> None:
    told = resume_faults(changes(run(), run(**sections)))
    assert any(line.startswith(f"{key} = ") for line in told)


@pytest.mark.parametrize(
    "sections",
    [
        {"stages": [*STAGES, {"name": "c"}]},
        {"stages": [STAGES[0], {"name": "b.2", "rounds": 4}]},
        {"stages": [*STAGES, {"name": "c"}], "sites": {"count": 3}, "stream": {"arrival": {"west": {"joins": 6}}}},
        {"stages": [*STAGES, {"name": "c"}], "stream": {"arrival": {"south": {"leaves": 5}}}},
        {"stages": [*STAGES, {"name": "c"}], "stream": {"order": ["a", "b.2", "c"]}},
        {"stages": [*STAGES, {"name": "c"}], "train": {"lr": 0.5}, "title": "x"},
    ],
)
def test_what_comes_after_what_was_done_is_an_extension(sections: dict[str, Any]) -> None:
    assert faults(run(**sections)) == []


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"stages": STAGES}, "nothing is left to do after round 5"),
        ({"stages": [{"name": "c"}, *STAGES]}, "rounds 1 to 5 are done"),
        ({"stages": [STAGES[1], {"name": "c", "rounds": 9}]}, '"a" would be gone'),
        ({"stages": [{"name": "a", "rounds": 3}, STAGES[1]]}, "rounds 1 to 5 are done"),
        ({"stages": [STAGES[0], {"name": "b.2", "rounds": 2}, {"name": "c"}]}, "rounds 1 to 5 are done"),
        ({"stages": [*STAGES, {"name": "c"}], "stream": {"order": ["c", "a", "b.2"]}}, "rounds 1 to 5 are done"),
        (
            {"stages": [*STAGES, {"name": "c"}], "stream": {"arrival": {"south": {"leaves": 4}}}},
            'stream.arrival."south": rounds 1 to 5 are done; what it did in them stays',
        ),
        (
            {"stages": [*STAGES, {"name": "c"}], "sites": {"count": 3}, "stream": {"arrival": {"west": {"joins": 5}}}},
            'stream.arrival."west": rounds 1 to 5 are done; a new site joins in round 6 or later',
        ),
        ({"stages": [*STAGES, {"name": "c"}], "sites": {"count": 3}}, "1 new, and stream.arrival names 0"),
        ({"stages": [*STAGES, {"name": "c"}], "sites": {"count": 1}}, "a site that has gone still counts"),
        (
            {"stages": [*STAGES, {"name": "c"}], "sites": {"count": 3, "hostile": 0.3}, "stream": {}},
            "other attackers",
        ),
        ({"stages": [*STAGES, {"name": "c"}], "stream": {"play": "joint"}}, 'stream.play = "joint"'),
        ({"stages": [*STAGES, {"name": "c"}], "adapter": {"rank": 4}}, "adapter.rank = 4, was 8"),
    ],
)
def test_what_would_alter_what_was_done_is_none(sections: dict[str, Any], said: str) -> None:
    assert any(said in line for line in faults(run(**sections))), faults(run(**sections))


def test_a_stage_that_was_announced_as_over_does_not_go_on() -> None:
    announced = {"stream": {"boundaries": "announced"}}
    longer = run([STAGES[0], {"name": "b.2", "rounds": 9}], **announced)
    said = 'nothing is left to do after round 4: add a stage, or rounds to "b.2"'
    assert faults(longer, 4, {"b.2": 4}, **announced) == [said]
    assert faults(run([*STAGES, {"name": "c"}], **announced), 4, {"b.2": 4}, **announced) == []


def test_rounds_that_are_still_to_come_may_become_fewer() -> None:
    assert faults(run([STAGES[0], {"name": "b.2", "rounds": 2}]), done=3) == []


def test_what_is_laid_over_changes_known_stages_and_adds_new_ones_to_the_end_of_an_order() -> None:
    tree: dict[str, Any] = {"seed": 1, "stream": {"order": ["b", "a"]}, "stage": [{"name": "a"}, {"name": "b"}]}
    lay_over(tree, {"seed": 2, "stage": [{"name": "a", "rounds": 9}, {"name": "c"}], "privacy": {"epsilon": 3.0}})
    assert tree == {
        "seed": 2,
        "stream": {"order": ["b", "a", "c"]},
        "stage": [{"name": "a", "rounds": 9}, {"name": "b"}, {"name": "c"}],
        "privacy": {"epsilon": 3.0},
    }
