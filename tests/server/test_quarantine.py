"""Who is set aside, who comes back, and who never is."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchain_fl.core.errors import CODES, ConfigError, RunError
from server.quarantine import LONGEST, Quarantine, QuarantineSettings, Standing
from server.strikes import REFUSED, is_strike

SITES = ["a", "b", "c", "d"]
OK = "admitted"
ASIDE = {"strikes": 3, "since": 5, "until": 9, "length": 4, "times": 1, "reason": "norm"}


def play(
    answers: dict[str, list[str]], *, declined: tuple[str, ...] = (), **settings: int
) -> tuple[Quarantine, list[list[str]]]:
    """Each site gives its answers in turn, the last one for ever; returns the sites asked in each of 40 rounds."""
    box, asked = Quarantine(QuarantineSettings(**settings)), []
    left = {site: list(row) for site, row in answers.items()}
    for number in range(1, 41):
        able = box.able(number, list(answers))
        said = {site: left[site].pop(0) if len(left[site]) > 1 else left[site][0] for site in able}
        refused = {site: word for site, word in said.items() if word != OK}
        box.record(number, set(said) - set(refused), refused, set(declined))
        asked.append(able)
    return box, asked


def rounds_of(site: str, asked: list[list[str]]) -> list[int]:
    return [number for number, sites in enumerate(asked, 1) if site in sites]


# -- reason -> strike -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", REFUSED)
def test_a_reply_that_must_not_be_summed_is_a_strike_unless_the_run_itself_is_at_fault(reason: str) -> None:
    box, asked = play({"a": [OK], "b": [reason]}, after=3, rounds=4)
    if reason in ("duplicate", "weight", "scale"):
        assert len(rounds_of("b", asked)) == 40
    else:
        assert rounds_of("b", asked) == [1, 2, 3, 8, 17, 34]
        assert box.standings["b"].reason == reason
    assert rounds_of("a", asked) == list(range(1, 41))


@pytest.mark.parametrize("code", [*sorted(CODES), "unknown", "a code of tomorrow"])
def test_a_site_that_declines_honestly_is_asked_again_and_one_that_crashes_is_set_aside(code: str) -> None:
    _, asked = play({"a": [OK], "b": [code]}, declined=("b",), after=2, rounds=30)
    honest = {"budget", "privacy", "data", "config", "model", "run", "wire", "admission", "secure"}
    assert (len(rounds_of("b", asked)) == 40) == (code in honest)


# -- set aside, on probation, back ------------------------------------------------------------------------------------


def test_strikes_count_in_a_row_only() -> None:
    _, asked = play({"a": [OK], "b": ["norm", "norm", OK] * 14}, after=3, rounds=4)
    assert len(rounds_of("b", asked)) == 40


def test_an_honest_no_between_two_lies_neither_counts_nor_forgives() -> None:
    box = Quarantine(QuarantineSettings(after=2, rounds=5))
    for number, (reason, declined) in enumerate([("norm", set()), ("budget", {"b"}), ("norm", set())], 1):
        assert box.able(number, ["a", "b"]) == ["a", "b"]
        box.record(number, {"a"}, {"b": reason}, declined)
    assert box.able(4, ["a", "b"]) == ["a"]


def test_one_admitted_reply_on_probation_brings_a_site_back_as_if_nothing_had_been() -> None:
    _, asked = play({"a": [OK], "b": ["norm"] * 2 + [OK] + ["norm"] * 9}, after=2, rounds=3)
    assert rounds_of("b", asked) == [1, 2, 6, 7, 8, 12, 19, 32]


def test_an_honest_no_on_probation_keeps_the_site_on_probation() -> None:
    box = Quarantine(QuarantineSettings(after=1, rounds=2))
    box.record(1, {"a"}, {"b": "wire"})
    before = box.standings["b"]
    assert [box.able(n, ["b", "a"]) for n in (2, 3, 4)] == [["a"], ["a"], ["b", "a"]]
    box.record(4, {"a"}, {"b": "budget"}, {"b"})
    assert box.standings["b"] == before
    assert box.able(5, ["b"]) == ["b"]


def test_a_quarantine_doubles_with_every_failed_probe_up_to_a_bound() -> None:
    box = Quarantine(QuarantineSettings(after=1, rounds=3))
    lengths, number = [], 1
    for _ in range(8):
        box.record(number, {"a"}, {"b": "no-answer"})
        lengths.append(box.standings["b"].length)
        number = box.standings["b"].until + 1
    assert lengths == [3, 6, 12, 24, 48, 48, 48, 48]
    assert lengths[-1] == 3 * LONGEST
    assert box.standings["b"].times == 8


def test_a_site_is_tried_when_it_is_asked_next_and_not_judged_before() -> None:
    """The cohort of a round may be without it."""
    box = Quarantine(QuarantineSettings(after=1, rounds=2))
    box.record(1, {"a"}, {"b": "norm"})
    for number in range(2, 9):
        box.record(number, {"a"}, {})
    assert box.able(9, ["b"]) == ["b"]
    assert not box.standings["b"].free
    box.record(9, {"b"}, {})
    assert box.standings["b"] == Standing(times=1)


def test_a_site_that_was_admitted_has_no_strike_whatever_else_it_sent() -> None:
    box = Quarantine(QuarantineSettings(after=1))
    box.record(1, {"a"}, {"a": "wire"})
    assert box.standings == {}


def test_with_after_zero_nobody_is_ever_set_aside() -> None:
    box, asked = play({"a": ["norm"], "b": ["no-answer"]}, rounds=1)
    assert asked == [["a", "b"]] * 40
    assert box.state() == {}


# -- never too few ----------------------------------------------------------------------------------------------------


def test_the_least_guilty_come_back_early_where_a_round_would_be_of_too_few() -> None:
    box = Quarantine(QuarantineSettings(after=1, rounds=10, minimum=3))
    box.record(1, {"b", "c", "d"}, {"a": "norm"})
    assert box.able(2, SITES) == ["b", "c", "d"]
    box.record(2, {"c", "d"}, {"b": "norm"})
    assert box.able(3, SITES) == ["a", "c", "d"]  # a's quarantine ends first
    box.record(3, {"c", "d"}, {"a": "norm"})
    assert box.able(4, SITES) == ["b", "c", "d"]  # a's is the longer one now
    box.record(4, {"b", "c", "d"}, {})
    assert box.standings["b"].free
    assert box.able(5, SITES) == ["b", "c", "d"]


def test_nobody_is_left_out_of_a_round_that_has_too_few_already() -> None:
    box = Quarantine(QuarantineSettings(after=1, rounds=10, minimum=3))
    box.record(1, set(), dict.fromkeys(SITES, "norm"))
    assert box.able(2, ["d", "b"]) == ["d", "b"]
    assert box.able(2, []) == []
    assert box.able(2, SITES) == ["a", "b", "c"]


def test_guilt_is_the_length_of_the_quarantine_then_its_end_then_the_name() -> None:
    def aside(since: int, length: int) -> dict[str, Any]:
        return {**ASIDE, "since": since, "length": length, "until": since + length}

    box = Quarantine(QuarantineSettings(after=3, rounds=4, minimum=1))
    box.load_state({"a": aside(1, 32), "b": aside(30, 4), "c": aside(29, 4), "d": aside(29, 4)})
    order = [box.able(31, [site for site in SITES if site not in gone]) for gone in ("", "c", "cd", "bcd")]
    assert order == [["c"], ["d"], ["b"], ["a"]]
    assert box.able(31, ["x", *SITES]) == ["x"]
    assert box.able(31, ["x", "y", *SITES]) == ["x", "y"]  # and nobody comes back where there are enough


# -- what is told and kept --------------------------------------------------------------------------------------------


def test_a_row_says_who_why_until_when_and_how_often_and_one_tells_of_the_return() -> None:
    box = Quarantine(QuarantineSettings(after=1, rounds=2))
    base: dict[str, Any] = {"stage": 0, "scope": "site", "task": "cards", "metric": "quarantine", "n": None}
    box.record(5, {"a"}, {"b": "wrong-shape"})
    told = {**base, "round": 5, "site": "b", "value": 2.0, "reason": "wrong-shape", "until": 7, "times": 1}
    assert box.rows(5, 0, "cards") == [told]
    box.record(6, {"a"}, {})
    assert box.rows(6, 0, "cards") == []
    box.record(8, {"a", "b"}, {})
    back = {**base, "round": 8, "site": "b", "value": 0.0, "reason": "", "until": 0, "times": 1}
    assert box.rows(8, 0, "cards") == [back]
    box.record(9, {"a", "b"}, {})
    assert box.rows(9, 0, "cards") == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"strikes": -1}, {"strikes": 1.0}, {"since": 4}, {"until": 10}, {"until": 0}, {"times": 0}, {"reason": 7},
        {"since": 5, "length": 5, "until": 10}, {"length": 128, "until": 133}, {"strikes": True}, {"new field": 1},
        {"since": 0, "until": 0, "length": 0, "reason": "", "strikes": 3},
    ],
    ids=str,
)  # fmt: skip
def test_a_damaged_state_is_refused_and_nothing_of_it_is_taken_up(wrong: dict[str, Any]) -> None:
    box = Quarantine(QuarantineSettings(after=3, rounds=4))
    box.load_state({"b": ASIDE})
    with pytest.raises(RunError, match=r"the saved quarantine of . site"):
        box.load_state({"a": ASIDE, "b": {**ASIDE, **wrong}})
    assert box.state() == {"b": ASIDE}


def test_settings_out_of_bounds_are_named_all_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        QuarantineSettings(after=-1, rounds=0, minimum=0)
    assert len(caught.value.faults) == 3


# -- any sequence of events -------------------------------------------------------------------------------------------

HONEST = [(OK, False), *((code, True) for code in ("budget", "privacy", "data", "model"))]
ANSWERS = [(OK, False), ("no-answer", False), ("norm", False), ("duplicate", False)]
ANSWERS += [("wire", False), ("wire", True), ("budget", True), ("error", True), ("unknown", True), ("data", True)]


def expected_until(history: list[tuple[int, str, bool]], after: int, rounds: int) -> int:
    """The end of a site's last quarantine (0: free), from all its answers ``(round, word, declined)``, by hand."""
    while True:
        good = [i for i, (_, word, _) in enumerate(history) if word == OK]
        if not good:
            break
        history = history[good[-1] + 1 :]
    bad = [number for number, word, declined in history if is_strike(word, declined=declined)]
    if len(bad) < after:
        return 0
    return bad[-1] + rounds * min(2 ** (len(bad) - after), LONGEST)


@given(st.data(), st.integers(0, 3), st.integers(1, 3), st.integers(1, 4))
def test_any_sequence_of_answers_leaves_a_legal_state_that_survives_a_restart(
    data: st.DataObject, after: int, rounds: int, minimum: int
) -> None:
    settings = QuarantineSettings(after, rounds, minimum)
    box, histories = Quarantine(settings), {site: list[tuple[int, str, bool]]() for site in SITES}
    for number in range(1, data.draw(st.integers(1, 12)) + 1):
        there = data.draw(st.lists(st.sampled_from(SITES), unique=True))
        able = box.able(number, there)
        assert able == [site for site in there if site in able]
        assert len(able) >= min(minimum, len(there))
        asked = [site for site in able if data.draw(st.booleans()) or site == "a"]  # a cohort
        said = {site: data.draw(st.sampled_from(HONEST if site == "a" else ANSWERS)) for site in asked}
        for site, (word, declined) in said.items():
            histories[site].append((number, word, declined))
        admitted = {site for site, (word, _) in said.items() if word == OK}
        refused = {site: word for site, (word, _) in said.items() if site not in admitted}
        box.record(
            number,
            admitted,
            refused,
            {site for site, (_, declined) in said.items() if declined},
        )
        again = Quarantine(settings)
        again.load_state(json.loads(json.dumps(box.state())))
        assert again.state() == box.state()
        assert all(again.able(later, SITES) == box.able(later, SITES) for later in (number + 1, number + 4))
        assert "a" not in box.standings  # who is always honest has no record at all
        if after:
            for site in SITES:
                found = box.standings.get(site, Standing()).until
                assert found == expected_until(histories[site], after, rounds)
        box = again
