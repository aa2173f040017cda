"""`llmchain-fl privacy ledger` says whose noise is counted, beside every epsilon and in a sentence of its own."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from client.site import read_site
from llmchain_fl.cli import privacy
from llmchain_fl.cli.privacy_counted import counted_in_words
from llmchain_fl.core.privacy.accounting import epsilon
from llmchain_fl.core.privacy.charges import at_site, training_charges
from llmchain_fl.core.privacy.events import Event
from llmchain_fl.core.privacy.plan import PrivacyPlan
from llmchain_fl.core.privacy.release import Release
from llmchain_fl.core.secure.identity import make_identity

OWN = PrivacyPlan(0.1, 2.0, 1.0, 1, 8.0, 1e-5)
SHARED = PrivacyPlan(0.1, 2.0, 1.0, 1, 8.0, 1e-5, shares=3, members=3, grid=13)


@pytest.fixture
def site(tmp_path: Path) -> Any:
    def write(plan: PrivacyPlan, counted: int, unit: str = "person") -> Path:
        """A site with two peers that has paid for one round of ``plan``."""
        lines = [f'{name} = "{make_identity(tmp_path / name).public}"' for name in ("east", "west")]
        secure = f"[secure]\ncounted_peers = {counted}\n[secure.peers]\n" + "\n".join(lines)
        limits = f'[limits]\nunits = ["{unit}"]\n'
        file = tmp_path / "site.toml"
        file.write_text(f'name = "north"\n[data]\ntrain = "x.csv"\n{limits}{secure}\n', encoding="utf-8")
        charges = at_site(training_charges(plan, "a", counted=plan.counted(counted)), "north", unit == "person")
        read_site(file).open_ledger(unit).reserve(Release(f"r/{counted}", charges, "", "training", "", "a"))
        return file

    return write


def said(*words: Any) -> str:
    result = CliRunner().invoke(privacy.app, ["ledger", *map(str, words)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


def test_a_ledger_of_shared_noise_says_what_it_counts_and_against_whom(site: Any) -> None:
    text = said(site(SHARED, 1))
    assert "per person, PLD accountant, noise of this site, and of shared noise what it counts)" in text
    assert "its own share and those of 1 other site, less those that may drop out" in text
    assert "against the server together with all sites but that one (secure.counted_peers = 1)" in text


def test_a_ledger_of_shared_noise_says_so_to_other_programs(site: Any) -> None:
    (told,) = json.loads(said(site(SHARED, 0), "--json"))
    assert (told["noise"], told["counted_peers"]) == ("counted", 0)


@pytest.mark.parametrize("counted", [0, 1, 2])
def test_the_epsilon_shown_is_that_of_the_shares_that_are_counted(site: Any, counted: int) -> None:
    (told,) = json.loads(said(site(SHARED, counted), "--json"))
    event = Event("poisson-discrete-gaussian", 0.1, 2.0 * math.sqrt((1 + counted) / 3), 1)
    assert told["epsilon"] == pytest.approx(epsilon([event], 1e-5))


@pytest.mark.parametrize(
    ("plan", "unit", "words"),
    [
        (OWN, "person", "noise added at each site"),
        (PrivacyPlan(1.0, 2.0, 1.0, 1, 2.0, 1e-5, "site"), "site", "noise added at the server, which is trusted"),
    ],
)
def test_noise_that_nobody_shares_has_its_usual_words(plan: PrivacyPlan, unit: str, words: str, site: Any) -> None:
    assert words in said(site(plan, 2, unit))


def test_own_share_only_holds_whoever_is_with_the_server() -> None:
    assert "its own share only: epsilon holds whoever is with the server (secure.counted_peers = 0)" in (
        counted_in_words(0)
    )
    assert "all sites but those 4" in counted_in_words(4)
