"""Bets, votes and arms of a canary; each by another road than the code."""

from __future__ import annotations

import itertools
import json
import stat
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchain_fl.core.errors import RunError
from llmchain_fl.promote.bet import STAKES, Bet
from llmchain_fl.promote.canary import FILE, PASSED, RUNNING, STOPPED, Canary, read_canary, write_canary
from llmchain_fl.promote.votes import vote


def canary(**changes: object) -> Canary:
    told = {"candidate": "a" * 64, "current": "b" * 64, "candidate_label": "x@2", "current_label": "x@1"}
    return Canary(**{**told, "key": "00" * 32, **changes})  # type: ignore[arg-type]


@given(st.lists(st.floats(-1, 1), max_size=30))
def test_the_evidence_is_the_mean_of_the_products(votes: list[float]) -> None:
    bet = Bet(0.05)
    for one in votes:
        bet.see(one)
    plain = np.mean([np.prod([1 - stake * one for one in votes]) for stake in STAKES])
    assert bet.evidence == pytest.approx(float(plain), rel=1e-9)


def test_with_a_fair_coin_the_evidence_is_1_on_average_over_all_ways() -> None:
    """2^8 ways of eight votes of an equal candidate: a martingale, exactly."""
    found = []
    for way in itertools.product((-1.0, 1.0), repeat=8):
        bet = Bet(1e-9)
        for one in way:
            bet.see(one)
        found.append(bet.evidence)
    assert np.mean(found) == pytest.approx(1.0)


def test_an_equal_candidate_is_stopped_in_one_of_twenty_at_most_and_a_much_worse_one_at_once() -> None:
    draw = np.random.default_rng(4)

    def stopped(chance: float, votes: int) -> bool:
        bet = Bet(0.05)
        return any(bet.see(1.0 if up else -1.0) for up in draw.random(votes) < chance)

    assert sum(stopped(0.5, 100) for _ in range(100)) <= 5 + 3 * 2.2
    assert all(stopped(0.1, 60) for _ in range(20))


def test_each_row_of_the_table_of_bets() -> None:
    bet = Bet(0.05)
    assert not bet.see(0.0)
    assert (bet.evidence, bet.votes) == (1.0, 0)
    assert [bet.see(-1.0) for _ in range(8)] == [False] * 7 + [True]
    for _ in range(100):
        bet.see(1.0)
    assert bet.evidence >= 0
    assert bet.worse, "what was shown once stays shown"
    with pytest.raises(ValueError, match=r"of 1\.5"):
        bet.see(1.5)


@pytest.mark.parametrize(
    ("kind", "other", "correction", "for_the_served"),
    [
        ("up", "a", "", 0), ("down", "a", "", 0), ("choose", "a", "b", 0),
        ("up", "b", "", 1), ("down", "b", "", -1),
        ("choose", "b", "b", -1), ("correct", "b", "c", 0), ("choose", "b", "a", 1),
        ("up", None, "", 1), ("correct", None, "c", -1),
    ],
)  # fmt: skip
def test_each_row_of_the_table_of_votes(kind: str, other: str | None, correction: str, for_the_served: int) -> None:
    said = {
        arm: vote(kind, by_candidate=arm, share=0.5, served="a", other=other, correction=correction)
        for arm in (True, False)
    }
    assert said == {True: for_the_served, False: -for_the_served}


@given(st.floats(0.05, 0.95), st.floats(0.05, 1), st.floats(0.05, 1), st.floats(0, 1))
def test_a_vote_on_an_equal_candidate_is_worth_0_on_average_whatever_the_share_and_however_readily_people_complain(
    share: float, praise: float, complain: float, right: float
) -> None:
    """The sum over arms, truths and what is said, by the definition of a mean; both are right equally often."""
    mean = 0.0
    for arm, of_arm in ((True, share), (False, 1 - share)):
        told = {"by_candidate": arm, "share": share, "served": "a", "other": "b"}
        mean += of_arm * right * praise * vote("up", correction="", **told)  # type: ignore[arg-type]
        mean += of_arm * (1 - right) * complain / 2 * vote("down", correction="", **told)  # type: ignore[arg-type]
        mean += of_arm * (1 - right) * complain / 2 * vote("choose", correction="b", **told)  # type: ignore[arg-type]
    assert mean == pytest.approx(0.0, abs=1e-12)


@given(st.floats(0.05, 0.95))
def test_persons_are_drawn_by_the_share_and_stay_where_they_are(share: float) -> None:
    one = canary(share=share)
    arms = [one.by_candidate(f"person {number}") for number in range(100)]
    assert arms == [one.by_candidate(f"person {number}") for number in range(100)]
    assert abs(sum(arms) - 100 * share) <= 5 * 100**0.5 / 2
    assert arms != [canary(share=share, key="11" * 32).by_candidate(f"person {number}") for number in range(100)]


def test_one_person_counts_a_few_times_and_enough_votes_end_it() -> None:
    one = canary(enough=4, per_person=2)
    for _ in range(9):
        one.hear("flood", -1.0)
    assert (one.bet.votes, one.asked, one.state) == (2, 9, RUNNING)
    assert not one.hear("a", 1.0)
    assert one.hear("b", 1.0)
    assert (one.state, one.by_candidate("anybody")) == (PASSED, True)
    assert not one.hear("c", -1.0)


def test_a_worse_one_is_stopped_and_then_answers_nobody(tmp_path: Path) -> None:
    one = canary()
    ends = [one.hear(f"person {number}", -1.0) for number in range(9)]
    assert ends.index(True) == 7
    assert (one.state, one.by_candidate("anybody")) == (STOPPED, False)
    write_canary(tmp_path, one.to_dict())
    assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600
    assert "person" not in (tmp_path / FILE).read_text().replace("per_person", "")
    assert read_canary(tmp_path) == one
    assert "stopped, 8 votes" in one.words()


@pytest.mark.parametrize(
    "change", [{"share": 1.0}, {"state": "x"}, {"key": "z"}, {"candidate": "../x"}, {"more": 1}, {"bet": {}}]
)
def test_a_damaged_file_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    assert read_canary(tmp_path) is None
    (tmp_path / FILE).write_text(json.dumps({**canary().to_dict(), **change}))
    with pytest.raises(RunError, match="damaged"):
        read_canary(tmp_path)
