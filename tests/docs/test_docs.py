"""The docs say what the code does: pages made from code are fresh, every name in a table occurs in the docs."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from llmchain_fl.aggregation import RULES
from llmchain_fl.config.read import known_keys
from llmchain_fl.data.generated import GENERATORS
from llmchain_fl.guards import GUARDS
from llmchain_fl.scenario import shipped

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "README.zh-CN.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_the_configuration_page_is_made_from_the_schema_of_today() -> None:
    spec = importlib.util.spec_from_file_location("make_pages", ROOT / "docs" / "make_pages.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (ROOT / "docs" / "configuration.md").read_text() == module.page(), "run `make docs`"
    assert all(f"`{key}`" in module.page() for key in known_keys())


@pytest.mark.parametrize("name", [*RULES, *GUARDS, *shipped(), *GENERATORS])
def test_every_rule_guard_scenario_and_generator_occurs_in_the_docs(name: str) -> None:
    text = "\n".join(page.read_text() for page in PAGES if page.name != "configuration.md")
    assert re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text), f"{name} is in no page"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_a_page_links_to_exists(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if not target.startswith(("http://", "https://", "mailto:")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


NAMED = re.compile(r"`((?:llmchain_fl|server|client|simulations|tests|benchmarks|docs)/[\w./-]*)`")
HISTORY = {"log.md", "0001-the-house.md"}
"""Pages that speak of what was."""


@pytest.mark.parametrize("page", [page for page in PAGES if page.name not in HISTORY], ids=lambda page: page.name)
def test_every_file_that_a_page_names_exists(page: Path) -> None:
    missing = [name for name in NAMED.findall(page.read_text(encoding="utf-8")) if not (ROOT / name).exists()]
    assert not missing, f"{page.name} names {missing}"


@pytest.mark.parametrize("page", ["one-round.md", "papers.md", "pitfalls.md"])
def test_a_file_is_named_by_its_whole_path(page: str) -> None:
    """A first reader finds it without searching."""
    named = re.findall(r"`([\w./-]+\.py)`", (ROOT / "docs" / page).read_text(encoding="utf-8"))
    assert not [name for name in named if not (ROOT / name).is_file()]


def test_the_walk_names_every_file_that_a_site_runs_in_a_round() -> None:
    """The folder of files that a site runs is small enough for each of them to be met on the walk."""
    text = (ROOT / "docs" / "one-round.md").read_text(encoding="utf-8")
    met = set(re.findall(r"client/(\w+)\.py", text))
    assert {path.stem for path in (ROOT / "client").glob("*.py")} - met <= {"__init__"}


def test_no_page_names_a_machine_path() -> None:
    for page in PAGES:
        assert not re.search(r"(?<![\w.])/(?:work|home|root|Users)/", page.read_text()), page.name
