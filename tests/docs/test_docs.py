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
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


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


def test_every_file_named_in_the_papers_table_exists() -> None:
    page = (ROOT / "docs" / "papers.md").read_text()
    for name in re.findall(r"`((?:server|client|tests|simulations)/[\w/.-]+)`", page):
        assert (ROOT / name).exists(), name


def test_no_page_names_a_machine_path() -> None:
    for page in PAGES:
        assert not re.search(r"(?<![\w.])/(?:work|home|root|Users)/", page.read_text()), page.name
