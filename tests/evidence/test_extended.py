"""Evidence of a run that was extended, broken off and gone on with: all of it is in the archive, and hangs together."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Callable
from typing import Any

import pytest

LOG, SITES = "run/audit.jsonl", ("site-00", "site-02")
Change = Callable[[Any], Any]


def found(verifier: Any, forger: Any, key: str) -> list[tuple[str, str, str]]:
    report = verifier.Report()
    try:
        verifier.check(forger.files, key, {}, report)
    except (LookupError, ValueError, TypeError, AttributeError) as fault:
        report.need("file", (False, "archive", str(fault)))
    return list(report.faults)


@pytest.mark.part(1)
@pytest.mark.thorough
def test_the_whole_lineage_is_in_the_archive_and_is_accepted(
    extended: Any, verifier: Any, forger_of_the_extended: Any
) -> None:
    forger = forger_of_the_extended
    assert found(verifier, forger, extended.key) == []
    lines = [json.loads(line) for line in forger.files[LOG].splitlines()]
    policies = list(dict.fromkeys(line["policy"] for line in lines))
    assert len(policies) == 3
    assert earlier(forger) == [f"run/settings/{policy}.toml" for policy in sorted(policies[:-1])]
    assert [line["type"] for line in lines].count("changed") == 2
    assert {line["round"] for line in lines if line["type"] == "asked"} >= {1, 2, 3, 4, 5, 6}
    book = json.loads(forger.files["run/privacy.json"])
    assert [plan["noise_multiplier"] for plan in [*book["earlier_plans"], book]] == [1.0, 1.7]
    assert sum(book["sites"]["site-00"]["groups"].values()) > 4


def earlier(forger: Any) -> list[str]:
    return sorted(name for name in forger.files if name.startswith("run/settings/"))


def first(forger: Any) -> str:
    """The settings that the run began with."""
    (name,) = [one for one in earlier(forger) if len(tomllib.loads(forger.files[one].decode())["stage"]) == 2]
    return name


def reworded(old: bytes, new: bytes) -> Change:
    """The first settings, and every line that was written by them."""

    def plant(forger: Any) -> None:
        name = first(forger)
        text = forger.files.pop(name).replace(old, new)
        was, now = name[len("run/settings/") : -len(".toml")], hashlib.sha256(text).hexdigest()
        forger.files[f"run/settings/{now}.toml"] = text

        def follow(lines: list[dict[str, Any]]) -> None:
            for line in lines:
                line.update({field: now for field in ("policy", "was") if line.get(field) == was})

        forger.lines(LOG, follow)

    return plant


def gone(forger: Any) -> None:
    del forger.files[first(forger)]


def unsaid(forger: Any) -> None:
    """As if the last settings had held from the beginning."""
    for name in earlier(forger):
        del forger.files[name]

    def follow(lines: list[dict[str, Any]]) -> None:
        now = lines[-1]["policy"]
        lines[:] = [{**line, "policy": now} for line in lines if line["type"] != "changed"]

    forger.lines(LOG, follow)


def of_lines(change: Callable[[dict[str, Any]], Any], name: str = LOG, **wanted: Any) -> Change:
    """Every line with these values."""

    def follow(lines: list[dict[str, Any]]) -> None:
        for line in lines:
            if all(line.get(field) == value for field, value in wanted.items()):
                change(line)

    return lambda forger: forger.lines(name, follow)


def forgotten(forger: Any) -> None:
    def follow(lines: list[dict[str, Any]]) -> None:
        lines[:] = [line for line in lines if line.get("round") != 6]

    forger.lines(LOG, follow)


def book(change: Callable[[Any], Any]) -> Change:
    return lambda forger: forger.json("run/privacy.json", change)


PLANTS: dict[str, tuple[set[str], Change]] = {
    "earlier settings are not there": ({"policy"}, gone),
    "the change was never said": ({"charge"}, unsaid),
    "earlier settings with another noise": ({"charge"}, reworded(b"noise_multiplier = 1.0", b"noise_multiplier = 2.0")),
    "earlier settings with fewer rounds": ({"plan"}, reworded(b"rounds = 2", b"rounds = 1")),
    "a change from other settings": ({"policy"}, of_lines(lambda line: line.update(was="0" * 64), type="changed")),
    "a round beyond the plan": ({"plan"}, of_lines(lambda line: line.update(round=7), round=6)),
    "a round of the extension not told": ({"reply"}, forgotten),
    "the first plan not told": ({"plan", "epsilon"}, book(lambda told: told.pop("earlier_plans"))),
    "the first plan with more noise": (
        {"plan", "charge"},
        book(lambda told: told["earlier_plans"][0].update(noise_multiplier=1.7)),
    ),
    "the target of before": ({"plan", "limit"}, book(lambda told: told.update(target_epsilon=30.0))),
}


def at_a_site(site: str) -> dict[str, tuple[set[str], Change]]:
    ledger = f"sites/{site}/ledger.jsonl"

    def later(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [line for line in lines if line["type"] == "reserve" and line["key"].split("/")[1] in ("5", "6")]

    def charged(lines: list[dict[str, Any]]) -> None:
        for line in later(lines):
            line["charges"][0]["event"]["noise_multiplier"] = 3.4

    def planned(lines: list[dict[str, Any]]) -> None:
        plan = next(line["plan"] for line in lines if line["type"] == "reserve")
        for line in later(lines):
            line["plan"] = plan

    def moved(told: Any) -> None:
        for counts in told["sites"][site]["groups_by_plan"].values():
            counts.reverse()

    return {
        f"{site}: the extension charged with more noise": ({"charge"}, lambda forger: forger.lines(ledger, charged)),
        f"{site}: the extension under the first plan": (
            {"charge", "plan"},
            lambda forger: forger.lines(ledger, planned),
        ),
        f"{site}: rounds counted under the other plan": ({"count"}, book(moved)),
        f"{site}: epsilon of the last plan alone": (
            {"epsilon"},
            book(lambda told: told["sites"][site].update(epsilon=0.7 * told["sites"][site]["epsilon"])),
        ),
        f"{site}: rounds before the extension left out": (
            {"count"},
            book(lambda told: told["sites"][site].update(rounds=2)),
        ),
    }


PLANTS |= {name: plant for site in SITES for name, plant in at_a_site(site).items()}


@pytest.mark.parametrize("name", PLANTS)
def test_each_inconsistency_planted_in_its_past_is_found_and_named(
    name: str, extended: Any, verifier: Any, forger_of_the_extended: Any
) -> None:
    codes, change = PLANTS[name]
    change(forger_of_the_extended)
    forger_of_the_extended.sign()
    named = {code for code, *_ in found(verifier, forger_of_the_extended, extended.key)}
    assert named & codes, f"named {named}"
