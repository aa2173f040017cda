"""Settings of a private run from public numbers alone: how many persons, sites, labels, what budget. No record is read.

What does not follow from a formula was chosen on synthetic data (``benchmarks/bench_operating_points.py``), never on
private data: a choice that looks at private scores costs epsilon as well. The page: docs/operating-points.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from llmchain_fl.aggregation import HEAD_ONLY
from llmchain_fl.core.errors import PrivacyError
from llmchain_fl.core.methods import LOCKSTEP
from llmchain_fl.core.privacy.plan import MOST_SITES
from llmchain_fl.core.ranges import Bound, Range, range_faults
from llmchain_fl.planning.calibrate import LARGEST_TARGET, calibrate
from llmchain_fl.planning.signal import LITTLE, NOTHING, run_ratio, step_ratio, verdict

Value = str | int | float | bool
RATE, ROUNDS, FEWEST, TRAVEL, CLIP = 1.0, 30, 15, 0.3, 1.0
"""q; rounds beyond which nothing more was gained; rounds below which lr rises no further; lr x rounds; C."""
MASKED = 3
"""Fewest sites of a secure sum."""
LORA_RANK, LORA_MATRICES = 4, 2
"""The LoRA adapter that a head is compared with: factor B on query and value of the last layer."""
_WHOLE: Mapping[str, Bound] = MappingProxyType(
    {
        "persons": Range(1, 1e6),
        "sites": Range(1, MOST_SITES),
        "labels": Range(2, 1e6),
        "width": Range(1, 1e6),
        "rounds": Range(1, 1e5),
    }
)
_REAL: Mapping[str, Bound] = MappingProxyType(
    {"epsilon": Range(0, LARGEST_TARGET, above=True), "delta": Range(0, 0.1, above=True, below=True)}
)


@dataclass(frozen=True)
class Public:
    """What everybody may know of a federation before it trains.

    Attributes:
        persons: at one site, by a public figure (a register, a bed count), never counted in the records.
        sites: that take part.
        epsilon: budget of a site over all rounds.
        delta: of the guarantee.
        labels: L, of the public label list.
        width: H, numbers in a vector of the frozen base.
        rounds: that the federation can afford.

    Raises:
        PrivacyError: everything that is out of bounds, in one error.
    """

    persons: int
    sites: int
    epsilon: float
    delta: float = 1e-5
    labels: int = 77
    width: int = 384
    rounds: int = 60

    def __post_init__(self) -> None:
        parts = [name for name in _WHOLE if not isinstance(getattr(self, name), int)]
        faults = [f"{name} must be a whole number" for name in parts]
        faults += range_faults(self, {**{k: v for k, v in _WHOLE.items() if k not in parts}, **_REAL})
        if faults:
            raise PrivacyError("; ".join(faults), remedy="give public figures; nothing was read")

    @property
    def shares(self) -> int:
        """Whole noises that are worth one: m, the sites that are sure to be in a sum; 0: each site adds all of it."""
        n = self.sites
        return 0 if n < MASKED else n - max(1, n // 10) if n > 3 else n

    @property
    def counted(self) -> int:
        """N: persons who are sure to be in a sum."""
        return self.persons * (self.shares or self.sites)

    @property
    def head(self) -> int:
        """d of a head alone: L (H + 1)."""
        return self.labels * (self.width + 1)

    @property
    def with_lora(self) -> int:
        """d of the same head with a small LoRA adapter (``ffa``: its B alone moves)."""
        return self.head + LORA_MATRICES * LORA_RANK * self.width


@dataclass(frozen=True)
class Recommendation:
    """Settings with their reasons.

    Attributes:
        settings: dotted key -> value; rounds are apart, as they belong to the stages.
        rounds: over all stages.
        reasons: (what, why), a sentence each.
        z: the calibrated noise multiplier.
        step: (head alone, head with LoRA) by :func:`step_ratio`.
        run: the same by :func:`run_ratio`.
        warnings: a sentence each; none where the run can learn.
    """

    settings: Mapping[str, Value]
    rounds: int
    reasons: tuple[tuple[str, str], ...]
    z: float
    step: tuple[float, float]
    run: tuple[float, float]
    warnings: tuple[str, ...]

    def tree(self) -> dict[str, dict[str, Value]]:
        """The settings as nested tables."""
        tree: dict[str, dict[str, Value]] = {}
        for key, value in self.settings.items():
            section, _, name = key.partition(".")
            tree.setdefault(section, {})[name] = value
        return tree


def recommend(public: Public) -> Recommendation:
    """Settings for a head on frozen features under the budget, each with its reason.

    Everybody is in every step (q = 1): of all q it has the least noise for an epsilon (:func:`run_ratio`), and features
    of a record are computed once. lr x rounds = TRAVEL; under strong noise half of it.

    ===========================  ===================================================================================
    case                         result
    ===========================  ===================================================================================
    1 site, 2 sites              no secure sum, noise at each: with two, each would know the other's part
    3 sites or more              noise on the sum, shared by the sites that are sure to be in it
    more than ROUNDS rounds      ROUNDS
    fewer than FEWEST            lr is that of FEWEST
    run > LITTLE                 half of lr, and a warning that less than half is learned
    run > NOTHING                a warning that hardly anything is learned
    delta >= 1 / (10 N)          a warning
    a budget no noise reaches    :class:`PrivacyError`
    ===========================  ===================================================================================

    Raises:
        PrivacyError: see the table.
    """
    rounds, shared = min(public.rounds, ROUNDS), public.shares > 0
    kind = f"poisson-{'discrete-' * shared}gaussian"
    z = calibrate(public.epsilon, public.delta, RATE, rounds, kind=kind)
    noises = 1 if shared else public.sites
    steps = [step_ratio(z, d, public.counted * RATE, noises) for d in (public.head, public.with_lora)]
    runs = [run_ratio(step, public.labels, rounds) for step in steps]
    lr = TRAVEL / max(rounds, FEWEST) * (0.5 if runs[0] > LITTLE else 1.0)
    return Recommendation(
        settings=_settings(public, lr),
        rounds=rounds,
        reasons=_reasons(public, rounds, runs),
        z=z,
        step=(steps[0], steps[1]),
        run=(runs[0], runs[1]),
        warnings=_warnings(public, runs[0]),
    )


def _settings(public: Public, lr: float) -> dict[str, Value]:
    shared = public.shares > 0
    return {
        "task.head": "trained",
        "sites.count": public.sites,
        "train.method": LOCKSTEP,
        "train.steps": 1,
        "train.sampling_rate": RATE,
        "train.batch_size": RATE * public.persons,
        "train.optimizer": "adam",
        "train.lr": float(f"{lr:.3g}"),
        "train.lr_final": 1.0,
        "aggregation.rule": HEAD_ONLY,
        "privacy.enabled": True,
        "privacy.unit": "person",
        "privacy.noise": "sum" if shared else "site",
        "privacy.epsilon": float(public.epsilon),
        "privacy.noise_multiplier": 0.0,
        "privacy.delta": public.delta,
        "privacy.clip_norm": CLIP,
        "privacy.accountant": "pld",
        "secure.sum": shared,
    }


def _reasons(public: Public, rounds: int, runs: list[float]) -> tuple[tuple[str, str], ...]:
    n, m = public.sites, public.shares
    alone = "one site adds all of it" if n == 1 else "of two sites each would know the other's part: a third one helps"
    much = f"at each of {n} it would be {math.sqrt(m or 1):.2g} times as much in the mean step"
    spread = f"the sites share it, and epsilon holds against the server alone; {much}"
    more = f"with LoRA noise over signal is {runs[1] / runs[0]:.3g} times as large"
    cut = f"of {public.rounds} that you can afford; more gained nothing" if public.rounds > rounds else "all you afford"
    slow = ", halved because noise is strong" if runs[0] > LITTLE else ""
    return (
        (
            "method",
            "lockstep: the server takes the one step over all persons; steps of each site's own bear more noise",
        ),
        ("noise", f'on the "sum": {spread}' if m else f'at each "site": {alone}'),
        ("rule", f"{HEAD_ONLY}: the fewest trained numbers, and features of a record are computed once; {more}"),
        ("sampling_rate", "1: everybody in every step has the least noise for an epsilon, and a head alone is cheap"),
        ("batch_size", "sampling_rate x persons at a site: a public divisor, never a count of records"),
        ("rounds", f"{rounds}, {cut}; with everybody in each, noise over the run is the same for any number"),
        ("lr", f"{TRAVEL:g} / rounds (at least {FEWEST}){slow}: how far a head moves in all, the best of those tried"),
        ("clip_norm", "below most gradients of a fresh head: there Adam makes its value no matter"),
    )


def _warnings(public: Public, run: float) -> tuple[str, ...]:
    more = " Find more persons or sites, allow a larger epsilon, or merge labels; the label texts alone cost nothing."
    words = verdict(run) + more * (run > NOTHING)
    small = public.delta < 1 / (10 * public.counted)
    delta = f"Delta is not below 1 / (10 x {public.counted:,} persons): choose a smaller one."
    return tuple(sentence for sentence in (words, "" if small else delta) if sentence)
