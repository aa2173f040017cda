"""``llmchain_fl.run``: a federation over data in memory, in this process."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from llmchain_fl.api.memory import InMemory
from llmchain_fl.api.own_parts import Parts, offered
from llmchain_fl.api.records import Staged
from llmchain_fl.api.result import Result
from llmchain_fl.api.watching import Callback, Watching
from llmchain_fl.cli.apps import simulator
from llmchain_fl.config.read import apply_settings, build
from llmchain_fl.config.schema import RunConfig
from llmchain_fl.core.errors import ConfigError
from llmchain_fl.core.toml_file import read_toml
from llmchain_fl.run_dir import RunDir, fresh
from llmchain_fl.run_ends import RunStopped
from llmchain_fl.scenario import find_scenario

Config = str | Path | Mapping[str, Any] | RunConfig
Tree = dict[str, Any]


def run(
    config: Config = "demo",
    *,
    train: Mapping[str, Staged] | None = None,
    test: Staged | None = None,
    settings: Sequence[str] = (),
    plugins: Parts = MappingProxyType({}),
    trainer: Callable[..., None] | None = None,
    callbacks: Sequence[Callback] = (),
    out: str | Path | None = None,
    backend: str = "in-process",
    workers: int = 1,
) -> Result:
    """Play a whole federation on this machine.

    Args:
        config: a shipped scenario's name, a TOML file, a nested mapping of settings, or a ``RunConfig``.
        train: site -> its records (``records.py``), or site -> stage -> records; None: as the configuration says.
        test: public records for the scores, or stage -> records. Without ``task.labels`` the labels are theirs.
        settings: changes, as after ``--set``: ``"train.lr=0.01"``.
        plugins: own objects by group and by the name that the settings use, ``{"rules": {"mine": MyRule()}}``; groups
            as in ``core/plugins.py``. Known for as long as the run lasts.
        trainer: ``(model, records, spec) -> None`` in place of the local loop; only with privacy off.
        callbacks: called after each round with its figures and its rows.
        out: run directory, not there yet; default ``runs/NAME-N``.
        backend: ``in-process`` or ``ray``.
        workers: processes that play sites; 0: as many as pays. What own objects note in one of them stays there.

    Raises:
        LlmchainError: what is wrong and what to do; a run directory in which sites were asked is kept.
    """
    path = Path(out) if out is not None else fresh(Path("runs"), _title(config))
    named = [f"{group}: {name}" for group, objects in plugins.items() for name in objects]
    if named and backend != "in-process":
        raise ConfigError([f"own objects ({', '.join(named)}) with backend {backend}: they live in this process only"])
    memory, tree = InMemory.of(path / "data", train, test), _tree(config)
    memory.name_stages(tree)
    apply_settings(tree, list(settings))
    memory.lay_into(tree)
    with offered(plugins):
        resolved, tool = build(tree), simulator()
        made: RunDir = tool.start(resolved, path.name, path)
        try:
            memory.write()
            return replace(_play(tool, resolved, made, backend, trainer, callbacks, workers), plugins=plugins)
        except BaseException:
            made.discard()  # unless some site was asked for something
            raise


def resume(
    path: str | Path,
    *,
    settings: Sequence[str] = (),
    callbacks: Sequence[Callback] = (),
    backend: str = "in-process",
    workers: int = 1,
) -> Result:
    """Go on with a run that broke off; ``settings``: changes that alter no result, as after ``--set``.

    A run with own objects or an own trainer is not taken up again: start it anew.
    """
    tool = simulator()
    config, made = tool.reopen(Path(path), settings)
    return _play(tool, config, made, backend, None, callbacks, workers)


def load(path: str | Path) -> Result:
    """A run that is there.

    Raises:
        RunError: there is none.
    """
    return Result(RunDir.open(Path(path)))


def _play(
    tool: Any,
    config: RunConfig,
    made: RunDir,
    backend: str,
    trainer: Callable[..., None] | None,
    callbacks: Sequence[Callback],
    workers: int,
) -> Result:
    try:
        tool.simulate(config, made, Watching(made, callbacks), backend, trainer, workers)
    except RunStopped as stop:
        warnings.warn(str(stop), stacklevel=3)
        return Result(made, str(stop))
    return Result(made)


def _tree(config: Config) -> Tree:
    """Settings as a nested dict of its own."""
    if isinstance(config, RunConfig):
        return config.model_dump()
    if isinstance(config, Mapping):
        return copy.deepcopy({str(key): value for key, value in config.items()})
    return read_toml(find_scenario(str(config)))


def _title(config: Config) -> str:
    return Path(config).stem if isinstance(config, str | Path) else "run"
