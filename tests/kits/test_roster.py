"""Who may connect, and by which keys."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llmchain_fl.core.errors import ConfigError
from llmchain_fl.onprem.keys import Public
from llmchain_fl.onprem.roster import Roster, read_roster, write_roster

NORTH, SOUTH = Public("north", "node 1", "identity 1"), Public("south", "node 2", "identity 2")
DAY = "2026-12-01"


def entered() -> Roster:
    return Roster(federation="lab").enter(NORTH, "made", DAY).enter(SOUTH, "requested", DAY)


def test_a_name_with_the_keys_that_it_has_changes_nothing() -> None:
    assert entered().enter(NORTH, "made", "2027-01-01") == entered()


@pytest.mark.parametrize(
    ("public", "words"),
    [
        (Public("north", "node 3", "identity 3"), "has other keys"),
        (Public("west", "node 1", "identity 3"), "on the roster already"),
        (Public("west", "node 3", "identity 2"), "on the roster already"),
        (Public("nroth", "node 3", "identity 3"), ""),
    ],
)
def test_a_key_is_used_once_and_a_name_has_one(public: Public, words: str) -> None:
    if not words:
        assert public.name in entered().enter(public, "made", DAY).sites
        return
    with pytest.raises(ConfigError, match=words):
        entered().enter(public, "made", DAY)


def test_revoked_keys_never_come_back_and_the_name_may() -> None:
    roster = entered().revoke("north", DAY)
    assert set(roster.sites) == {"south"}
    with pytest.raises(ConfigError, match="revoked"):
        roster.enter(NORTH, "made", DAY)
    again = roster.enter(Public("north", "node 4", "identity 4"), "requested", DAY)
    assert again.identities() == {"north": "identity 4", "south": "identity 2"}
    assert [past.name for past in again.revoked] == ["north"]


@pytest.mark.parametrize(("name", "words"), [("noth", "did you mean north"), ("east", "there is none")])
def test_a_name_that_is_none_cannot_be_revoked(name: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        entered().revoke(name, DAY)
    with pytest.raises(ConfigError, match="revoked already"):
        entered().revoke("north", DAY).revoke("north", DAY)


def test_a_roster_comes_back_as_it_was_written(tmp_path: Path) -> None:
    roster = entered().revoke("north", DAY)
    write_roster(tmp_path / "roster.json", roster)
    assert read_roster(tmp_path / "roster.json") == roster


def test_a_roster_that_is_gone_damaged_or_holds_a_key_twice_is_told(tmp_path: Path) -> None:
    file = tmp_path / "roster.json"
    with pytest.raises(ConfigError, match="there is no roster"):
        read_roster(file)
    file.write_text("{}")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_roster(file)
    told = json.loads(entered().model_dump_json())
    told["sites"]["south"]["node_key"] = "node 1"
    file.write_text(json.dumps(told))
    with pytest.raises(ConfigError, match="stands twice"):
        read_roster(file)
