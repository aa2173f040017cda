"""The verifier: accepts what is honest, finds and names what is not, and stands alone."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llmchain_fl.core.privacy.accounting import epsilon
from llmchain_fl.core.privacy.events import Event

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


def test_the_file_alone_checks_the_archive_and_imports_nothing_of_the_project(played: Any, tmp_path: Path) -> None:
    alone = tmp_path / "verify.py"
    alone.write_bytes(VERIFIER.read_bytes())
    block = "import sys, runpy\nfor name in ('llmchain_fl', 'client', 'server', 'torch', 'dp_accounting'):\n"
    block += " sys.modules[name] = None\nsys.argv = sys.argv[1:]\nrunpy.run_path(sys.argv[0], run_name='__main__')"
    words = [sys.executable, "-I", "-c", block, str(alone), str(played.archive), "--key", played.key]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith(" 0 inconsistencies\n")
    assert len(alone.read_text().splitlines()) <= 500


def test_the_command_says_what_it_found_and_ends_with_1(
    played: Any, verifier: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verifier.main([str(played.archive), "--key", f"ed25519:{'0' * 64}"]) == 1
    assert "signature  manifest.json: not of ed25519:0000" in capsys.readouterr().out
    (tmp_path / "none.zip").write_bytes(b"none")
    assert verifier.main([str(tmp_path / "none.zip"), "--key", played.key]) == 1
    assert "cannot be read to its end" in capsys.readouterr().out


def test_a_site_without_evidence_is_a_note_and_no_inconsistency(played: Any, verifier: Any, forger: Any) -> None:
    for name in [name for name in forger.files if name.startswith("sites/site-01/")]:
        del forger.files[name]
    forger.json("manifest.json", lambda told: told["sites"].pop("site-01"))
    forger.sign()
    report = verifier.Report()
    verifier.check(forger.files, played.key, {}, report)
    assert report.faults == []
    assert [name for _, name, _ in report.notes] == ["site-01"]


MECHANISMS = [
    [(0.3, 0.8, 6), (1.0, 1.5, 6)],
    [(0.001, 0.7, 20_000)],
    [(0.5, 5.0, 100), (0.2, 1.0, 30), (1.0, 10.0, 3)],
    [(1.0, 2.0, 10)],
    [(0.3, 0.3, 5)],
]


@pytest.mark.parametrize("events", MECHANISMS, ids=str)
@pytest.mark.parametrize("delta", [1e-5, 1e-8])
def test_both_roads_to_an_epsilon_come_to_the_same(events: list[Any], delta: float, verifier: Any) -> None:
    told = [Event("gaussian" if q == 1 else "poisson-gaussian", q, z, steps) for q, z, steps in events]
    own = verifier.merged(events)
    assert verifier.epsilon(own, delta) == pytest.approx(epsilon(told, delta), rel=1.5e-3, abs=1e-3)
    assert verifier.renyi(own, delta) == pytest.approx(epsilon(told, delta, "rdp"), rel=0.02)


def test_without_noise_no_epsilon_is_finite_and_without_releases_it_is_0(verifier: Any) -> None:
    assert verifier.epsilon(((0.1, 0.001, 1),), 1e-5) == float("inf")
    assert verifier.epsilon((), 1e-5) == verifier.renyi((), 1e-5) == 0.0
    assert verifier.judged(None, [((0.1, 0.0, 1),)], 1e-5)[0]
    assert not verifier.judged(3.0, [((0.1, 0.0, 1),)], 1e-5)[0]
