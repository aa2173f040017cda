"""Noise and draws, seen through the updates that a site lets out: statistics, each with a stated false alarm rate."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from llmchain_fl.core.privacy.sampling import secret_uniform
from llmchain_fl.core.privacy.units import Units
from llmchain_fl.privacy.audit import noise_law, poisson_law
from llmchain_fl.privacy.audit.conformance import equal_counts, whole_numbers
from llmchain_fl.privacy.audit.finding import Finding
from simulations.audit.copies import in_a_copy
from simulations.audit.effort import Effort
from simulations.audit.practice import READABLE, Floats, PracticeSite, one_hot, plan_for
from simulations.audit.seeds import same_seeds

RATE = 0.25
"""With 64 people no batch is empty (probability 1e-8), so that every step can be told from the next."""


def _watched(folder: Path, name: str, effort: Effort) -> Floats:
    """The noised sums of each step of a fresh site's rounds, in units of C, [rounds * steps, people + quiet]."""
    features = one_hot(effort.people, effort.people + effort.quiet, 4.0)
    people = [f"person-{i}" for i in range(effort.people)]
    site = PracticeSite(folder, name, features, people, plan_for(RATE, READABLE, effort.steps))
    rounds = []
    for _ in range(effort.rounds):
        with same_seeds():
            rounds.append(site.play().steps)
    return site.sums(np.concatenate(rounds))


def noise_and_draws(folder: Path, effort: Effort) -> list[Finding]:
    """Two sites, and the first one again after a fresh start, all seeds set to the same value before each round."""
    sites = [_watched(folder / place, name, effort) for place, name in (("1", "a"), ("1", "b"), ("2", "a"))]
    seen = np.concatenate(sites)
    expected = 3 * effort.rounds * effort.steps
    steps = equal_counts("steps taken", len(seen), expected, "Steps that changed the model.")
    if not np.isfinite(seen).all():
        return [steps, noise_law.noise_size(seen, READABLE)]
    return [steps, *_noise(seen[:, effort.people :]), *_draws(seen[:, : effort.people])]


def _noise(table: Floats) -> list[Finding]:
    flat = table.reshape(-1)
    return [
        noise_law.noise_size(flat, READABLE),
        noise_law.noise_shape(flat, READABLE),
        noise_law.noise_tails(flat, READABLE),
        noise_law.noise_reuse(list(table)),
        noise_law.noise_repeats(flat, READABLE),
    ]


def _draws(table: Floats) -> list[Finding]:
    member = table > 0.5
    steps, people = member.shape
    return [
        whole_numbers(table, 1, 10 * READABLE),
        poisson_law.sampling_rate(int(member.sum()), member.size, RATE),
        poisson_law.batch_sizes(member.sum(axis=1), people, RATE),
        poisson_law.unit_counts(member.sum(axis=0), steps, RATE),
        poisson_law.fresh_draws(member, RATE),
    ]


def drawn_batches(folder: Path, effort: Effort) -> list[Finding]:
    """The draws alone, without a model: so many of them that a cap on large batches shows."""
    units, steps = Units.of_records(effort.people), effort.draws
    sizes, uses = np.zeros(steps, dtype=np.int64), np.zeros(effort.people, dtype=np.int64)
    for step, batch in enumerate(units.batches(RATE, steps, 1, secret_uniform)):
        sizes[step] = len(batch)
        np.add.at(uses, [int(records[0]) for records in batch], 1)
    return [
        poisson_law.sampling_rate(int(sizes.sum()), steps * effort.people, RATE),
        poisson_law.batch_sizes(sizes, effort.people, RATE),
        poisson_law.size_law(sizes, effort.people, RATE),
        poisson_law.unit_counts(uses, steps, RATE),
    ]


def empty_steps(folder: Path, effort: Effort) -> list[Finding]:
    """Nobody, or hardly anybody, is drawn: each step still adds its noise, of the size that an ordinary plan says.

    The update of T steps carries noise of variance T (z C)^2: a step that was left out shows in its size.
    """
    findings = []
    for name, people, rate in (("nobody", 0, 0.5), ("hardly anybody", 3, 0.02)):
        plan = plan_for(rate, 1.1, 16, clip=0.7, divisor=5.0)
        features = one_hot(people, people + 2 * effort.quiet, 4.0)
        site = PracticeSite(folder, name.replace(" ", "-"), features, [f"person-{i}" for i in range(people)], plan)
        noise = site.total()[people:]
        std = plan.noise_std * plan.steps_per_round**0.5
        findings.append(noise_law.noise_size(noise, std, name=f"noise when {name} is drawn"))
    return findings


def restart(folder: Path, effort: Effort) -> list[Finding]:
    """Three copies of this process each play the first round of a site: no two may add the same noise."""

    noises = [in_a_copy(partial(_first_round, folder / name, effort.quiet)) for name in ("one", "two", "three")]
    return [noise_law.noise_reuse(noises, name="noise re-use after a restart")]


def _first_round(folder: Path, width: int) -> Floats:
    site = PracticeSite(folder, "restarted", one_hot(0, width, 1.0), [], plan_for(0.5, 1.0))
    with same_seeds():
        return site.play().update


def telling_bits(folder: Path, effort: Effort) -> list[Finding]:
    """One step in which everybody is drawn; half of the coordinates have somebody behind them."""
    people = effort.quiet
    features = one_hot(people, 2 * people, 4.0)
    plan = plan_for(1.0, 1.0, divisor=1.0)
    site = PracticeSite(folder, "bits", features, [f"person-{i}" for i in range(people)], plan, rows=256)
    sums = site.sums(site.play().update)
    if not np.isfinite(sums).all():
        return [noise_law.noise_size(sums, plan.noise_std)]
    return [noise_law.telling_bits(sums[people:], sums[:people])]
