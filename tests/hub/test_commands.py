"""The commands of the hub, from two machines: a publisher and a puller that trusts its key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from llmchain_fl.cli.main import app
from llmchain_fl.core.errors import ConfigError, LlmchainError
from llmchain_fl.hub import HubError

STATEMENT = {"data": "made up", "intended_use": "tests", "refused_use": "anything else", "licence": "Apache-2.0"}


def told(*words: str, home: Path) -> str:
    done = CliRunner().invoke(app, ["hub", *words, "--home", str(home)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.stdout


def test_a_publisher_and_a_puller_go_the_whole_way(run: Any, small: Any, tmp_path: Path) -> None:
    (tmp_path / "statement.json").write_text(json.dumps(STATEMENT))
    maker, puller, hub = tmp_path / "maker", tmp_path / "puller", str(tmp_path / "hub")
    key = told("keys", "new", home=maker).strip()
    assert told("keys", "show", home=maker).strip() == key == told("keys", "new", home=maker).strip()
    assert (maker / "identity.key").stat().st_mode & 0o077 == 0
    offer = ["publish", str(run.path), hub, "--name", "bank", "--statement", str(tmp_path / "statement.json")]
    assert told(*offer, home=maker).startswith("bank@1 ")
    assert told(*offer, home=maker).startswith("bank@2 ")
    with pytest.raises(HubError, match=r"^publisher:"):
        told("pull", hub, "bank", "--out", str(tmp_path / "got"), home=puller)
    assert told("keys", "trust", "north", key, home=puller) == "north is trusted\n"
    assert told("keys", "list", home=puller) == f"north {key}\n"
    assert "bank@2" in told("list", hub, home=puller)
    said = told("pull", hub, "bank@1", "--out", str(tmp_path / "got"), home=puller)
    assert said.startswith("bank@1 of north in ")
    checked = told("verify", str(tmp_path / "got"), "--base", str(small.bert), home=puller)
    assert checked.count("  holds  ") >= 10
    assert "WRONG" not in checked
    told("revoke", hub, "bank@1", "--reason", "one label was wrong", home=maker)
    assert "bank@1 " in (listed := told("list", hub, home=puller))
    assert "taken back: one label was wrong" in listed
    with pytest.raises(HubError, match=r"^revoked: bank@1 was taken back: one label was wrong"):
        told("verify", str(tmp_path / "got"), home=puller)
    told("renew", hub, "--days", "7", home=maker)
    assert told("list", hub, home=puller).startswith("serial 4,")
    told("keys", "distrust", "north", home=puller)
    with pytest.raises(HubError, match=r"^publisher:"):
        told("list", hub, home=puller)


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["publish", "RUN", "HUB", "--name", "Bank", "--statement", "S"], "no name of an adapter"),
        (["revoke", "HUB", "bank", "--reason", "x"], "names no version"),
        (["revoke", "HUB", "bank@1", "--reason", "a\nb"], "no printable text"),
        (["pull", "HUB", "../bank"], "is no adapter"),
        (["pull", "file:///etc", "bank"], "is no hub"),
        (["keys", "trust", "North", "ed25519:00"], "no publisher with its key"),
        (["keys", "distrust", "south"], "no publisher 'south' is trusted"),
    ],
)
def test_bad_input_is_one_error_with_its_remedy(run: Any, tmp_path: Path, words: list[str], fault: str) -> None:
    (tmp_path / "s.json").write_text(json.dumps(STATEMENT))
    places = {"RUN": str(run.path), "HUB": str(tmp_path / "hub"), "S": str(tmp_path / "s.json")}
    told("keys", "new", home=tmp_path / "home")
    with pytest.raises(LlmchainError, match=fault) as refused:
        told(*(places.get(word, word) for word in words), home=tmp_path / "home")
    assert refused.value.remedy
    assert not (tmp_path / "hub" / "index.json").exists()


def test_a_second_publisher_cannot_publish_into_the_hub_of_the_first(published: Any, run: Any, tmp_path: Path) -> None:
    copy = published.copied(tmp_path)
    (tmp_path / "s.json").write_text(json.dumps(STATEMENT))
    told("keys", "new", home=tmp_path / "other")
    words = ["publish", str(run.path), str(copy.hub), "--name", "bank", "--statement", str(tmp_path / "s.json")]
    with pytest.raises(ConfigError, match="hub of another publisher"):
        told(*words, home=tmp_path / "other")


def test_a_hub_that_was_put_back_from_a_backup_goes_on_above_what_was_signed_before(run: Any, tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text(json.dumps(STATEMENT))
    maker, hub = tmp_path / "maker", tmp_path / "hub"
    told("keys", "new", home=maker)
    words = ["publish", str(run.path), str(hub), "--name", "bank", "--statement", str(tmp_path / "s.json")]
    told(*words, home=maker)
    backup = (hub / "index.json").read_bytes()
    told("renew", str(hub), home=maker)
    told("renew", str(hub), home=maker)
    (hub / "index.json").write_bytes(backup)
    told("renew", str(hub), home=maker)
    assert told("list", str(hub), home=maker).startswith("serial 4,")
