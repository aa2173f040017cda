"""The verifier: accepts what is honest, finds and names what is not, and stands alone."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
VERIFIER = HERE.parents[1] / "llmchain_fl/evidence/verify.py"


def _plants() -> list[Any]:
    spec = importlib.util.spec_from_file_location("plants_of_evidence", HERE / "plants.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return list(module.PLANTS)


PLANTS = _plants()


def found(verifier: Any, forger: Any, key: str) -> list[tuple[str, str, str]]:
    """What the verifier says, as its command would."""
    report = verifier.Report()
    try:
        verifier.check(forger.files, key, forger.pinned, report)
    except (LookupError, ValueError, TypeError, AttributeError) as fault:
        report.need("file", (False, "archive", str(fault)))
    return list(report.faults)


def test_the_evidence_of_an_honest_run_is_accepted(played: Any, verifier: Any, forger: Any) -> None:
    assert found(verifier, forger, played.key) == []
    forger.sign()  # as the forger of the plants signs, who changes nothing here
    assert found(verifier, forger, played.key) == []


def test_there_are_at_least_a_hundred_plants_with_names_of_their_own() -> None:
    assert len({name for name, *_ in PLANTS}) == len(PLANTS) >= 100


@pytest.mark.parametrize("plant", PLANTS, ids=[name for name, *_ in PLANTS])
def test_each_planted_inconsistency_is_found_and_named(plant: Any, played: Any, verifier: Any, forger: Any) -> None:
    _, codes, change = plant
    forger.keys["honest"] = forger.keys[""]
    change(forger)
    named = {code for code, *_ in found(verifier, forger, played.key)}
    assert named & codes, f"named {named}"
