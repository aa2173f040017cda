"""Kits start what they are for, wherever they lie, and only runs of approved code."""

from __future__ import annotations

import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from llmchain_fl.cli.main import app
from llmchain_fl.core.errors import ConfigError
from llmchain_fl.onprem.from_kit import coordinator_of, site_of
from llmchain_fl.onprem.runs import Runs


def refused(*words: str) -> ConfigError:
    """The error of a command."""
    result = CliRunner().invoke(app, list(words))
    assert isinstance(result.exception, ConfigError)
    return result.exception


def test_a_sites_kit_says_where_the_coordinator_is_and_with_which_keys(kit: Any) -> None:
    folder = kit.tree.site("north")
    told = site_of(folder)
    told.check()
    assert (told.superlink, told.site.parent, told.insecure) == ("localhost:8000", folder, False)
    assert told.environment["FLWR_HOME"] == str(folder / "flower")
    assert told.environment["HF_HUB_OFFLINE"] == "1"


def test_a_coordinators_kit_that_was_moved_holds_the_new_place_of_its_authority(kit: Any, tmp_path: Path) -> None:
    place = tmp_path / "b c"
    shutil.move(kit.tree.coordinator, place)
    told = coordinator_of(place)
    told.check()
    assert (told.host, told.port, told.reached_at, told.known_sites) == ("127.0.0.1", 8000, "127.0.0.1", True)
    link = tomllib.loads((place / "flower/config.toml").read_text())["superlink"]["lab"]
    assert link["root-certificates"] == str(place / "ca.crt")


def test_options_of_the_connection_are_refused_beside_a_kit(kit: Any) -> None:
    folder = str(kit.tree.site("north"))
    assert "a kit says itself" in str(refused("site", "up", folder, "--superlink", "a:1"))
    assert "a kit says itself" in str(refused("coordinator", "up", str(kit.tree.coordinator), "--port", "9"))


def test_a_site_file_alone_needs_the_coordinators_address(kit: Any) -> None:
    fault = refused("site", "up", str(kit.tree.site("north") / "site.toml"))
    assert "--superlink : give HOST:PORT (or a kit's folder in place of a site file)" in str(fault)


def test_a_folder_without_a_kit_is_told(tmp_path: Path) -> None:
    assert "kit.toml" in str(refused("site", "up", str(tmp_path)))
    assert "kit.toml" in str(refused("coordinator", "up", str(tmp_path)))


def test_a_run_of_code_that_no_kit_approves_is_not_started(kit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmchain_fl.onprem.runs.bundle_bytes", lambda root: b"changed")
    with pytest.raises(ConfigError, match="and the kits approve another"):
        Runs(kit.tree.coordinator, kit.app).bundle()


def test_a_run_is_named_by_its_scenario_and_lies_in_the_kit(kit: Any) -> None:
    runs = Runs(kit.tree.coordinator, kit.app)
    told = runs.wish("", ["stage.rounds=2"])
    assert told.out == kit.tree.coordinator.absolute() / "runs" / "lab-1"
    assert told.config(again=False)["set"].string == "stage.rounds=2"
    assert set(told.config(again=True)) == {"out", "resume"}
    assert runs.wish("demo", []).out.name == "demo-1"
