"""Plays a row of the table of faults to its end, as an operator would who does nothing but start it again."""

from __future__ import annotations

import importlib.util
import json
import random
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from client.app import make_app
from client.site import Site
from llmchain_fl.config.read import build
from llmchain_fl.config.write import to_toml
from llmchain_fl.core.errors import LlmchainError
from llmchain_fl.core.privacy.accounting import epsilon
from llmchain_fl.core.privacy.charges import training_event
from llmchain_fl.core.privacy.ledger import FileLedger
from llmchain_fl.progress import Silent
from llmchain_fl.run_dir import RunDir
from llmchain_fl.run_ends import RunPaused, RunStopped
from server import checkpoint
from server.app import run_all
from server.one_by_one import OneByOne
from server.privacy_book import make_plan
from server.state import last_state
from simulations.prepare import prepare_sites

WAITING = ("roll_call", "nameless", "one_by_one")
"""Files of the server that look at the clock."""
ATTEMPTS, AFTER = 8, 30.0
SAMPLE = 9
"""Each so many-th row of the method ``local`` is played in a short run of the tests."""
LOCKSTEP = {"method": "lockstep", "steps": 1, "sampling_rate": 0.3, "batch_size": 6.0, "lr": 0.02}
METHODS: dict[str, dict[str, Any]] = {
    "local": {"train": {"steps": 2, "sampling_rate": 0.3, "batch_size": 6, "lr": 0.02}},
    "lockstep": {"train": LOCKSTEP, "task": {"head": "trained"}},
    "secure sum": {"train": LOCKSTEP, "task": {"head": "trained"}, "secure": {"sum": True}},
}


def _module(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"faults_{name}", Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


WORLD, TABLE = _module("world"), _module("table")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every row for whoever asks for ``fault`` and ``method``."""
    if "fault" in metafunc.fixturenames:
        rows = [(fault, method) for method in METHODS for fault in TABLE.faults()]
        marked = [
            pytest.param(
                *row,
                id=f"{row[1]}: {row[0].name}",
                marks=[pytest.mark.thorough] if number % SAMPLE or row[1] != "local" else [],
            )
            for number, row in enumerate(rows)
        ]
        metafunc.parametrize(("fault", "method"), marked)


@dataclass
class Played:
    """What came of a row."""

    ended: str
    run: RunDir
    sites: list[Site]
    world: Any
    attempts: int
    lost: list[str] = field(default_factory=list)
    """Rows of finished rounds that were gone or different later."""
    why: str = ""


def records(path: Path, labels: dict[str, str], seed: int) -> Path:
    """Thirty records of fifteen persons."""
    draw = random.Random(seed)
    rows = [
        {"text": " ".join(draw.choices(labels[label].split(), k=4)), "label": label, "person": f"p{number // 2}"}
        for number, label in enumerate(list(labels)[i % len(labels)] for i in range(30))
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="session")
def settings(small: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, Any]]:
    """Method -> the tree of a run of four rounds over three sites."""
    folder = tmp_path_factory.mktemp("records")
    train, test = (records(folder / f"{name}.jsonl", small.labels, seed) for seed, name in enumerate(("a", "b")))

    def tree(method: str) -> dict[str, Any]:
        return {
            "seed": 3,
            "model": {"path": str(small.bert), "threads": 1, "max_tokens": 8},
            "adapter": {"rank": 2, "last_layers": 1},
            "data": {"train": str(train), "test": str(test)},
            "sites": {"count": 3, "wait_seconds": 120, "reply_seconds": 120, "quarantine_rounds": 2},
            "continual": {"guards": []},
            "privacy": {"enabled": True, "noise_multiplier": 2.0, "delta": 1e-4},
            "stage": [{"name": "only", "rounds": 5}],
            **METHODS[method],
            "task": {"labels": list(small.labels), **METHODS[method].get("task", {})},
        }

    return tree


@pytest.fixture
def play(
    settings: Callable[[str], dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Any, str], Played]:
    """Plays one fault with one method."""
    monkeypatch.setattr("server.app._write_pages", lambda run: None)

    def row(fault: Any, method: str) -> Played:
        config = build(settings(method))
        run = RunDir.create(tmp_path / "run", to_toml(config))
        sites = [limited(site, fault.limits, config) for site in prepare_sites(config, run.sites)]
        by_name = {site.name: site for site in sites}
        app = make_app(lambda context: by_name[str(context.node_config["site-name"])])
        world = WORLD.World(app, by_name, WORLD.Clock())
        for name in WAITING:
            monkeypatch.setattr(f"server.{name}.time", world.clock)
        for name in ("reserve", "seal"):
            monkeypatch.setattr(FileLedger, name, world.watched(name, getattr(FileLedger, name)))
        monkeypatch.setattr("server.loop.save_state", saving(world))
        fault.arrange(world)
        return to_the_end(Played("", run, sites, world, 0), config)

    return row


def limited(site: Site, limits: Mapping[str, float], config: Any) -> Site:
    """With a budget for so many rounds, if one is said for it, or for all; for half a round: of half its price."""
    rounds, plan = limits.get(site.name, limits.get("", 0.0)), make_plan(config)
    if not rounds or plan is None:
        return site
    price = epsilon([training_event(plan, max(1, int(rounds)))], plan.delta)
    limit = price * (1.001 if rounds >= 1 else rounds)
    return site.model_copy(update={"limits": site.limits.model_copy(update={"epsilon": limit})})


def saving(world: Any) -> Callable[..., Path]:
    """``save_state`` with an event before and after it."""

    def save(folder: Path, number: int, parts: Any) -> Path:
        world.happens("saving", number=number or -1)
        path = checkpoint.save_state(folder, number, parts)
        world.happens("saved", number=number or -1)
        return path

    return save


def to_the_end(played: Played, config: Any) -> Played:
    """Start it, and start it again where it was killed, lost the network, or was paused."""
    known: list[str] = []
    for attempt in range(1, ATTEMPTS + 1):
        played.attempts = attempt
        played.ended, played.why = once(played, config)
        now = finished(played.run)
        played.lost += [row for row in known if row not in now]
        known = now
        if played.ended not in ("killed", "paused"):
            break
        try:
            played.world.clock.sleep(AFTER)
        except WORLD.Hung:
            played.ended = "hung"
            break
    return played


def once(played: Played, config: Any) -> tuple[str, str]:
    """(how it ended, in which words)."""
    try:
        run_all(config, played.run, OneByOne(played.world), Silent())
    except WORLD.ServerKilled:
        return "killed", ""
    except WORLD.Hung:
        return "hung", ""
    except RunStopped as error:
        return "budget", error.what
    except RunPaused as error:
        return "paused", error.what
    except (httpx.HTTPError, OSError) as error:
        return "killed", type(error).__name__
    except LlmchainError as error:
        return "failed", error.what
    return "completed", ""


def finished(run: RunDir) -> list[str]:
    """The rows of every round that the saved state holds."""
    state = last_state(run.state)
    done = 0 if state is None else state.round
    return [
        json.dumps(row, sort_keys=True) for row in run.rows() if 0 < row["round"] <= done and row["metric"] != "stopped"
    ]
