"""From nothing to a finished run of secure sums: kits, TLS, keys that sites made, a folder with blanks in its name.

What is typed is counted: the commands are those of docs/on-premise.md.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import CliRunner

from client.site import read_site
from llmchain_fl.audit_log import read_log
from llmchain_fl.cli.apps import app_root
from llmchain_fl.cli.main import app
from llmchain_fl.core.audit import FILE
from llmchain_fl.run_dir import RunDir

pytestmark = [pytest.mark.thorough, pytest.mark.slow, pytest.mark.flower, pytest.mark.timeout(900)]
NAMES, KEY = ("north", "south", "west"), re.compile("ed25519:[0-9a-f]+")
PAGE = """
name = "lab"
address = "localhost:{port}"
scenario = "scenario.toml"
keys = "requested"
[data]
columns = {{ text = "note", label = "department", person = "patient" }}
[secure]
counted_peers = 2
[sites.north]
[sites.south]
[sites.west]
"""
PRIVATE = {"enabled": True, "epsilon": 3.0, "delta": 1e-4, "noise": "sum", "clip_norm": 1.0}
LOCKSTEP = {"method": "lockstep", "steps": 1, "sampling_rate": 0.6, "batch_size": 8.0, "lr": 0.02}


@pytest.fixture
def federation(federated: Callable[..., Any]) -> Any:
    """A page, a scenario, and records at each site."""
    sections: dict[str, Any] = {
        "train": LOCKSTEP, "privacy": PRIVATE, "secure": {"sum": True}, "data": {"train": "at-the-sites"},
        "sites": {"count": 3, "held_out": 0.0, "wait_seconds": 60}, "task": {"head": "trained"},
        "continual": {"guards": []}, "stage": [{"name": "only", "rounds": 2}],
    }  # fmt: skip
    return federated(PAGE, "three hospitals", **sections)


def test_from_nothing_to_a_finished_run_that_everybody_can_check(federation: Any, kits: Any, tiny: Any) -> None:
    one = federation
    for name in NAMES:
        one.at(name).mkdir()
        one.type(name, "site", "request", name, "--folder", ".")
    asked = [word for name in NAMES for word in ("--request", f"{name}/{name}.request.json")]
    one.type("coordinator", "provision", "federation.toml", "--out", "kits", *asked)
    for name in NAMES:  # carried by hand
        shutil.copytree(one.folder / "kits" / "sites" / name, one.at(name), dirs_exist_ok=True)
        kits.records(tiny, one.at(name) / "records")
    one.up("coordinator", "coordinator", "up", "kits/coordinator")
    for name in NAMES:
        one.up(name, "site", "up")
    told = one.type("coordinator", "coordinator", "run", "kits/coordinator")
    assert "3 of 3 sites there" in told
    assert "round 2/2 only, 3 sites, largest epsilon 3.00 (delta 0.0001" in told
    assert "3 of 3 sites there" in one.type("coordinator", "coordinator", "status", "kits/coordinator")
    assert one.typed == {"coordinator": 4, "north": 2, "south": 2, "west": 2}
    check_books(one)
    check_evidence(one)
    plain = ("secure.sum=false", "privacy.noise=site", "privacy.epsilon=0", "privacy.noise_multiplier=2")
    settings = [word for setting in plain for word in ("--set", setting)]
    assert "gave an update (privacy)" in one.type(
        "coordinator", "coordinator", "run", "kits/coordinator", *settings, code=1
    )
    one.stop()
    for name in NAMES:
        log = read_log(read_site(one.at(name) / "site.toml").audit.file)
        assert [line["type"] for line in log[:3]] == ["open", "started", "approved"]
        assert (log[-1]["type"], log[-1]["why"]) == ("stopped", "done")


def check_books(one: Any) -> None:
    """Every ledger has the epsilon of the plan, and what was let out was masked."""
    run = RunDir.open(one.kit / "runs" / "lab-1")
    told = run.read_privacy()["sites"]
    for name in NAMES:
        site = read_site(one.at(name) / "site.toml")
        assert site.secure.only  # by which an unmasked update is refused
        spent = site.open_ledger("person").spent()
        assert spent.epsilon == pytest.approx(told[name]["epsilon"], abs=1e-6)
        assert 2.9 < spent.epsilon <= 3.0
        kinds = [line["kind"] for line in read_log(site.audit.file) if line["type"] == "answered"]
        assert kinds.count("train") == 2
        assert kinds.count("query.secure") == 4
    assert {row["metric"] for row in run.rows()}.isdisjoint({"update_norm", "refused"})
    received = [line for line in read_log(run.audit / FILE) if line["type"] == "received"]
    assert {line["decision"] for line in received} == {"answered"}


def said(*words: str) -> str:
    """A command in this process: what is imported here already costs a new one ten seconds each time."""
    done = CliRunner().invoke(app, list(words), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def check_evidence(one: Any) -> None:
    """The verifier alone believes it."""
    words, keys = list[str](), list[str]()
    for name in NAMES:
        place = one.at(name)
        said("audit-log", "export", str(place / "site.toml"), "--out", str(place / "part.zip"))
        words += ["--site", str(place / "part.zip")]
        keys += ["--site", f"{name}={KEY.findall(said('identity', str(place / 'site.toml')))[0]}"]
    archive = str(one.folder / "evidence.zip")
    key = KEY.findall(said("evidence", str(one.kit / "runs" / "lab-1"), "--out", archive, *words))[0]
    verifier = str(app_root() / "llmchain_fl" / "evidence" / "verify.py")
    command = [sys.executable, verifier, archive, "--key", key, *keys]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
