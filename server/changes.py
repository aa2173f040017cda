"""A run that goes on does so with the configuration it was begun with, or with one that may follow it."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

from llmchain_fl.config.changes import Changes, changes, extension_faults, resume_faults
from llmchain_fl.config.read import parse
from llmchain_fl.config.schema import RunConfig
from llmchain_fl.core.errors import ConfigError, RunError
from llmchain_fl.core.privacy.plan import PrivacyPlan
from llmchain_fl.run_dir import RunDir
from server.handing import shapes
from server.state import AWAY, RunState, last_state

UNDO = "undo the change in config.toml; llmchain-fl extend takes new stages, rounds and sites; nothing was changed"
ELSE = "begin a new run from the adapter of this one (adapter.start) for anything else; nothing was changed"
LABELS = "task.labels: the public label list is not the one of the run so far"


def before(state: RunState) -> RunConfig:
    """The configuration of the run so far.

    Raises:
        RunError: another version wrote it.
    """
    try:
        return parse(state.settings)
    except ConfigError as error:
        raise RunError(
            f"the run was begun by another version: {'; '.join(error.faults)}",
            remedy="go on with that one, or begin a new run from its adapter (adapter.start)",
        ) from None


def check_resumed(config: RunConfig, run: RunDir) -> None:
    """Refuse a configuration that the run cannot simply go on with; cheap, before anything is read or dealt out.

    Raises:
        ConfigError: every key that has changed and may not.
        RunError: another version wrote the state.
    """
    state = last_state(run.state)
    if state is not None:
        _refuse(resume_faults(changes(before(state), config)), UNDO)


def accept(config: RunConfig, labels: Mapping[str, str], state: RunState, *, extension: bool) -> None:
    """Enter into ``state`` what is new in ``config``.

    Raises:
        ConfigError: everything in it that may not change now; nothing is entered.
    """
    old = before(state)
    changed = changes(old, config)
    if not extension:
        _refuse(resume_faults(changed) + ([LABELS] if dict(state.labels) != dict(labels) else []), UNDO)
    else:
        faults = extension_faults(old, config, state.round, state.nodes, state.ended)
        faults += _extended_faults(config, old, labels, state)
        _refuse(faults, ELSE)
        state.stopped = ""
        state.nodes |= {site: AWAY for site in config.stream.arrival if site not in state.nodes}
    if changed or dict(state.labels) != dict(labels):
        state.changes.append(_entry(changed, state.round, "extend" if extension else "resume"))
    state.settings, state.labels = config.model_dump(), dict(labels)


def _extended_faults(config: RunConfig, old: RunConfig, labels: Mapping[str, str], state: RunState) -> list[str]:
    faults = []
    before_labels = list(state.labels.items())
    if list(labels.items())[: len(before_labels)] != before_labels:
        faults.append(f"{LABELS}; new labels go to its end")
    known = sorted(state.nodes)
    same = (old.adapter.rank, old.adapter.alpha) == (config.adapter.rank, config.adapter.alpha)
    if same and len(known) == old.sites.count and config.sites.count >= old.sites.count:
        names = sorted({*known, *config.stream.arrival})
        if len(names) == config.sites.count:
            now, was = shapes(names, config.adapter), shapes(known, old.adapter)
            moved = [site for site in known if now[site] != was[site]]
            faults += [f"adapter.site_ranks, site_alphas: {', '.join(moved)} would change rank"] if moved else []
    return faults


def _refuse(faults: list[str], remedy: str) -> None:
    if faults:
        raise ConfigError(faults, remedy=remedy)


def _entry(pairs: Changes, number: int, how: str) -> dict[str, Any]:
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {"when": now, "how": how, "after_round": number, "changed": {key: list(pair) for key, pair in pairs.items()}}


def note_noise(state: RunState, plan: PrivacyPlan | None) -> None:
    """Beside the extension, the noise with which the run goes on."""
    if plan is not None and state.changes:
        state.changes[-1] |= {"noise_multiplier": plan.noise_multiplier, "score_noise": plan.score_noise}
