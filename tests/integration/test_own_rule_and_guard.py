"""A rule and a guard of another package, written as CONTRIBUTING.md says: one file and one line each.

They are configured, refused where they do not fit, in words made of what they declare, run, and reported as themselves.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client.check import check_work
from client.site import Site, SiteData, SiteLimits, read_site
from llmchain_fl.adapter.files import read_adapter
from llmchain_fl.aggregation import RULES
from llmchain_fl.compare.check import check_cells
from llmchain_fl.compare.read import build_comparison
from llmchain_fl.config.read import known_keys
from llmchain_fl.config.write import to_toml
from llmchain_fl.core.errors import ConfigError, LlmchainError, PrivacyError, WireError
from llmchain_fl.core.work import GuardSpec, WorkSpec
from llmchain_fl.guards import GUARDS
from llmchain_fl.progress import Silent
from llmchain_fl.report.kept import guard_lines
from llmchain_fl.report.readings import Readings
from llmchain_fl.run_dir import RunDir
from simulations.run import simulate

RULE = '''
from llmchain_fl.aggregation.rule import LORA_A, LORA_B, Arrays, FactorMean, Rule, sent_names


class Halved(Rule):
    """``B`` goes half of the way to the mean."""

    name = "halved"
    trained = (LORA_B,)
    exact = False
    linear = True
    idempotent = False
    unsteady = "halves them every round"

    def start(self, global_arrays: Arrays, scale: float, number: int = 1) -> FactorMean:
        return Half(global_arrays, scale, sent_names(self, global_arrays, number), frozen=(LORA_A,))


class Half(FactorMean):
    def finish(self, noise=None):
        mean = super().finish(noise)
        return {name: (value + self._global[name]) / 2 for name, value in mean.items()}
'''

GUARD = '''
from typing import Annotated, ClassVar

import torch

from llmchain_fl.core.guards.site_guard import SiteGuard
from llmchain_fl.core.ranges import Range
from llmchain_fl.guards.guard import Guard, GuardSettings, within
from llmchain_fl.guards.needs import steady_factors
from llmchain_fl.guards.protocol import ServerGuard


class Decay(SiteGuard):
    """Pulls what is trained towards zero after each step."""

    bounds: ClassVar = {"strength": Range(0, 1)}
    adds: ClassVar = "pull"

    def pull(self, task, lr):
        with torch.no_grad():
            task.resident.trained.mul_(1 - float(self.settings["strength"]))


class Counted(ServerGuard):
    def __init__(self, settings):
        super().__init__(settings)
        self._rounds = 0

    def step(self, view, current):
        self._rounds += 1
        return current

    def notes(self):
        return {"rounds": self._rounds}


class Settings(GuardSettings):
    """Pulls the adapter towards zero."""

    strength: Annotated[float, within(Decay.bounds["strength"])] = 0.5
    """Share that is taken off after each step."""


GUARD = Guard(
    "small_steps",
    Settings,
    Counted,
    Decay,
    needs=(steady_factors("adds up LoRA factors"),),
    idle_at_zero=("strength",),
    notes={"rounds": "rounds it has seen"},
)
'''


def installed(folder: Path, module: str, text: str, entry: str) -> None:
    """A package beside this one, as pip lays it down: one module and one line of entry points."""
    (folder / f"{module}.py").write_text(text)
    facts = folder / f"{module}-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text(entry)


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    installed(tmp_path, "scratch_halved", RULE, "[llmchain_fl.rules]\nhalved = scratch_halved:Halved\n")
    installed(tmp_path, "scratch_small", GUARD, "[llmchain_fl.guards]\nsmall_steps = scratch_small:GUARD\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in ("scratch_halved", "scratch_small"):
        sys.modules.pop(name, None)


def play(config: Any, folder: Path) -> RunDir:
    run = RunDir.create(folder, to_toml(config))
    simulate(config, run, Silent())
    return run


def test_both_are_known_by_name_and_by_what_they_declare(scratch: Path) -> None:
    assert "halved" in RULES
    assert RULES["halved"].shares == ("lora_B",)
    assert not RULES["halved"].steady
    assert GUARDS["small_steps"].claim == "post-processing"
    assert "continual.small_steps.strength" in known_keys()


def test_they_are_configured_and_refused_like_those_of_this_project(scratch: Path, tiny: Any) -> None:
    def refused(**sections: Any) -> str:
        with pytest.raises(ConfigError) as told:
            tiny.config(**sections)
        return str(told.value)

    assert "did you mean halved?" in refused(aggregation={"rule": "halve"})
    assert "did you mean small_steps?" in refused(continual={"guards": ["small_step"]})
    strength = {"guards": ["small_steps"], "small_steps": {"strength": 2.0}}
    assert "continual.small_steps.strength = 2.0: must be less than or equal to 1" in refused(continual=strength)
    both = refused(aggregation={"rule": "halved"}, continual={"guards": ["small_steps", "ema"]})
    because = 'but rule "halved" halves them every round, so they cannot be averaged'
    assert f'guard "small_steps" adds up LoRA factors, {because}' in both
    assert f'guard "ema" averages LoRA factors, {because}' in both
    idle = refused(continual={**strength, "small_steps": {"strength": 0.0}})
    assert "continual.small_steps.strength = 0 makes the guard `small_steps` do nothing" in idle


@pytest.fixture(scope="module")
def plain(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """B after the first stage, without either."""
    return b_of(play(tiny.config(continual={"guards": []}), tmp_path_factory.mktemp("own") / "plain"))


def b_of(run: RunDir) -> dict[str, np.ndarray]:
    arrays = read_adapter(run.path / "stages/00-first/adapter")[1]
    return {name: value for name, value in arrays.items() if name.endswith("lora_B")}


def test_a_run_under_the_rule_halves_each_round_and_says_its_name(
    scratch: Path, tiny: Any, plain: dict[str, np.ndarray], tmp_path: Path
) -> None:
    run = play(tiny.config(aggregation={"rule": "halved"}, continual={"guards": []}), tmp_path / "run")
    assert all(np.allclose(value, plain[name] / 2, atol=1e-6) for name, value in b_of(run).items())
    assert "halved" in run.report.read_text()


def test_a_run_with_the_guard_pulls_at_the_sites_and_reports_its_numbers(
    scratch: Path, tiny: Any, plain: dict[str, np.ndarray], tmp_path: Path
) -> None:
    run = play(tiny.config(continual={"guards": ["small_steps"], "small_steps": {"strength": 0.9}}), tmp_path / "run")
    lengths = [sum(float(np.square(value).sum()) for value in found.values()) for found in (b_of(run), plain)]
    assert lengths[0] < 0.1 * lengths[1]
    (line,) = guard_lines(Readings(run.rows()))
    assert (line.guard, line.what, line.last) == ("small_steps", "rounds it has seen", "2")
    assert "rounds it has seen" in run.report.read_text()
    assert read_site(run.sites / "site-00" / "site.toml").limits.plugins == ["guards:small_steps"]


def test_they_are_compared_and_a_cell_in_which_they_do_not_fit_is_refused_with_the_reason(scratch: Path) -> None:
    rules = {name: {"aggregation.rule": name} for name in ("ffa", "halved")}
    guards = {"none": {"continual.guards": []}, "small": {"continual.guards": ["small_steps"]}}
    axes = [{"name": "rule", "values": rules}, {"name": "guard", "values": guards}]
    comparison = build_comparison("own", {"title": "own", "scenario": "demo-lora", "seeds": [1], "axis": axes})
    checked = check_cells(comparison, comparison.cells([1]))
    assert len(checked.cells) == 3
    (refused,) = checked.refused
    assert refused.labels == {"rule": "halved", "guard": "small"}
    assert 'but rule "halved" halves them every round' in refused.reason


def test_a_site_loads_no_guard_that_its_file_does_not_name(scratch: Path, small: Any, tmp_path: Path) -> None:
    text = json.loads(small.work().to_json())
    text["guards"] = [{"name": "small_steps", "settings": [["strength", 0.5]]}]
    work = WorkSpec.from_json(json.dumps(text))
    site = small_site(tmp_path)
    with pytest.raises(PrivacyError, match=r'plugins = \["guards:small_steps"\]'):
        check_work(site, work)
    assert "scratch_small" not in sys.modules
    allowed = small_site(tmp_path, plugins=["guards:small_steps"])
    check_work(allowed, work)
    text["guards"][0]["settings"] = [["strength", 3.0]]
    with pytest.raises(WireError, match="at most 1"):
        check_work(allowed, WorkSpec.from_json(json.dumps(text)))
    assert GuardSpec("nowhere").faults() == ["there is no guard 'nowhere'"]


def small_site(folder: Path, **limits: Any) -> Site:
    told = {"require_privacy": False, "hub": True, **limits}
    return Site(name="a", state=str(folder), data=SiteData(train=str(folder / "x.jsonl")), limits=SiteLimits(**told))


def test_an_entry_that_is_broken_or_something_else_is_one_error(scratch: Path, tiny: Any) -> None:
    (scratch / "scratch_halved.py").write_text("Halved = 3\n")
    (scratch / "scratch_small.py").write_text("import nowhere_at_all\n")
    for sections in ({"aggregation": {"rule": "halved"}}, {"continual": {"guards": ["small_steps"]}}):
        with pytest.raises(LlmchainError, match="plug-in llmchain_fl"):
            tiny.config(**sections)
