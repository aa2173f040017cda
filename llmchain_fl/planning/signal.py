"""Noise over signal of a private run, before anybody trains: whether anything can be learned under it."""

from __future__ import annotations

import math

from llmchain_fl.config.schema import RunConfig
from llmchain_fl.planning.forecast import Forecast

LITTLE, NOTHING = 1.0, 3.0
"""``run_ratio`` above which less than half, and at most about a tenth, of what can be learned was learned: 27 runs of
``benchmarks/bench_operating_points.py`` over generated messages and drawn vectors, 24 to 150 labels."""


def step_ratio(z: float, trained: int, expected: float, noises: int = 1) -> float:
    """Noise over signal of one mean step: the length of its noise over the most that its signal can be, C.

        step = z sqrt(d w) / (N q)

    Units are drawn, clipped to C and summed, noise of deviation z C is in each of d numbers (Abadi et al. 2016, arXiv
    1607.00133, algorithm 1), the sum is divided by N q.

    Args:
        z: noise multiplier.
        trained: d.
        expected: N q, units of all sites in a step.
        noises: w, whole noises in the sum: 1 where sites share it, n where each of n sites adds its own.
    """
    return z * math.sqrt(trained * noises) / expected


def run_ratio(step: float, labels: int, steps: int) -> float:
    """The same over a whole run, for what one label can learn: the figure by which a run is judged.

        run = step sqrt(L / T)

    Noise of T steps averages. The clipped gradients of the units of one label lie in rows of their own, and each label
    has about one L-th of them: the mean step of signal is about C / sqrt(L) long, not C. A rule of thumb, no bound.

    With q = 1 it does not depend on the rounds: z = s sqrt(T), s: the multiplier of a single release (Gaussian
    mechanisms compose so; Dong et al. 2022, arXiv 1905.02383, corollary 3.3), so run = s sqrt(d w L) / N.
    """
    return step * math.sqrt(labels / steps)


def verdict(run: float) -> str:
    """What a ratio says, in a sentence.

    =================  ==========================================
    run                sentence
    =================  ==========================================
    up to LITTLE       none
    up to NOTHING      less than half
    above, infinite    hardly anything
    =================  ==========================================
    """
    if run <= LITTLE:
        return ""
    bound, learned = (LITTLE, "less than half") if run <= NOTHING else (NOTHING, "hardly anything")
    text = f"Noise over the run is {run:.3g} times what the records of a label can say"
    return f"{text}: above {bound:g}, {learned} of what can be learned was learned in runs of heads on frozen features."


def planned_ratio(config: RunConfig, plan: Forecast, trained: int, labels: int) -> float:
    """``run_ratio`` of a run by its settings: N q is what ``train.batch_size`` says of every site that is asked.

    ==============================  ==========================================================================
    case                            result
    ==============================  ==========================================================================
    noise on the sum                the fewest sites of a sum, one noise
    noise at each site              the sites asked in a round, a noise of each
    local steps                     T counts them all
    several stages                  T of the longest one
    no trained head                 L = 1: there are no rows of labels
    unit ``site``, fewer than two   0.0: nothing is known of them
    labels, nothing trained, no batch size
    ==============================  ==========================================================================

    Args:
        config: of the run.
        plan: its forecast.
        trained: d, numbers that a site trains in a round.
        labels: L of the largest stage.
    """
    given = "batch_size" in config.train.model_fields_set
    if plan.unit == "site" or labels < 2 or not trained or not given:
        return 0.0
    shared, event = config.privacy.noise == "sum", plan.round_event
    sites = plan.sites if shared else config.sites.cohort or config.sites.count
    step = step_ratio(event.noise_multiplier, trained, plan.divisor * sites, 1 if shared else sites)
    rows = labels if config.task.head == "trained" else 1
    return run_ratio(step, rows, event.steps * max(rounds for _, rounds in plan.stages))
