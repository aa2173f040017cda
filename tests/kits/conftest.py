"""A small federation on paper: its page, its kits, records for one site."""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from client.site import Site, read_site
from llmchain_fl.config.read import read_config
from llmchain_fl.onprem.federation import Federation, read_federation
from llmchain_fl.onprem.kit import SCENARIO, SITE, read_site_kit
from llmchain_fl.onprem.kits import Tree
from llmchain_fl.onprem.provision import Told, provision
from llmchain_fl.onprem.site_check.subject import Plan, Subject

NOW = datetime(2026, 12, 1, 9, tzinfo=UTC)
BUNDLE = "sha256:" + "ab" * 32
PAGE = f"""
name = "lab"
address = "localhost:8000"
scenario = "small.toml"
bundles = ["{BUNDLE}"]
[data]
columns = {{ text = "note", label = "department", person = "patient" }}
[limits]
epsilon = 8.0
[sites.north]
[sites.south]
[sites.west]
"""
GOOD = [(f"lost card {i}", ("lost_card", "transfer")[i % 2], f"p{i // 2}") for i in range(20)]
RATES = [("loan rate", "rates", f"p{i}") for i in range(20)]
SCENARIO_TEXT = """
[model]
path = "{model}"
max_tokens = 12
[adapter]
rank = 2
[task]
labels = ["lost_card", "transfer", "rates"]
[data]
train = "at-the-sites"
test = ""
[train]
steps = 2
sampling_rate = 0.1
[privacy]
enabled = true
noise_multiplier = 2.0
delta = 1e-5
[[stage]]
name = "first"
rounds = 2
labels = ["lost_card", "transfer"]
[[stage]]
name = "second"
rounds = 2
labels = ["rates"]
"""


class Lab:
    """Where a page is, and the kits that were made of it."""

    now, text, bundle, good, rates = NOW, PAGE, BUNDLE, GOOD, RATES
    requested = PAGE.replace("[data]", 'keys = "requested"\n[data]')

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder, self.app = folder, folder / "app"
        self.tree = Tree(folder / "lab kits")
        if folder.exists():
            return
        folder.mkdir()
        (folder / "small.toml").write_text(SCENARIO_TEXT.format(model=model), encoding="utf-8")
        (self.app / "client").mkdir(parents=True)
        (self.app / "client" / "app.py").write_text("import json\n", encoding="utf-8")

    def page(self, text: str = PAGE) -> Federation:
        """The page, written and read."""
        file = self.folder / "federation.toml"
        file.write_text(text, encoding="utf-8")
        return read_federation(file, Site)

    def provision(self, text: str = PAGE, requests: Any = (), now: datetime = NOW) -> Told:
        """The kits."""
        return provision(self.page(text), self.tree.root, self.app, requests, now)

    def subject(self, name: str = "north", **changes: Any) -> Subject:
        """What ``site check`` is given of a kit."""
        folder = self.tree.site(name)
        kit = read_site_kit(folder)
        plan = Plan(read_config(folder / SCENARIO), kit.labels, kit.stages)
        return replace(Subject(read_site(folder / SITE), folder, self.app, NOW, kit, plan), **changes)

    def records(self, stage: str, rows: list[tuple[str, str, str]], name: str = "north") -> Path:
        """A stage's file at a site: note, department, patient."""
        folder = self.tree.site(name) / "records"
        folder.mkdir(exist_ok=True, mode=0o700)
        file = folder / f"{stage}.csv"
        with file.open("w", newline="", encoding="utf-8") as opened:
            csv.writer(opened).writerows([("note", "department", "patient"), *rows])
        return file


@pytest.fixture
def lab(tmp_path: Path, small: Any) -> Lab:
    """In a folder with a blank in its name."""
    return Lab(tmp_path / "a lab", small.bert)


@pytest.fixture(scope="session")
def provisioned(tmp_path_factory: pytest.TempPathFactory, small: Any) -> Path:
    """A folder with kits and records of north, to be copied."""
    made = Lab(tmp_path_factory.mktemp("kits") / "a lab", small.bert)
    made.provision()
    made.records("first", GOOD)
    made.records("second", RATES)
    return made.folder


@pytest.fixture
def kit(tmp_path: Path, small: Any, provisioned: Path) -> Lab:
    """A copy of it."""
    shutil.copytree(provisioned, tmp_path / "a lab")
    return Lab(tmp_path / "a lab", small.bert)


@pytest.fixture(params=[0o000, 0o277], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    """Umasks that would leave files open to all, or closed to their owner."""
    before = os.umask(request.param)
    yield request.param
    os.umask(before)
