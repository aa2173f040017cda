"""`llmchain-fl identity`: one line to hand to the other sites, and a key that nobody else can read."""

from __future__ import annotations

import stat
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from client.site import read_site
from llmchain_fl.cli.main import app
from llmchain_fl.core.errors import ConfigError, SecureSumError
from llmchain_fl.core.secure.identity import read_identity


def write_site(folder: Path, name: str = "north", more: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "site.toml"
    file.write_text(f'name = "{name}"\n[data]\ntrain = "x.csv"\n[limits]\n{more}', encoding="utf-8")
    return file


def said(file: Path) -> tuple[str, str]:
    """(what is printed for the others, what is said to whoever types it)"""
    result = CliRunner().invoke(app, ["identity", str(file)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout, result.stderr


@pytest.mark.parametrize("name", ["north", "st.mary-2"])
def test_the_line_is_what_the_other_sites_read(name: str, tmp_path: Path) -> None:
    shown, _ = said(write_site(tmp_path, name))
    assert shown.count("\n") == 1
    other = write_site(tmp_path / "other", "other", f"[secure.peers]\n{shown}")
    assert read_site(other).secure.peers == {name: read_identity(tmp_path / "state/identity.key").public}
    assert list(tomllib.loads(shown)) == [name]


def test_asked_again_it_is_the_same_line_and_no_new_key(tmp_path: Path) -> None:
    file = write_site(tmp_path)
    first, note = said(file)
    again, second = said(file)
    assert first == again
    assert "made a new private key" in note
    assert "made" not in second


def test_the_key_is_for_its_owner_alone_and_is_not_shown(tmp_path: Path) -> None:
    shown, note = said(write_site(tmp_path))
    key = tmp_path / "state/identity.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE(key.parent.stat().st_mode) == 0o700
    assert key.read_bytes().hex() not in shown + note


def test_the_key_is_where_the_site_file_says(tmp_path: Path) -> None:
    shown, _ = said(write_site(tmp_path, more='[secure]\nidentity = "keys/mine.key"\n'))
    assert read_identity(tmp_path / "keys/mine.key").public in shown
    assert not (tmp_path / "state").exists()


def test_a_damaged_key_is_not_made_anew(tmp_path: Path) -> None:
    file = write_site(tmp_path)
    said(file)
    (tmp_path / "state/identity.key").write_bytes(b"short")
    with pytest.raises(SecureSumError, match="damaged"):
        said(file)
    assert (tmp_path / "state/identity.key").read_bytes() == b"short"


def test_a_place_where_no_key_can_be_is_said_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file, no folder")
    with pytest.raises(ConfigError, match="the site's key cannot be written"):
        said(write_site(tmp_path))
