"""What does one run with planted people show of epsilon? The f-DP bound beside its yardsticks, on the same guesses.

    python benchmarks/bench_audit_bounds.py [--seeds 20] [--runs 20000]

* ideal canaries     each alone in a Gaussian mechanism of known epsilon: the mean lower bound of Steinke et al. 2023,
                     of the f-DP bound with our own claimed curve (Mahloujifar et al. 2025), and of the profile test
* false rejections   share of runs in which the *true* claim is refuted, and what was promised: ideal canaries, and the
                     mechanism that tells everything with probability delta (every canary depends on every other)
* the gate           share of practice runs of the gate's own canaries that fail, correct and broken, by both judges
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from bench import show, write
from scipy.optimize import brentq

from llmchain_fl.core.privacy.events import Event
from llmchain_fl.privacy.audit import one_run as steinke
from llmchain_fl.privacy.audit.f_dp import claimed, epsilon_bound, gaussian, is_refuted, of_deltas
from llmchain_fl.privacy.audit.finding import ALPHA
from llmchain_fl.privacy.audit.one_run import Guesses, right_guesses
from llmchain_fl.privacy.audit.profile import (
    EPSILONS,
    claimed_deltas,
    epsilon_of_rates,
    profile,
    rates,
)
from llmchain_fl.privacy.gaussian import gaussian_epsilon

DELTA = 1e-5
BETAS = (ALPHA, 0.05)


def mu_of(epsilon: float) -> float:
    """mu with which mu-Gaussian DP has this epsilon at DELTA."""
    return float(brentq(lambda mu: gaussian_epsilon(mu, DELTA) - epsilon, 0.01, 40.0))


def ideal(mu: float, canaries: int, draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Scores and truth of canaries that are alone in a Gaussian mechanism each."""
    included = draw.random(canaries) < 0.5
    return draw.normal(size=canaries) + mu * included, included


def bounds(seeds: int) -> list[dict[str, float]]:
    """Mean lower bounds; guesses about a fifth of the canaries."""
    rows: list[dict[str, float]] = []
    for epsilon in (1.0, 4.0, 8.0, 16.0):
        mu = mu_of(epsilon)
        events, deltas = [Event("gaussian", 1.0, 1 / mu, 1)], claimed_deltas([Event("gaussian", 1.0, 1 / mu, 1)])
        for canaries in (1000, 10_000):
            runs = [ideal(mu, canaries, np.random.default_rng(seed)) for seed in range(seeds)]
            guesses = [right_guesses(*run, canaries // 5) for run in runs]
            for beta in BETAS:
                told = [rates(*run, deltas, beta) for run in runs]
                rows.append(
                    {
                        "epsilon": epsilon,
                        "canaries": canaries,
                        "beta": beta,
                        "right": _mean([guess.right / guess.made for guess in guesses]),
                        "steinke": _mean([steinke.epsilon_bound(guess, DELTA, beta) for guess in guesses]),
                        "f_dp": _mean([epsilon_bound(events, guess, DELTA, beta) for guess in guesses]),
                        "profile": _mean([epsilon_of_rates(*pair, DELTA) for pair in told]),
                    }
                )
    lines = [[f"{value:.3g}" for value in row.values()] for row in rows]
    head = ["true epsilon", "canaries", "beta", "right", "Steinke", "f-DP, own curve", "profile (independent only)"]
    show(f"Lower bound on epsilon at delta {DELTA:g}, mean of {seeds} runs", head, lines)
    return rows


def false_rejections(runs: int) -> list[dict[str, Any]]:
    """How often a true claim is refuted."""
    draw, rows = np.random.default_rng(0), []
    for mu, canaries, made in ((0.5, 200, 40), (1.0, 400, 400), (mu_of(8.0), 1000, 200)):
        seen = [right_guesses(*ideal(mu, canaries, draw), made).right for _ in range(runs)]
        rows += [_refuted(f"ideal, mu {mu:.3g}", gaussian(mu), canaries, made, seen, beta) for beta in (*BETAS, 1e-3)]
    for told in (0.001, 0.01, 0.1):
        everything = draw.random(runs) < told
        seen = np.where(everything, 200, draw.binomial(200, 0.5, size=runs)).tolist()
        curve = of_deltas(np.full(EPSILONS.shape, told))
        rows += [_refuted(f"tells all with {told:g}", curve, 200, 200, seen, beta) for beta in (told * 0.99, 0.05)]
    lines = [[row["mechanism"], f"{row['beta']:.3g}", row["needed"], f"{row['refuted']:.3g}"] for row in rows]
    show(f"True claims refuted, {runs} runs each", ["mechanism", "promised at most", "right needed", "seen"], lines)
    return rows


def _refuted(name: str, curve: Any, canaries: int, made: int, seen: Sequence[int], beta: float) -> dict[str, Any]:
    low, high = 0, made + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_refuted(curve, Guesses(canaries, made, middle), beta) else (middle, high)
    needed = str(high) if high <= made else "none does"
    return {"mechanism": name, "beta": beta, "needed": needed, "refuted": _mean([right >= high for right in seen])}


def the_gate(seeds: int) -> list[dict[str, Any]]:
    """The gate's canaries without its code: Poisson steps along directions of their own."""
    from simulations.audit.canaries import GUESSES, ONE_RUN_NOISE, PROFILE_NOISE
    from simulations.audit.effort import EFFORTS

    rows: list[dict[str, Any]] = []
    for name, effort in EFFORTS.items():
        count, steps = effort.canaries, 8 * effort.canary_rounds
        for what, noise, times in (
            ("correct", 1.0, 1),
            ("half the noise", 0.5, 1),
            ("a quarter", 0.25, 1),
            ("no noise", 0.0, 1),
            ("8 contributions", 1.0, 8),
        ):
            failed = {"profile": 0, "one-run": 0}
            for seed in range(seeds):
                for judge, z in (("profile", PROFILE_NOISE), ("one-run", ONE_RUN_NOISE)):
                    draw, events = np.random.default_rng(seed), [Event("poisson-gaussian", 0.25, z, steps)]
                    included = draw.random(count) < 0.5
                    drawn = times * draw.binomial(steps, 0.25, size=count) * included
                    scores = drawn + noise * z * math.sqrt(steps) * draw.normal(size=count)
                    if judge == "profile":
                        failed[judge] += not profile(scores, included, events, DELTA).passed
                    else:
                        guess = right_guesses(scores, included, int(GUESSES * count))
                        failed[judge] += is_refuted(claimed(events), guess, ALPHA)
            rows.append({"effort": name, "what": what, **{judge: times / seeds for judge, times in failed.items()}})
    show(
        f"Share of {seeds} practice runs that fail at alpha {ALPHA:g}", list(rows[0]), [[*row.values()] for row in rows]
    )
    return rows


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def main() -> None:
    """Everything, in order."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--runs", type=int, default=20_000)
    told = parser.parse_args()
    result = {
        "bounds": bounds(told.seeds),
        "false_rejections": false_rejections(told.runs),
        "gate": the_gate(told.seeds),
    }
    write("audit_bounds", result)


if __name__ == "__main__":
    main()
