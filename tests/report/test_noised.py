"""Who adds the noise stands beside every epsilon, and whom it holds against follows from it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchain_fl.adapter.card import privacy_sentence
from llmchain_fl.compare.outcome import Epsilon
from llmchain_fl.continual.at_epsilon import Spent
from llmchain_fl.core.privacy.plan import PrivacyPlan
from llmchain_fl.report.noised import noise_words, noised_by
from llmchain_fl.report.readings import Readings
from llmchain_fl.report.spending import Spending
from llmchain_fl.report.verdict import answers
from llmchain_fl.report.wording import guarantee

SUM = "noise on the sum of 4 to 5 sites, which share it; against the server alone"


def plan(unit: str = "person", shares: int = 1, members: int = 1) -> PrivacyPlan:
    rate = 1.0 if unit == "site" else 0.1
    return PrivacyPlan(rate, 1.0, 1.0, 1, 8.0, 1e-5, unit, shares=shares, members=members, grid=13 * (shares > 1))


@pytest.mark.parametrize(
    ("of", "value", "words"),
    [
        (plan(), "site", "noise added at each site"),
        (plan("record"), "site", "noise added at each site"),
        (plan("site"), "server", "noise added at the server, which is trusted"),
        (plan(shares=3, members=3), "sum 3", "noise on the sum of 3 sites, which share it; against the server alone"),
        (plan(shares=4, members=5), "sum 4-5", SUM),
        (plan("site", 4, 5), "sum 4-5", SUM),
    ],
)
def test_each_kind_of_noise_has_its_words(of: PrivacyPlan, value: str, words: str) -> None:
    assert noised_by(of) == value
    assert guarantee(1e-5, of.unit, "pld", value) == f"delta 1e-5, per {of.unit}, PLD accountant, {words}"


@pytest.mark.parametrize(("unit", "value"), [("person", "site"), ("record", "site"), ("site", "server")])
def test_a_run_of_an_earlier_version_has_the_words_of_its_unit(unit: str, value: str) -> None:
    assert noise_words("", unit) == noise_words(value, unit)


@given(st.text(max_size=12), st.sampled_from(["person", "site"]))
def test_no_other_value_claims_anything(noise: str, unit: str) -> None:
    known = {"", "site", "server", "counted"}
    words = noise_words(noise, unit)
    if noise not in known and not noise.startswith("sum "):
        assert words.short == "noise not stated"
    if noise.startswith("sum ") and not noise[4:].replace("-", "", 1).isdecimal():
        assert words.short == "noise not stated"


@pytest.mark.parametrize("noise", ["site", "sum 3", "sum 4-5", "server", "", "nonsense"])
def test_only_noise_that_the_site_adds_alone_needs_no_trust(noise: str) -> None:
    words = noise_words(noise, "person")
    assert ("need not trust" in words.trusted) is (noise in ("site", ""))
    assert ("whoever sees what left the sites" in words.seen_by) is (noise in ("site", ""))


def row(value: float, number: int = 1, **more: Any) -> dict[str, Any]:
    base = {"round": number, "stage": 0, "scope": "site", "site": "a", "task": "all", "metric": "epsilon", "n": None}
    return base | {"value": value, "delta": 1e-5, "unit": "person", "accountant": "pld"} | more


def test_the_words_follow_the_rows_and_the_file_wherever_an_epsilon_is_read() -> None:
    rows = [row(2.0, noise="sum 4-5")]
    price = Spent(rows).by(1)
    assert price is not None
    assert price.noise == "sum 4-5"
    assert SUM in Spending.of(Readings(rows), {}).guarantee
    assert SUM in Spending.of(Readings([]), {"private": True, "noise": "sum 4-5"}).guarantee
    assert SUM in Epsilon(2.0, 1e-5, "person", "pld", "sum 4-5").terms
    assert "added at each site" in Spending.of(Readings([row(2.0)]), {}).guarantee


def test_a_run_may_go_on_with_other_noise_and_is_told_of_as_it_is_now() -> None:
    rows = [row(1.0, noise="sum 4"), row(2.0, 2, noise="sum 4-5")]
    price = Spent(rows).by(2)
    assert price is not None
    assert (price.epsilon, price.noise) == (2.0, "sum 4-5")


def test_the_card_says_that_the_noise_is_whole_in_the_sum_only() -> None:
    said = privacy_sentence(2.0, "terms", plan(shares=4, members=5))
    assert "at the sites, which share it: it is whole in their sum only" in said
    assert privacy_sentence(2.0, "terms", plan()).endswith("noise is added at the sites")


def written(by_peers: dict[str, float | None]) -> dict[str, Any]:
    """``privacy.json`` of a run in which noise is shared."""
    terms = {"private": True, "delta": 1e-5, "unit": "person", "accountant": "pld", "noise": "sum 4-5"}
    return terms | {"sites": {"a": {"epsilon": 2.0}}, "epsilon_by_trusted_peers": by_peers}


def test_the_report_says_both_numbers_and_what_is_between() -> None:
    lines = answers([], written({"0": 9.1, "1": 9.1, "2": 4.4, "3": 2.7, "4": 2.0}))[3].lines
    assert lines[1] == (
        "Against the server alone epsilon is 2.00; together with 2 of the 4 other sites 4.40; by a site's own share of "
        "the noise, whoever is with the server, 9.10 (highest of the sites, with the same delta, unit and accountant)."
    )
    assert lines[0].startswith("For the server alone, and whoever sees what it makes of the sums, the odds")
    assert "counts fewer of them (`secure.counted_peers`" in lines[2]


@pytest.mark.parametrize(
    ("by_peers", "said"),
    [
        ({"0": 9.1, "1": 9.1, "2": 2.0}, "epsilon is 2.00; by a site's own share"),
        ({"0": None, "1": None, "2": 2.0}, "by a site's own share of the noise, whoever is with the server, no finite"),
        ({}, ""),
    ],
    ids=["half says no more than one share", "one share bounds nothing", "an earlier version"],
)
def test_what_is_not_known_or_says_no_more_is_left_out(by_peers: dict[str, float | None], said: str) -> None:
    text = Spending.of(Readings([]), json.loads(json.dumps(written(by_peers)))).with_others
    assert said in text
    assert bool(said) == bool(text)
