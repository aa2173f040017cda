"""Every check of a candidate, each with its number, its bound and whether it passed: a check that shows nothing fails.

==================  ============================================================================================
check               passes where
==================  ============================================================================================
score NAME          the main score has fallen by at most ``worse``, with chance ``level`` (of an old stage:
                    ``worse_old``)
calibration         the calibration error over all sets has risen by at most the bound, likewise
robustness          the loss of score under edits, over all sets, has risen by at most the bound, likewise
bias                the share of answers that change with who speaks, over all sets, has risen by at most the bound
records             every set has at least ``fewest`` records
lineage             the candidate's parent is the current adapter, or there is none yet
publisher, base     both are of the same publisher, and stand on the same base model
epsilon             the card's epsilon, computed anew, is within the policy's, with its delta and its unit
membership          the checks of the gate beside the card passed, and the attack found no more than was promised
==================  ============================================================================================

A check that a policy does not ask for is not there. The bounds are of non-inferiority: an equal candidate passes where
the sets are large enough to show that it is not worse; one that is worse by more than its margin fails on any set.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from llmchain_fl.hub.manifest import Manifest
from llmchain_fl.promote.answers import Probed
from llmchain_fl.promote.bootstrap import Bound, Statistic, fall, larger_drop, paired_bound, worse_calibrated
from llmchain_fl.promote.policy import Policy


@dataclass(frozen=True)
class Check:
    """One line. ``value`` and ``bound`` None where there is no number."""

    name: str
    passed: bool
    value: float | None
    bound: float | None
    words: str


@dataclass(frozen=True)
class Verdict:
    """All checks of one candidate against one adapter ("": the base model alone), by their addresses."""

    candidate: str
    current: str
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether every check passed; a verdict without any has not."""
        return bool(self.checks) and all(check.passed for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        fields = {"candidate": self.candidate, "current": self.current, "passed": self.passed}
        return {**fields, "checks": [asdict(check) for check in self.checks]}


def compared(candidate: Probed, current: Probed, policy: Policy) -> tuple[Check, ...]:
    """The checks on probes.

    Raises:
        ValueError: the two were asked other things.
    """
    if {n: len(a.scores) for n, a in candidate.sets.items()} != {n: len(a.scores) for n, a in current.sets.items()}:
        raise ValueError("the two adapters were asked other things")
    return tuple(_compared(candidate, current, policy))


def _compared(new: Probed, old: Probed, policy: Policy) -> Iterator[Check]:
    few = {name: len(answers.scores) for name, answers in new.sets.items() if len(answers.scores) < policy.fewest}
    words = f"{', '.join(few)}: fewer than {policy.fewest}" if few else f"each set at least {policy.fewest}"
    sizes = [len(answers.scores) for answers in new.sets.values()]
    yield Check("records", not few and bool(sizes), float(min(sizes, default=0)), float(policy.fewest), words)
    taught = {probe.name: probe.old for probe in policy.probe}
    for name, answers in new.sets.items():
        bound = policy.worse_old if taught.get(name) else policy.worse
        yield _check(f"score {name}", fall(answers.scores, old.sets[name].scores), len(answers.scores), bound, policy)
    labelled = [name for name in new.sets if len(new.sets[name].sure)]
    if policy.calibration is not None and labelled:
        pairs = [
            (
                np.concatenate([probed.sets[name].sure for name in labelled]),
                np.concatenate([probed.sets[name].right for name in labelled]),
            )
            for probed in (new, old)
        ]
        yield _check("calibration", worse_calibrated(*pairs), len(pairs[0][0]), policy.calibration, policy)
    if policy.robustness is not None and new.edited:
        two = [
            (
                np.concatenate([probed.sets[name].scores for name in new.edited]),
                np.concatenate([probed.edited[name] for name in new.edited]),
            )
            for probed in (new, old)
        ]
        yield _check("robustness", larger_drop(*two), len(two[0][0]), policy.robustness, policy)
    if policy.bias is not None and new.flips:
        flips = [np.concatenate([probed.flips[name] for name in new.flips]) for probed in (new, old)]
        yield _check("bias", fall(flips[1], flips[0]), len(flips[0]), policy.bias, policy)


def _check(name: str, worse: Statistic, records: int, bound: float, policy: Policy) -> Check:
    result: Bound = paired_bound(worse, records, level=policy.level, draws=policy.draws, seed=policy.seed)
    interval = f"with chance {policy.level:g} at most {result.at_most:+.4f}"
    words = f"worse by {result.worse:+.4f}, {interval}, on {records} records"
    return Check(name, bool(result.at_most <= bound), result.at_most, bound, words)


def promised(card: Mapping[str, Any], gate: Mapping[str, Any], policy: Policy) -> tuple[Check, ...]:
    """The checks on what the card promises, and on the gate file that was signed with it.

    Args:
        card: ``card.json`` of an adapter whose card was computed anew.
        gate: ``evidence/gate.json``; {} without one.
        policy: bounds.
    """
    results = []
    if policy.epsilon is not None:
        privacy = card["privacy"]
        value = privacy["epsilon"]["value"] if privacy["private"] and privacy["epsilon"] else None
        delta = privacy["delta"]["value"] if privacy["private"] and privacy["delta"] else None
        holds = value is not None and delta is not None and value <= policy.epsilon and delta <= policy.delta
        words = f"{privacy['promise']}; the policy asks for {policy.unit}, delta {policy.delta:g}"
        results.append(Check("epsilon", holds and _covers(privacy["unit"], policy.unit), value, policy.epsilon, words))
    if policy.membership:
        checks: Sequence[Mapping[str, Any]] = gate.get("findings", ())
        failed = [str(one.get("name")) for one in checks if one.get("passed") is not True]
        attack = gate.get("membership")
        broken = isinstance(attack, dict) and attack.get("broken") is True
        words = f"{len(checks)} checks, {len(failed)} failed" + ("; the attack found more than promised" * broken)
        holds = bool(checks) and not failed and isinstance(attack, dict) and not broken
        results.append(Check("membership", holds, None, None, words))
    return tuple(results)


def _covers(unit: str, wanted: str) -> bool:
    """Whether a promise for ``unit`` is one for ``wanted``: whoever hides a site hides its persons, and so on."""
    order = ("record", "person", "site")
    return unit in order and wanted in order and order.index(unit) >= order.index(wanted)


def related(candidate: Manifest, current: Manifest | None) -> tuple[Check, ...]:
    """The checks of lineage, publisher and base; ``current`` None: nothing is served yet."""
    if current is None:
        return (Check("lineage", True, None, None, "the first"),)
    child, same = candidate.parent == current.address, candidate.base_digest == current.base_digest
    own = candidate.publisher == current.publisher
    return (
        Check("lineage", child, None, None, f"its parent is {'the current adapter' if child else 'another'}"),
        Check("publisher", own, None, None, "the same publisher" if own else "another publisher"),
        Check("base", same, None, None, "the same base model" if same else "another base model"),
    )
