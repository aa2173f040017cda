"""Seeded mutants of a server's messages: every answer is an update or a word of ours; nothing is charged for nothing.

``benchmarks/bench_mutants_site.py`` plays 100,000 of them.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from llmchain_fl.core.errors import CODES
from simulations.mutant_site import MutantSite
from simulations.mutants import mutants


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_whatever_a_message_holds_the_site_answers_in_its_own_words_and_charges_for_what_leaves(
    tmp_path: Path, seed: int
) -> None:
    site = MutantSite(tmp_path / "site")
    said = [site.answer(which, content) for which, content in mutants(site.good, seed, 60)]
    assert {word for word in said if not word.startswith("sealed refusal")} <= {"update", *CODES} - {"error"}
    assert site.unsealed() == 0
    assert site.answer(0, site.good[0]) == "update"


def test_mutants_are_the_same_for_the_same_seed(tmp_path: Path) -> None:
    good = MutantSite(tmp_path / "site").good
    first, second = ([(n, repr(content)) for n, content in mutants(good, 5, 20)] for _ in range(2))
    assert first == second
