"""Every answer that there is has been decided upon."""

from __future__ import annotations

from llmchain_fl.aggregation.admission import REASONS
from llmchain_fl.core.errors import CODES
from server.strikes import DECLINED, REFUSED, is_strike


def test_every_reason_of_the_server_and_every_code_of_a_site_has_been_decided_upon() -> None:
    assert {*REASONS, "other", "wire", "no-answer"} <= set(REFUSED)
    assert {*CODES, "unknown"} == set(DECLINED)


def test_what_an_honest_site_may_say_is_no_strike_and_what_costs_others_something_is() -> None:
    assert {code for code in DECLINED if is_strike(code, declined=True)} == {"error", "training", "unknown"}
    free = {reason for reason in REFUSED if not is_strike(reason, declined=False)}
    assert free == {"duplicate", "weight", "scale"}


def test_the_same_word_counts_by_who_said_it() -> None:
    assert is_strike("wire", declined=False)
    assert not is_strike("wire", declined=True)
    assert not is_strike("model", declined=False)  # a part of the server failed on it
    assert is_strike("unheard of", declined=True)
