"""What goes together is decided by what the parts declare, and a refusal says why in one sentence."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from llmchain_fl.aggregation import RULES
from llmchain_fl.aggregation.rule import Rule
from llmchain_fl.core.errors import ConfigError
from llmchain_fl.guards import GUARDS
from llmchain_fl.planning.compatible import Parts, faults
from llmchain_fl.robust import ROBUST, RobustSettings

EARLIER = ("agem", "anchor", "distill", "gate", "olora", "replay", "slots")
READS_PUBLIC = {
    "agem": {},
    "anchor": {"importance": "public"},
    "distill": {"data": "public"},
    "replay": {},
    "slots": {},
    "route": {},
}


def told(
    rule: str = "fedit", *guards: str, settings: dict[str, dict[str, object]] | None = None, **parts: Any
) -> list[str]:
    """The faults of these guards under ``rule``, with public records of every stage unless told otherwise."""
    chosen = tuple((GUARDS[name], GUARDS[name].settings(**(settings or {}).get(name, {}))) for name in guards)
    return faults(Parts(**{"rule": RULES[rule], "guards": chosen, "public": True, **parts}))


def test_the_sentence_says_what_the_guard_does_and_what_the_rule_does_instead() -> None:
    (fault,) = told("flora", "ema")
    assert fault.startswith(
        'guard "ema" averages LoRA factors, but rule "flora" re-factorises them every round, so they cannot be averaged'
    )
    assert "rules that fit: ffa, fedit, rolora, hetlora, fedsb, fedsa, head-only" in fault


@pytest.mark.parametrize(
    ("guard", "fit"),
    [
        ("ema", {"ffa", "fedit", "rolora", "hetlora", "fedsb", "fedsa", "head-only"}),
        ("olora", {"fedit", "rolora", "hetlora"}),
        ("slots", {"ffa", "fedit", "rolora", "hetlora", "head-only"}),
        *((guard, set(RULES) - {"fedsa"}) for guard in ("anchor", "distill", "gate", "merge")),
        *((guard, set(RULES)) for guard in ("agem", "rehearsal", "replay")),
    ],
)
def test_a_guard_goes_with_the_rules_that_have_what_it_needs(guard: str, fit: set[str]) -> None:
    for rule in RULES:
        found = told(rule, guard)
        assert bool(found) != (rule in fit), rule
        assert all(f'guard "{guard}"' in fault and f'rule "{rule}"' in fault for fault in found)


def test_only_a_rule_that_moves_one_factor_lets_guards_make_new_factors_under_a_server_optimizer() -> None:
    for rule in (rule for rule in RULES.values() if rule.steady and not rule.owns):
        for guard in ("merge", "gate"):
            found = told(rule.name, guard, optimizer="adam")
            assert bool(found) != (rule.name in ("ffa", "fedsb", "head-only"))
            assert all("adam" in fault for fault in found)
        assert told(rule.name, "anchor", optimizer="adam") == []


def test_a_server_optimizer_and_central_noise_ask_the_rule_what_it_is() -> None:
    assert [name for name in RULES if told(name, optimizer="adam")] == ["fedsvd", "fedex", "flora", "flexlora"]
    assert [name for name in RULES if told(name, central=True)] == ["fedex", "flora", "flexlora", "hetlora"]


def test_a_robust_step_says_itself_what_it_cannot_take_and_never_goes_with_central_noise() -> None:
    def check(rule: Rule) -> None:
        ROBUST["geometric-median"](RobustSettings(hostile=1)).check(3, rule)

    assert [name for name in RULES if told(name, robust_check=check)] == ["hetlora", "head-only"]
    assert "covers only their sum" in told("ffa", robust_check=check, central=True)[0]

    def refuses(rule: Rule) -> None:
        raise ConfigError(["one", "two"])

    assert told("ffa", robust_check=refuses) == ["one", "two"]


@pytest.mark.parametrize("guard", READS_PUBLIC)
def test_what_reads_public_records_needs_them(guard: str) -> None:
    guards = ("slots", "route") if guard == "route" else (guard,)
    given = {guard: READS_PUBLIC[guard], **({"slots": {"share": 0.0}} if guard == "route" else {})}
    (fault,) = told("ffa", *guards, settings=given, public=False)
    assert f'guard "{guard}"' in fault
    assert "continual.public" in fault
    assert told("ffa", *guards, settings=given) == []
    assert bool(told("ffa", *guards, settings=given, by_stage=False)) == (guard not in ("anchor", "distill"))


def test_without_public_records_the_usual_settings_of_the_others_are_fine() -> None:
    assert told("ffa", "anchor", "distill", public=False) == []
    assert told("ffa", "slots", settings={"slots": {"share": 0.0}}, public=False, by_stage=False) == []


def test_any_text_can_be_replayed_where_the_task_takes_any_text() -> None:
    assert told("ffa", "replay", by_stage=False, any_text=True) == []
    generated: dict[str, dict[str, object]] = {"replay": {"data": "generated"}}
    assert "writes no records" in told("ffa", "replay", settings=generated, public=False)[0]
    assert told("ffa", "replay", settings=generated, public=False, generates=True) == []


@pytest.mark.parametrize("other", ["ema", "merge"])
def test_what_holds_on_to_the_start_of_a_stage_comes_after_what_changes_it(other: str) -> None:
    (fault,) = told("ffa", "anchor", other)
    assert f'put "{other}" before it' in fault
    assert told("ffa", other, "anchor") == []


@pytest.mark.parametrize("pairs", ["olora", "slots"])
def test_pairs_that_are_kept_apart_are_not_mixed_and_have_one_maker(pairs: str) -> None:
    for other in ("ema", "merge"):
        assert any("exclude each other" in fault for fault in told("fedit", pairs, other))
        assert told("fedit", "distill", other) == []
    (fault,) = told("fedit", "olora", "slots")
    assert '"olora" and "slots" exclude each other' in fault


def test_a_choice_among_pairs_comes_after_the_guard_that_marks_them() -> None:
    assert told("ffa", "slots", "route") == []
    for guards in (("route",), ("route", "slots"), ("olora", "route")):
        assert any('put "slots" before it' in fault for fault in told("fedit", *guards))


@pytest.mark.parametrize("guard", sorted(GUARDS))
@pytest.mark.parametrize("play", ["joint", "alone"])
def test_a_stream_that_leaves_no_stage_behind_has_nothing_to_guard(guard: str, play: str) -> None:
    guards = ("route",) if guard == "route" else (guard,)
    found = [fault for fault in told("fedit", *guards, play=play) if "stream.play" in fault]
    wanted = guard in EARLIER or (guard, play) == ("merge", "joint")
    assert bool(found) == wanted
    assert all(play in fault and guard in fault for fault in found)


@pytest.mark.parametrize("guard", ["agem", "anchor", "distill", "olora", "replay"])
def test_a_strength_of_nothing_is_a_fault_of_a_guard_that_is_on(guard: str) -> None:
    (name,) = GUARDS[guard].idle_at_zero
    (fault,) = told("fedit", guard, settings={guard: {name: 0.0}})
    assert f"continual.{guard}.{name} = 0" in fault
    assert told("fedit", guard, settings={guard: {name: 0.5}}) == []


@pytest.mark.parametrize(("beta", "said"), [(0.0, "first stage"), (1.0, "do nothing")])
@pytest.mark.parametrize("kind", ["wise", "ties"])
def test_a_share_that_merges_nothing_is_refused_where_it_counts(kind: str, beta: float, said: str) -> None:
    (fault,) = told("ffa", "merge", settings={"merge": {"kind": kind, "beta": beta}})
    assert said in fault
    assert told("ffa", "merge", settings={"merge": {"kind": "mean", "beta": beta}}) == []


def test_ties_does_not_go_with_a_core() -> None:
    ties: dict[str, dict[str, object]] = {"merge": {"kind": "ties"}}
    assert [rule for rule in RULES if told(rule, "merge", settings=ties)] == ["fedsb", "fedsa"]


def test_a_gate_probes_every_stage_and_not_by_the_test_set() -> None:
    assert told("ffa", "gate", probed={"cards": True, "loans": True}) == []
    first, second = told("ffa", "gate", probed={"cards": False, "loans": False, "cash": True})
    assert '"cards"' in first
    assert '"loans"' in second
    assert "data.dev" in first
    (fault,) = told("ffa", "gate", probed={"cards": True}, apart=False)
    assert "test set" in fault
    assert told("ffa", "distill", probed={"cards": False}, apart=False) == []


def test_what_stays_at_a_site_is_scored_there_and_is_no_teacher() -> None:
    assert "held_out" in told("fedsa", held_out=False)[0]
    assert "held_out" in told("ffa", personal_head=True, trained_head=True, held_out=False)[0]
    assert "alone" in told("fedsa", play="alone")[0]
    assert "task.head" in told("ffa", personal_head=True)[0]
    assert "teacher" in told("ffa", "distill", personal_head=True, trained_head=True)[0]
    assert told("ffa", "anchor", personal_head=True, trained_head=True) == []


def test_all_faults_are_told_at_once() -> None:
    found = told("flora", "slots", "ema", "route", optimizer="adam", play="alone", public=False)
    assert len(found) == 7


def test_a_configuration_without_guards_is_read_without_torch() -> None:
    code = (
        "import sys\n"
        "from llmchain_fl.config.read import build\n"
        "build({'task': {'labels': ['a']}, 'data': {'train': 'x'}, 'aggregation': {'rule': 'flora'}})\n"
        "assert not {'torch', 'transformers', 'flwr'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_trains_over_the_labels_of_a_stage_must_know_two_of_each() -> None:
    assert told("ffa", "mask", own_labels={"cards": 2, "loans": 3}) == []
    first, second = told("ffa", "mask", own_labels={"cards": 0, "loans": 1, "cash": 2})
    assert 'labels are of stage "cards"' in first
    assert "[[stage]]" in first
    assert 'the one label of stage "loans"' in second
    assert told("ffa", "mask", own_labels={"cards": 2, "loans": 1}, play="joint") == []
    (fault,) = told("ffa", "mask", own_labels={"all": 0}, labelled=False)
    assert "has no labels" in fault
    assert told("ffa", "ema", own_labels={"cards": 0, "loans": 1}, labelled=False) == []


@pytest.mark.parametrize("guard", sorted(set(GUARDS) - {"mask", "route"}))
def test_a_mask_goes_with_every_guard_on_either_side(guard: str) -> None:
    for guards in (("mask", guard), (guard, "mask")):
        assert told("fedit", *guards, own_labels={"cards": 2}) == []
