from __future__ import annotations

import pytest

from llmchain_fl.aggregation import RULES
from llmchain_fl.continual.site_guard_faults import MOVES_A, WHY_NOT, site_guard_faults

FINE: dict[str, float | str] = {"anchor_strength": 1.0, "anchor_importance": "plain", "distill_data": "batch"}


def faults(
    rule: str = "fedit", guards: tuple[str, ...] = (), public: bool = False, **settings: float | str
) -> list[str]:
    return site_guard_faults(rule, guards, public, FINE | settings)


def test_every_rule_is_known_and_a_rule_that_freezes_a_is_refused_with_its_reason() -> None:
    assert set(MOVES_A) | set(WHY_NOT) == set(RULES)
    for name, rule in RULES.items():
        (told,) = faults(name, ("olora",)) or [""]
        assert bool(told) == (name not in MOVES_A)
        assert "lora_A" in rule.trained or "never trains A" in told
        assert name in MOVES_A or f'"{name}"' in told


def test_rules_that_turn_a_are_among_those_that_train_it() -> None:
    assert all("lora_A" in RULES[name].trained for name in MOVES_A)


def test_an_unknown_rule_is_refused_too() -> None:
    assert "not known" in faults("next", ("olora",))[0]


@pytest.mark.parametrize("other", ["ema", "merge", "slots"])
def test_olora_does_not_go_with_guards_that_mix_or_make_pairs(other: str) -> None:
    assert any("exclude" in line for line in faults(guards=("olora", other)))
    assert not faults(guards=("distill", other))


@pytest.mark.parametrize("guard", ["anchor", "distill"])
def test_there_is_nothing_to_stay_near_where_b_stays_at_the_site(guard: str) -> None:
    assert "Delta W" in faults("fedsa", (guard,))[0]
    assert faults("ffa", (guard,)) == []


@pytest.mark.parametrize(
    ("guards", "settings"),
    [
        (("agem",), {}),
        (("replay",), {"replay_data": "public"}),
        (("distill",), {"distill_data": "public"}),
        (("anchor",), {"anchor_importance": "public"}),
    ],
)
def test_what_reads_public_records_needs_them(guards: tuple[str, ...], settings: dict[str, str]) -> None:
    assert "continual.public" in faults(guards=guards, **settings)[0]
    assert faults(guards=guards, public=True, **settings) == []
    assert faults(guards=("ema",), **settings) == []


@pytest.mark.parametrize("other", ["ema", "merge"])
def test_the_anchor_comes_after_what_changes_the_start_of_a_stage(other: str) -> None:
    assert "before" in faults(guards=("anchor", other))[0]
    assert faults(guards=(other, "anchor")) == []


@pytest.mark.parametrize(
    "name", ["distill_weight", "anchor_strength", "olora_strength", "agem_strength", "replay_weight"]
)
def test_a_strength_of_nothing_is_a_fault_of_a_guard_that_is_on(name: str) -> None:
    guard = name.partition("_")[0]
    assert name in faults(guards=(guard,), public=True, **{name: 0.0})[0]
    assert faults(guards=("ema",), public=True, **{name: 0.0}) == []
    assert faults(guards=(guard,), public=True, **{name: 0.5}) == []


@pytest.mark.parametrize("guard", ["agem", "anchor", "distill", "olora", "replay"])
@pytest.mark.parametrize("play", ["joint", "alone"])
def test_a_stream_that_leaves_no_stage_behind_has_nothing_to_guard(guard: str, play: str) -> None:
    (told,) = site_guard_faults("fedit", (guard,), True, FINE, play)
    assert play in told
    assert site_guard_faults("fedit", (guard,), True, FINE, "sequence") == []
    assert site_guard_faults("fedit", ("ema",), True, FINE, play) == []


def test_without_these_guards_there_is_no_fault() -> None:
    assert all(faults(rule, guards) == [] for rule in RULES for guards in ((), ("ema",), ("gate", "merge")))
