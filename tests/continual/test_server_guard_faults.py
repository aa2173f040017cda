from __future__ import annotations

import pytest

from llmchain_fl.continual.server_guard_faults import KEEPS_COORDINATES, gate_faults, merge_faults

WISE = {"merge_kind": "wise", "merge_beta": 0.5}
STAGES = ("cards", "loans", "cash")


@pytest.mark.parametrize("rule", ["ffa", "fedit", "rolora", "fedsvd", "fedex", "flora", "flexlora", "hetlora", "fedsb"])
def test_every_rule_with_a_common_product_takes_merge_and_gate(rule: str) -> None:
    assert merge_faults(rule, "none", ["merge", "gate"], WISE) == []


def test_without_these_guards_there_is_no_fault() -> None:
    assert merge_faults("fedsa", "adam", ["ema", "distill"], {"merge_kind": "ties", "merge_beta": 1.0}, "joint") == []


@pytest.mark.parametrize("guard", ["merge", "gate"])
def test_a_rule_whose_sites_keep_a_factor_has_nothing_to_merge(guard: str) -> None:
    (fault,) = merge_faults("fedsa", "none", [guard], WISE)
    assert f'guard "{guard}"' in fault
    assert "fedsa" in fault


@pytest.mark.parametrize("guard", ["merge", "gate"])
def test_a_server_optimizer_needs_coordinates_that_stay(guard: str) -> None:
    (fault,) = merge_faults("fedit", "adam", [guard], WISE)
    assert "adam" in fault
    assert all(merge_faults(rule, "adam", [guard], WISE) == [] for rule in KEEPS_COORDINATES)


def test_ties_does_not_go_with_a_core() -> None:
    assert "fedsb" in merge_faults("fedsb", "none", ["merge"], WISE | {"merge_kind": "ties"})[0]
    assert merge_faults("fedit", "none", ["merge"], WISE | {"merge_kind": "ties"}) == []


@pytest.mark.parametrize(("beta", "said"), [(0.0, "first stage"), (1.0, "do nothing")])
@pytest.mark.parametrize("kind", ["wise", "ties"])
def test_a_share_that_merges_nothing_is_refused_where_it_counts(kind: str, beta: float, said: str) -> None:
    (fault,) = merge_faults("ffa", "none", ["merge"], {"merge_kind": kind, "merge_beta": beta})
    assert said in fault
    assert merge_faults("ffa", "none", ["merge"], {"merge_kind": "mean", "merge_beta": beta}) == []


def test_merge_needs_stages_that_end() -> None:
    assert "stream.play" in merge_faults("ffa", "none", ["merge"], WISE, "joint")[0]
    assert merge_faults("ffa", "none", ["gate"], WISE, "joint") == []
    assert merge_faults("ffa", "none", ["merge"], WISE, "alone") == []


def test_a_stage_without_public_records_is_named() -> None:
    assert gate_faults(STAGES, STAGES, kept_apart=True) == []
    first, second = gate_faults(STAGES, ["cash"], kept_apart=True)
    assert '"cards"' in first
    assert '"loans"' in second
    assert "data.dev" in first


def test_a_gate_that_would_choose_by_the_test_set_is_refused() -> None:
    (fault,) = gate_faults(STAGES, STAGES, kept_apart=False)
    assert "test set" in fault


def test_a_gate_needs_earlier_stages() -> None:
    assert "stream.play" in gate_faults(STAGES, STAGES, kept_apart=True, play="joint")[0]
    assert gate_faults(STAGES, STAGES, kept_apart=True, play="sequence") == []
