"""What one person may do to an update: read without noise, so nothing here is statistics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import hypergeom

from client.gradients import OPEN_BYTES, gradient_of
from client.local import train_round
from llmchain_fl.core.guards import SiteGuards
from llmchain_fl.core.privacy.clipping import clipped_sum
from llmchain_fl.privacy.audit import conformance
from llmchain_fl.privacy.audit.conformance import never
from llmchain_fl.privacy.audit.finding import ALPHA, Finding, judge
from simulations.audit.effort import Effort
from simulations.audit.practice import Features, Floats, PracticeSite, names, one_hot, plan_for

WIDTH = 96
CROWD = 12
"""Other people, each with a coordinate of their own: 0, 1, ..."""
OWN = 32
"""Where the watched person's coordinates begin."""

MANY = 4096
"""People of a crowd."""
PART = 40
"""People whose sums fit into memory at once in a large adapter."""
CAP_STEPS = 48
"""Steps in which somebody has more records than may be used."""
RECORDS = (1, 2, 8, 64)
NORMS = (1e-40, 1e-30, 1e-12, 0.5, 1.0, 1.0 + 2**-23, 1.0 + 1e-3, 7.0, 1e10, 1e19, 1e30, 3e38)


def hostile_people(count: int, clip_norm: float) -> list[Features]:
    """Records (rows) of each of many people: 1, 2, 8 and 64 records; tiny, huge and awkward norms; ``count`` random."""
    draw = np.random.default_rng(7)
    people: list[Floats] = []
    for records in RECORDS:
        direction = draw.normal(size=WIDTH)
        people.append(np.tile(4 * clip_norm * direction / np.linalg.norm(direction), (records, 1)))
        people.append(draw.normal(size=(records, WIDTH)) * clip_norm)
    for norm in NORMS:
        direction = draw.normal(size=WIDTH)
        people.append((clip_norm * norm / np.linalg.norm(direction) * direction)[None, :])
        people.append(np.eye(WIDTH)[[5]] * clip_norm * norm)
    people.append(np.full((1, WIDTH), 1e38))
    people.append(np.vstack([np.full((1, WIDTH), 1e30), np.full((1, WIDTH), -1e30) + draw.normal(size=WIDTH) * 1e22]))
    for _ in range(count):
        records = int(draw.integers(1, 9))
        people.append(draw.normal(size=(records, WIDTH)) * clip_norm * 10 ** draw.uniform(-3, 3))
    largest = float(np.finfo(np.float32).max)
    return [np.clip(rows, -largest, largest).astype(np.float32) for rows in people]


def sensitivity(folder: Path, effort: Effort) -> list[Finding]:
    """Each hostile person alone in a batch: the sum before noise has norm at most C; in float32 and in bfloat16."""
    findings, clip = [], 0.7
    people = hostile_people(effort.hostile, clip)
    owners = [f"person-{number}" for number, rows in enumerate(people) for _ in rows]
    for half in (False, True):
        kind = "bfloat16" if half else "float32"
        site = PracticeSite(folder, kind, np.concatenate(people), owners, plan_for(1.0, 0.0, clip=clip), half=half)

        with gradient_of(site.task.resident, site.examples, 16, site.plan) as gradient:
            sums = [gradient([records], site.loss).double() for records in site.units.members]
        norms = np.array([float(total.norm()) for total in sums])
        findings.append(conformance.sensitivity(norms, clip, f"{len(norms)} people, gradients in {kind}"))
    return [*findings, _sum_of_a_crowd(clip)]


def _sum_of_a_crowd(clip: float) -> Finding:
    """One person more in a crowd that all point one way: the sum grows by C, to the last digits of float64."""
    rows = torch.full((MANY, 8), 3.0) / torch.arange(1, MANY + 1)[:, None].clamp(max=7)
    change = clipped_sum(rows, clip)[0].double() - clipped_sum(rows[1:], clip)[0].double()
    gap = abs(float(change.norm()) / clip - 1)
    words = f"Gap between C and what one of {MANY} people adds to the sum of all, as a share of C."
    return judge("sum of a crowd", gap, (0.0, MANY * 2.0**-50), words)


def neighbours(folder: Path, effort: Effort) -> list[Finding]:
    """A whole round with and without one person, everybody drawn, no noise: for many kinds of that person."""
    findings = []
    for name, rows in _watched_people().items():
        crowd = np.zeros((CROWD, WIDTH), dtype=np.float32)
        crowd[np.arange(CROWD), np.arange(CROWD)] = 3.0
        owners = [f"person-{i}" for i in range(CROWD)] + ["watched"] * len(rows)
        plan = plan_for(1.0, 0.0)
        here = PracticeSite(folder / name, "with", np.concatenate([crowd, rows]), owners, plan, rows=10)
        if name == "raises":
            here.task.raises = frozenset([CROWD])
        there = PracticeSite(folder / name, "without", crowd, owners[:CROWD], plan, rows=10)
        own = np.arange(WIDTH) >= OWN
        unnamed = conformance.interference(here.total(), there.total(), own, plan.clip_norm, 1e-6)
        findings += [_named(one, name) for one in unnamed]
    return findings


def whole_updates(folder: Path, effort: Effort) -> list[Finding]:
    """Privacy unit ``site``: whatever happened in the loop, the update that leaves has norm at most C."""
    norms, clip = [], 0.7
    for size in (1e-3, 0.3, 1.0, 7.0, 1e10):
        plan = replace(plan_for(1.0, 1.0, clip=clip, divisor=1.0), unit="site", records_per_unit=1)
        rows = np.random.default_rng(11).normal(size=(3, WIDTH)).astype(np.float32) * np.float32(size)
        site = PracticeSite(folder, f"size-{size:g}", rows, ["a", "b", "c"], plan)
        norms.append(float(np.linalg.norm(site.play().update)))
    return [conformance.sensitivity(np.array(norms), clip, "of one site with the privacy unit site")]


def _watched_people() -> dict[str, Features]:
    draw = np.random.default_rng(8)

    def rows(count: int, size: float) -> Features:
        features = np.zeros((count, WIDTH), dtype=np.float32)
        features[:, OWN:] = draw.normal(size=(1, WIDTH - OWN)) * size
        return features

    people = {f"{count} records": rows(count, 5.0) for count in RECORDS}
    people["small gradients"] = rows(2, 1e-3)
    people["raises"] = rows(2, 5.0)
    for name, value in (("nan", np.nan), ("infinite", np.inf), ("minus infinite", -np.inf)):
        people[name] = rows(3, 1.0)
        people[name][1, OWN + 3] = value
    return people


def _named(one: Finding, person: str) -> Finding:
    return replace(one, name=f"{one.name} ({person})")


def used_once(folder: Path, effort: Effort) -> list[Finding]:
    """Given batches, and batches of everybody: every drawn record is in the update exactly once, none is left out.

    Each record has a coordinate of its own and a gradient so small that nothing is clipped.
    """
    sizes = [1 + i % 4 for i in range(30)]
    owners = [f"person-{i}" for i, size in enumerate(sizes) for _ in range(size)]
    rows = np.eye(len(owners), dtype=np.float32) / np.float32(64)
    plan = plan_for(1.0, 0.0, steps=3, divisor=1.0)
    site = PracticeSite(folder, "everybody", rows, owners, plan, rows=7)
    usual = site.sums(site.play().steps) * 64
    return [
        _given_batches(folder, rows, owners),
        conformance.used_once(np.ones(usual.shape, dtype=np.bool_), usual, 1e-4, "everybody used once"),
        *_too_many(folder),
        _in_parts(folder),
    ]


def _in_parts(folder: Path) -> Finding:
    """An adapter so large that the sums of a crowd do not fit into memory at once: each part counts, and is clipped."""
    width = OPEN_BYTES // (4 * PART)
    site = PracticeSite(folder, "parts", one_hot(2 * PART, width, 4.0), names(2 * PART), plan_for(1.0, 0.0), rows=32)
    sums = site.total()
    gap = max(float(np.abs(sums[: 2 * PART] - 1).max()), float(np.abs(sums[2 * PART :]).max()))
    words = f"Gap between what {2 * PART} people add to {width} numbers and C each (1 = somebody is missing)."
    return judge("a crowd in parts", gap if np.isfinite(sums).all() else np.nan, (0.0, 1e-4), words)


def _too_many(folder: Path) -> list[Finding]:
    """A person with 20 records, of which a step may use 16: no more, and each as likely as any other."""
    rows, half = np.eye(20, dtype=np.float32) / np.float32(64), 10
    plan = plan_for(1.0, 0.0, steps=CAP_STEPS, divisor=1.0)
    site = PracticeSite(folder, "many", rows, ["somebody"] * len(rows), plan, rows=7)
    used = site.sums(site.play().steps) * 64 > 0.5
    most = plan.records_per_unit
    sets, kinds = {row.tobytes() for row in used}, f"Times that one of the first {half} records was used."
    return [
        judge("records of one person", float(used.sum(axis=1).max()), (0.0, most), f"The plan allows {most} of 20."),
        judge("which records of a person", int(used[:, :half].sum()), _likely(len(rows), half, most), kinds),
        never("always the same records of a person", len(sets) < 2, "Every step used the same 16 of 20 records."),
    ]


def _likely(records: int, half: int, most: int) -> tuple[int, int]:
    """Where a sum of CAP_STEPS hypergeometric numbers lies, but for ALPHA: exactly, by convolution."""
    one, law = hypergeom(records, half, most).pmf(np.arange(half + 1)), np.ones(1)
    for _ in range(CAP_STEPS):
        law = np.convolve(law, one)
    below = np.cumsum(law)
    return int(np.searchsorted(below, ALPHA / 2)), int(np.searchsorted(below, 1 - ALPHA / 2))


def _given_batches(folder: Path, rows: Features, owners: Sequence[str]) -> Finding:
    plan = plan_for(0.2, 0.0, steps=6, divisor=2.0)
    site = PracticeSite(folder, "given", rows, owners, plan, rows=7)
    draw, members = np.random.default_rng(9), site.units.members
    drawn: list[list[npt.NDArray[np.int64]]] = []
    for size in (1, 5, 20, len(members), 2, 28):
        drawn.append([members[int(unit)] for unit in draw.permutation(len(members))[:size]])
    given = np.zeros((len(drawn), len(rows)), dtype=np.bool_)
    for step, batch in enumerate(drawn):
        given[step, np.concatenate(batch)] = True
    site.task.resident.reset()
    train_round(site.task, site.examples, drawn, site.work.train, plan, SiteGuards([], {}), 1.0)
    ends = np.concatenate([site.task.trace(), site.task.resident.trained.double().numpy()[None, :]])
    return conformance.used_once(given, site.sums(np.diff(ends, axis=0)) * 64, 1e-4, "given batches used once")
