"""A stated number of runs over a table of settings; the best one as TOML.

Only where nobody's records are looked at: each run on private records is a release of its own, and choosing the best of
n runs composes all n of them. With epsilon 8 a run, 20 runs are no longer a promise.
"""

from __future__ import annotations

import itertools
import math
import random
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmchain_fl.config.read import parse_setting, read_config
from llmchain_fl.config.schema import RunConfig
from llmchain_fl.config.write import table_to_toml
from llmchain_fl.core.errors import ConfigError
from llmchain_fl.run_ends import RunStopped
from llmchain_fl.scenario import find_scenario

GENERATED = "generated:"
Choice = tuple[str, ...]
"""Settings of one run, as after ``--set``."""


@dataclass(frozen=True)
class Trial:
    """One run. ``score``: NaN where it ended without one."""

    choice: Choice
    score: float


def ranges(tries: Sequence[str]) -> list[list[str]]:
    """``["train.lr=0.01,0.03"]`` -> ``[["train.lr=0.01", "train.lr=0.03"]]``.

    Raises:
        ConfigError: no ``=``, a key twice, or a value twice.
    """
    table, keys = list[list[str]](), list[str]()
    for text in tries:
        path, _ = parse_setting(text)
        key, values = ".".join(path), text.partition("=")[2].split(",")
        if key in keys or len(set(values)) < len(values):
            raise ConfigError([f"--try {text}: {key} or a value of it is named twice"])
        keys.append(key)
        table.append([f"{key}={value.strip()}" for value in values])
    return table


def choices(table: Sequence[Sequence[str]], budget: int, seed: int) -> list[Choice]:
    """The whole grid where it has at most ``budget`` choices; else so many of it, drawn without repetition.

    | case | result |
    |---|---|
    | no table | one choice: the scenario as it is |
    | a grid of 6, budget 6 or more | all 6, in order |
    | a grid of 6, budget 4 | 4 different ones, by the seed (random search: Bergstra and Bengio 2012) |
    """
    size = math.prod(len(values) for values in table)
    if size <= budget:
        return list(itertools.product(*table))
    chosen = random.Random(f"tune/{seed}").sample(range(size), budget)
    return [_at(table, place) for place in sorted(chosen)]


def _at(table: Sequence[Sequence[str]], place: int) -> Choice:
    chosen = list[str]()
    for values in reversed(table):
        place, rest = divmod(place, len(values))
        chosen.append(values[rest])
    return tuple(reversed(chosen))


def refuse_private(config: RunConfig, public: Sequence[str]) -> None:
    """Nothing but generated records, and sources that the user calls public.

    | source of training or test records | |
    |---|---|
    | ``generated:NAME`` | taken |
    | named with ``--public`` | taken: whoever names it answers for it |
    | anything else | ConfigError, with the reason |

    Raises:
        ConfigError: see the table.
    """
    sources = [
        config.data.train,
        config.data.test,
        *(one for stage in config.stage for one in (stage.train, stage.test)),
    ]
    private = sorted({one for one in sources if one and not one.startswith(GENERATED) and one not in public})
    if private:
        reason = "every run on private records is charged, and the best of n runs costs all n"
        raise ConfigError(
            [f"{one} is not generated and not named as public: {reason}" for one in private],
            remedy="tune on generated records, or name a public source: --public SOURCE",
        )


def tune(
    scenario: str,
    tries: Sequence[str],
    budget: int,
    *,
    settings: Sequence[str] = (),
    public: Sequence[str] = (),
    seed: int = 1,
    place: Path,
    say: Callable[[str], None] = lambda line: None,
    play: Callable[[RunConfig, Path], float] | None = None,
) -> list[Trial]:
    """Play the choices; the best first, those without a score last.

    Args:
        budget: runs at most.
        settings: of every run, as after ``--set``.
        place: a folder in which runs are played, one after the other; empty again behind it.
        play: gives the score of one run, higher is better; by default a simulation in this process.

    Raises:
        ConfigError: private sources, a setting that there is not, a choice that cannot run: before anything is played.
    """
    file = find_scenario(scenario)
    todo = choices(ranges(tries), budget, seed)
    configs = [read_config(file, [*settings, *choice]) for choice in todo]
    for config in configs:
        refuse_private(config, public)
    say(f"{len(todo)} runs, of {math.prod(len(values) for values in ranges(tries))} choices")
    trials = []
    for choice, config in zip(todo, configs, strict=True):
        trials.append(Trial(choice, (play or simulated)(config, place / "run")))
        say(f"{trials[-1].score:.4f}  {', '.join(choice) or 'as it is'}")
    return sorted(trials, key=lambda one: -math.inf if math.isnan(one.score) else one.score, reverse=True)


def simulated(config: RunConfig, path: Path) -> float:
    """The mean main score of a run's tasks at its end, signed so that higher is better."""
    from llmchain_fl.cli.apps import simulator
    from llmchain_fl.config.write import to_toml
    from llmchain_fl.progress import Silent
    from llmchain_fl.report.readings import Readings
    from llmchain_fl.run_dir import RunDir

    shutil.rmtree(path, ignore_errors=True)
    run, tool = RunDir.create(path, to_toml(config)), simulator()
    tool.share_outputs(config)
    with suppress(RunStopped):  # its budget ended early: it has the score that it has
        tool.simulate(config, run, Silent())
    readings = Readings(run.rows())
    value = float(readings.now.value) * readings.score.sign
    shutil.rmtree(path, ignore_errors=True)
    return value


def overlay(choice: Choice) -> str:
    """A choice as TOML tables."""
    tree: dict[str, Any] = {}
    for text in choice:
        path, value = parse_setting(text)
        node = tree
        for part in path[:-1]:
            node = node.setdefault(part, {})
        node[path[-1]] = value
    return table_to_toml(tree)
