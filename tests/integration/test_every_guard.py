"""Every guard of the table through a whole run, with and without privacy: it acts, says so, and survives a stop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmchain_fl.adapter.files import read_adapter
from llmchain_fl.cli.trained import open_trained
from llmchain_fl.config.write import to_toml
from llmchain_fl.guards import GUARDS
from llmchain_fl.progress import RoundReport, Silent
from llmchain_fl.run_dir import RunDir
from simulations.run import extend, simulate

pytestmark = pytest.mark.usefixtures("without_pages")

STRONG = {
    "agem": {},
    "anchor": {"strength": 1e3},
    "distill": {"weight": 3.0},
    "ema": {"decay": 0.8},
    "gate": {"drop": 0.0},
    "mask": {"others": 0.5},
    "merge": {"beta": 0.3},
    "olora": {"strength": 1e3},
    "rehearsal": {"keep": 1.0},
    "replay": {"weight": 3.0},
    "slots": {"share": 0.2},
    "route": {},
}
NEEDS = {"route": ["slots", "route"]}
RULE = {"olora": "fedit"}
STATES = ("anchor", "ema", "mask", "slots")
"""One for each kind of thing that guards remember; the others are played by ``make thorough``."""
MANY = [pytest.param(name, marks=[pytest.mark.thorough] * (name not in STATES)) for name in sorted(GUARDS)]
FROM_THE_START = ("gate", "mask")
"""Guards that act in the first stage too: one may cut a step, the other leaves labels of other stages alone."""


class StopAfter(Silent):
    def __init__(self, last: int) -> None:
        self._last = last

    def round_finished(self, report: RoundReport) -> None:
        if report.round == self._last:
            raise KeyboardInterrupt


def config(tiny: Any, guard: str, **sections: Any) -> Any:
    names = list(tiny.labels)
    guards = NEEDS.get(guard, [guard] if guard else [])
    told = {"guards": guards, "public": str(tiny.test), **({guard: STRONG[guard]} if guard else {})}
    return tiny.config(
        **{
            "continual": told,
            "aggregation": {"rule": RULE.get(guard, "ffa")},
            "data": {"train": str(tiny.train), "test": str(tiny.test), "dev": str(tiny.train)},
            "sites": {"held_out": 0.0},
            "stage": [
                {"name": "first", "rounds": 1, "labels": names[:2]},
                {"name": "second", "rounds": 2, "labels": names[2:]},
            ],
            **sections,
        }
    )


def play(settings: Any, folder: Path, progress: Any = None) -> RunDir:
    run = RunDir.open(folder) if folder.exists() else RunDir.create(folder, to_toml(settings))
    simulate(settings, run, progress or Silent())
    return run


def arrays(run: RunDir) -> dict[str, np.ndarray]:
    return read_adapter(run.adapter)[1]


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def test_every_guard_has_its_case_here() -> None:
    assert set(STRONG) == set(GUARDS)


@pytest.mark.parametrize("guard", sorted(GUARDS))
@pytest.mark.part(4)
def test_a_guard_changes_what_is_served_after_the_second_stage_and_not_after_the_first(
    tiny: Any, tmp_path: Path, guard: str
) -> None:
    guarded = play(config(tiny, guard), tmp_path / "guarded")
    naive = play(config(tiny, "", aggregation={"rule": RULE.get(guard, "ffa")}), tmp_path / "naive")
    firsts = [read_adapter(run.path / "stages/00-first/adapter")[1] for run in (guarded, naive)]
    if guard not in FROM_THE_START:
        assert same(*firsts)
    assert not same(arrays(guarded), arrays(naive))


@pytest.mark.parametrize("guard", MANY)
@pytest.mark.part(2)
def test_a_guarded_run_that_was_stopped_goes_on_bit_for_bit(tiny: Any, tmp_path: Path, guard: str) -> None:
    whole = play(config(tiny, guard), tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        play(config(tiny, guard), tmp_path / "cut", StopAfter(2))  # the second stage has begun
    run = play(config(tiny, guard), tmp_path / "cut")
    assert same(arrays(run), arrays(whole))
    kept = [[r for r in one.rows() if r["metric"] in ("r_matrix", "forgetting")] for one in (run, whole)]
    assert kept[0] == kept[1]


@pytest.mark.parametrize("guard", MANY)
@pytest.mark.part(1)
def test_a_guarded_run_that_is_extended_twice_ends_as_one_that_was_planned_so(
    tiny: Any, tmp_path: Path, guard: str
) -> None:
    """Guards are told of the end of a stage when it is known what follows it."""
    whole = config(tiny, guard)
    first, second = whole.stage
    run = play(whole.model_copy(update={"stage": [first]}), tmp_path / "run")
    for rounds in (1, 2):
        further = whole.model_copy(update={"stage": [first, second.model_copy(update={"rounds": rounds})]})
        play(extend(further, run), run.path)
    assert same(arrays(run), arrays(play(whole, tmp_path / "whole")))


@pytest.mark.parametrize("guard", sorted(GUARDS))
@pytest.mark.part(1)
def test_a_guard_costs_what_it_claims_under_privacy(tiny: Any, tmp_path: Path, guard: str) -> None:
    private = {"enabled": True, "noise_multiplier": 1.5, "stages": "disjoint"}
    guarded = play(config(tiny, guard, privacy=private), tmp_path / "guarded")
    naive = play(config(tiny, "", privacy=private), tmp_path / "naive")
    spent = [run.read_privacy()["sites"]["site-00"]["epsilon"] for run in (guarded, naive)]
    if GUARDS[guard].claim == "charged":
        assert spent[0] > spent[1]
    else:
        assert spent[0] == spent[1] > 0


def test_a_run_without_noise_keeps_the_same_records_for_rehearsal_each_time(tiny: Any, tmp_path: Path) -> None:
    settings = config(tiny, "rehearsal", continual={"guards": ["rehearsal"], "rehearsal": {"keep": 0.5}})
    one, other = (play(settings, tmp_path / name) for name in ("one", "other"))
    assert same(arrays(one), arrays(other))
    assert not same(arrays(one), arrays(play(config(tiny, "rehearsal"), tmp_path / "all")))


def test_a_routed_adapter_answers_as_it_was_scored(tiny: Any, tmp_path: Path) -> None:
    settings = config(tiny, "route")
    run = play(settings, tmp_path / "run")
    _, task = open_trained(run.path)
    from llmchain_fl.data.stages import public_labels, stage_rows

    for stage in settings.stage:
        examples = task.encode(stage_rows(settings, stage, "test", list(public_labels(settings))).records)
        told = [r["value"] for r in run.rows() if r["metric"] == "test_loss" and r["task"] == stage.name][-1]
        assert task.score(examples)["loss"] == pytest.approx(told, rel=1e-5)
    assert task.resident.router.table is not None
