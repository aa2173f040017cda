"""What may change in the configuration of a run that has begun, and when.

==========================================  ===========================================================================
a setting                                   may change
==========================================  ===========================================================================
in ``ANY_TIME``                             whenever the run goes on: waiting, titles, threads, who is asked no more
in ``EXTENDS``                              by ``llmchain-fl extend``: more stages, rounds, sites, noise for them
a stage that is there already               its ``rounds`` only, by ``extend``, as far as they are still to come
every other one                             never: what the run has learned, spent and measured rests on it
==========================================  ===========================================================================

Rounds that are done stay what they were: the calendar of the run and of each site up to now must not change.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from llmchain_fl.config.calendar import Ended, Span, calendar, site_calendar
from llmchain_fl.config.schema import RunConfig, Section
from llmchain_fl.core.errors import RunError

ANY_TIME = frozenset(
    {
        "title",
        "model.device",
        "model.threads",
        "model.cache_mb",
        "train.micro_batch",
        "data.test_every",
        "sites.excluded",
        "sites.wait_seconds",
        "sites.reply_seconds",
        "compression.link_kbit",
        "compression.max_seconds",
    }
)
EXTENDS = frozenset(
    {
        "task.labels",
        "sites.count",
        "sites.cohort",
        "adapter.site_ranks",
        "adapter.site_alphas",
        "aggregation.weights",
        "train.lr",
        "train.lr_final",
        "privacy.epsilon",
        "privacy.noise_multiplier",
        "stream.order",
        "stream.arrival",
    }
)
FIXED = "it is fixed once a run has begun"
Changes = dict[str, tuple[object, object]]
"""Dotted key -> (before, after); None where there was nothing, or is nothing any more."""


def changes(old: RunConfig, new: RunConfig) -> Changes:
    """Every setting that differs, by its key; stages and arrivals by name: ``stage.cards.rounds``."""
    before, after = dict(_settings(old)), dict(_settings(new))
    keys = [*before, *(key for key in after if key not in before)]
    pairs = {key: (before.get(key), after.get(key)) for key in keys}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def _settings(section: Section, prefix: str = "") -> Iterator[tuple[str, object]]:
    for name in type(section).model_fields:
        key, value = f"{prefix}{name}", getattr(section, name)
        if isinstance(value, Section):
            yield from _settings(value, f"{key}.")
        elif key == "stage":
            for stage in value:
                yield from _settings(stage, f"stage.{stage.name}.")
        elif key == "stream.arrival":
            yield from ((f"{key}.{site}", arrival.model_dump()) for site, arrival in value.items())
        else:
            yield key, value


def lay_over(tree: dict[str, Any], more: Mapping[str, Any]) -> None:
    """Lay ``more`` over a configuration, in place: a stage of a known name is changed, one of a new name added."""
    for key, value in more.items():
        old = tree.get(key)
        if key == "stage" and isinstance(old, list) and isinstance(value, list):
            for stage in value:
                _add_stage(tree, old, stage)
        elif isinstance(old, dict) and isinstance(value, dict):
            lay_over(old, value)
        else:
            tree[key] = value


def _add_stage(tree: dict[str, Any], stages: list[Any], stage: Any) -> None:
    name = stage.get("name") if isinstance(stage, dict) else None
    known = next((one for one in stages if isinstance(one, dict) and one.get("name") == name), None)
    if known is not None:
        known.update(stage)
        return
    stages.append(stage)
    order = tree.get("stream", {}).get("order")
    if order:
        order.append(name)


def resume_faults(changed: Changes) -> list[str]:
    """Changes with which a run cannot simply go on."""
    return [_told(key, pair, FIXED) for key, pair in changed.items() if key not in ANY_TIME]


def extension_faults(
    old: RunConfig, new: RunConfig, done: int, known: Collection[str], ended: Mapping[str, int]
) -> list[str]:
    """Why ``new`` is no extension of a run of ``old`` that has done ``done`` rounds; empty: it is one.

    Args:
        old: the configuration so far.
        new: the one that the run is to go on with.
        done: rounds that are done.
        known: the sites of the run so far.
        ended: announced ends of stages.
    """
    stages = {stage.name for stage in old.stage}
    changed = changes(old, new)
    faults = [_told(key, pair, FIXED) for key, pair in changed.items() if not _extends(key, pair, stages)]
    if new.stream.play == "joint" and len(new.stage) > len(old.stage):
        faults.append('stream.play = "joint" trains on all stages from the first round: begin a new run')
    past = _past_faults(old, new, done, known, ended)
    faults += past or _future_faults(new, done, ended)
    return faults + _site_count_faults(old, new, done, known)


def _extends(key: str, pair: tuple[object, object], stages: Collection[str]) -> bool:
    area, _, rest = key.partition(".")
    if area == "stage":
        name, _, setting = rest.rpartition(".")
        return (name not in stages) or (setting == "rounds" and pair[1] is not None)
    return key in ANY_TIME | EXTENDS or key.startswith("stream.arrival.")


def _past_faults(old: RunConfig, new: RunConfig, done: int, known: Collection[str], ended: Ended) -> list[str]:
    try:
        was, now = _until(calendar(old, ended), done), _until(calendar(new, ended), done)
    except RunError as error:
        return [error.what]
    if was != now:
        stages = [f'"{name}"' for _, name, _, _, _ in was if name not in {span[1] for span in now}]
        gone = f": {', '.join(stages)} would be gone" if stages else ""
        return [f"rounds 1 to {done} are done, and their stages would not be the same{gone}; add to the end only"]
    faults = []
    for site in sorted({*known, *new.stream.arrival}):
        before = _until(site_calendar(old, site, ended), done) if site in known else []
        if before != _until(site_calendar(new, site, ended), done):
            faults.append(
                f'stream.arrival."{site}": rounds 1 to {done} are done; '
                + ("what it did in them stays" if site in known else f"a new site joins in round {done + 1} or later")
            )
    return faults


def _until(spans: list[Span], done: int) -> list[tuple[int, str, int, int, int]]:
    """The spans up to round ``done``."""
    return [(s.stage, s.name, s.start, s.first, min(s.last, done)) for s in spans if s.first <= done]


def _future_faults(new: RunConfig, done: int, ended: Ended) -> list[str]:
    if calendar(new, ended)[-1].last > done:
        return []
    last = new.stage[-1].name
    return [f'nothing is left to do after round {done}: add a stage, or rounds to "{last}"']


def _site_count_faults(old: RunConfig, new: RunConfig, done: int, known: Collection[str]) -> list[str]:
    if new.sites.count != old.sites.count and new.sites.hostile:
        return ["sites.count: with sites.hostile another number of sites has other attackers; begin a new run"]
    added, names = new.sites.count - old.sites.count, [site for site in new.stream.arrival if site not in known]
    if added < 0:
        return [
            f"sites.count = {new.sites.count}, was {old.sites.count}: a site that has gone still counts; set "
            f'stream.arrival."NAME".leaves = {done}, or name it in sites.excluded'
        ]
    if added != len(names):
        return [
            f"sites.count = {new.sites.count}, was {old.sites.count}: {added} new, and stream.arrival names "
            f'{len(names)}; name each: [stream.arrival."NAME"] with joins = {done + 1}'
        ]
    return []


def _told(key: str, pair: tuple[object, object], why: str) -> str:
    before, after = pair
    if after is None:
        return f"{key} is gone (was {_short(before)}): {why}"
    return f"{key} = {_short(after)}, was {_short(before)}: {why}"


def _short(value: object) -> str:
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
