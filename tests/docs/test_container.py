"""The container file and its compose file: pinned, not root, nothing fetched by hand, bound to this machine."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "examples" / "container"


def steps() -> list[tuple[str, str]]:
    """(instruction, rest) of the container file."""
    text = re.sub(r"^#.*\n", "", (FOLDER / "Containerfile").read_text(encoding="utf-8"), flags=re.M)
    lines = text.replace("\\\n", " ").splitlines()
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines if line.strip())]


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    told: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text(encoding="utf-8"))
    return told["services"]["serve"]


def test_it_begins_from_a_pinned_image_and_copies_what_there_is() -> None:
    (first,) = [rest for word, rest in steps() if word == "FROM"]
    assert re.fullmatch(r"python:3\.(11|12|13)\.\d+-slim-\w+", first)
    copied = [name for word, rest in steps() if word == "COPY" for name in rest.split()[:-1]]
    assert {"constraints.txt", "pyproject.toml", "llmchain_fl", "client", "server", "simulations"} <= set(copied)
    assert all((ROOT / name).exists() for name in copied)
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert {".git", ".venv", "runs"} <= set(ignored)
    assert not set(copied) & set(ignored)


def test_nothing_is_fetched_by_hand_and_the_server_is_not_root() -> None:
    words = [word for word, _ in steps()]
    assert "ADD" not in words
    assert not re.search(r"curl|wget|sudo|chmod 777", (FOLDER / "Containerfile").read_text())
    users = [rest for word, rest in steps() if word == "USER"]
    assert users
    assert users[-1].isdigit()
    assert int(users[-1]) >= 10_000
    assert words.index("USER") < words.index("ENTRYPOINT") < words.index("CMD")
    assert "HEALTHCHECK" in words
    (install,) = [rest for word, rest in steps() if word == "RUN"]
    assert "-c constraints.txt" in install
    assert "--no-cache-dir" in install


def test_what_it_starts_is_a_command_that_there_is() -> None:
    from typer.testing import CliRunner

    from llmchain_fl.cli.main import app

    (told,) = [rest for word, rest in steps() if word == "CMD"]
    words = yaml.safe_load(told)
    assert CliRunner().invoke(app, [*words[:2], "--help"]).exit_code == 0


def test_compose_reaches_no_further_than_this_machine_and_may_do_little(compose: dict[str, Any]) -> None:
    assert all(port.startswith("127.0.0.1:") for port in compose["ports"])
    assert compose["read_only"] is True
    assert compose["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in compose["security_opt"]
    assert "privileged" not in compose
    assert (FOLDER / compose["build"]["context"]).resolve() == ROOT
    assert (ROOT / compose["build"]["dockerfile"]).is_file()
    writable = [one for one in compose["volumes"] if not one.endswith(":ro")]
    assert [one.partition(":")[0] for one in writable] == ["./my-desk/kept"]


def test_a_linter_finds_nothing() -> None:
    if shutil.which("hadolint") is None:
        pytest.skip("hadolint is not installed")
    done = subprocess.run(["hadolint", str(FOLDER / "Containerfile")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
