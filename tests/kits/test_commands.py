"""What is typed: provision, renew, revoke, reissue; at a site request and check."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from llmchain_fl.cli.main import app
from llmchain_fl.core.errors import ConfigError
from llmchain_fl.onprem.roster import read_roster


def run(*words: str, code: int = 0) -> str:
    """What is printed."""
    result = CliRunner().invoke(app, list(words), catch_exceptions=True)
    if isinstance(result.exception, ConfigError):
        raise result.exception
    assert result.exit_code == code, (result.output, result.exception)
    return result.output


@pytest.fixture
def place(lab: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a page, whose app is a small one."""
    lab.page()
    monkeypatch.chdir(lab.folder)
    monkeypatch.setattr("llmchain_fl.onprem.provision.code_digest", lambda root: "sha256:" + "0" * 64)
    return Path(lab.folder)


def test_one_command_writes_all_kits_beside_the_page(place: Path) -> None:
    said = run("provision", "federation.toml")
    assert "server     certificate until" in said
    assert {path.name for path in (place / "lab-kits" / "sites").iterdir()} == {"north", "south", "west"}
    assert "every site must read the same" in said
    assert "were made here" not in said  # no secure sum is planned


def test_whoever_makes_the_keys_of_a_secure_sum_is_told_what_that_means(lab: Any, place: Path) -> None:
    lab.page(lab.text.replace("small.toml", "demo").replace("[limits]", "[secure]\ncounted_peers = 0\n[limits]"))
    assert "could stand in for them in a secure sum" in run("provision", "federation.toml", "--out", "kits")


def test_a_site_makes_its_keys_and_the_coordinator_never_has_them(lab: Any, place: Path) -> None:
    lab.page(lab.requested)
    said = run("site", "request", "north")
    assert "it stays at this site" in said
    keys = sorted((place / "north" / "keys").iterdir())
    assert [stat.S_IMODE(path.stat().st_mode) for path in keys] == [0o600, 0o600]
    before = [path.read_bytes() for path in keys]
    assert "there already" in run("site", "request", "north")
    assert [path.read_bytes() for path in keys] == before
    told = run("provision", "federation.toml", "--request", "north/north.request.json")
    assert "! south has sent no request yet" in told
    assert not list((place / "lab-kits" / "sites").rglob("*.key"))


def test_a_name_that_is_none_is_no_sites(place: Path) -> None:
    with pytest.raises(ConfigError, match="is no name of a site"):
        run("site", "request", "../up")
    assert not (place.parent / "up").exists()


def test_renew_revoke_and_reissue_say_what_to_do_next(place: Path) -> None:
    run("provision", "federation.toml")
    assert "restart the coordinator" in run("provision", "renew", "lab-kits", "--days", "30")
    said = run("provision", "revoke", "north", "lab-kits")
    assert "take north out of [secure.peers]" in said
    assert "north is revoked: " in run("provision", "federation.toml")
    run("provision", "reissue", "north")
    assert set(read_roster(place / "lab-kits/coordinator/roster.json").sites) == {"north", "south", "west"}


def test_a_check_ends_with_2_where_something_is_refused_and_shows_remedies(lab: Any, place: Path) -> None:
    run("provision", "federation.toml")
    said = run("site", "check", "lab-kits/sites/north", code=2)
    assert "refusal  coordinator  localhost:8000: nobody listens there" in said
    assert "-> wait until the coordinator is up, or check the port" in said
    told = json.loads(run("site", "check", "lab-kits/sites/north", "--json", code=2))
    assert not told["ok"]
    assert {line["level"] for line in told["lines"]} <= {"ok", "warning", "refusal"}


def test_a_bare_site_file_is_checked_too_and_ends_with_0(lab: Any, place: Path) -> None:
    run("provision", "federation.toml")
    lab.tree = type(lab.tree)(place / "lab-kits")
    lab.records("first", [("lost card", "lost_card", f"p{i}") for i in range(20)])
    lab.records("second", [("loan rate", "rates", f"p{i}") for i in range(20)])
    folder = lab.tree.site("north")
    (folder / "kit.toml").unlink()
    said = run("site", "check", str(folder / "site.toml"))
    assert "warning  kit" in said
    assert "ready to join" in said
    said = run("site", "check", str(folder / "site.toml"), "--scenario", str(folder / "scenario.toml"))
    assert "ok       plan         its 4 rounds take this site" in said


def test_a_kit_that_somebody_edited_is_told(place: Path) -> None:
    run("provision", "federation.toml")
    file = place / "lab-kits/sites/north/kit.toml"
    file.write_text(file.read_text().replace("federation =", "federatoin ="))
    with pytest.raises(ConfigError, match="federatoin is no key; did you mean federation"):
        run("site", "check", str(file.parent))
