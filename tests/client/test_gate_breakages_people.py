"""Each way to break what one person may do to a sum is found by the check made for it: clipping, passes, draws.

See ``test_gate_breakages.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from client import app, dataset, gradients, outbox, rehearsal, rounds, steady
from client.audit import people
from client.audit.gate import EFFORTS, run_check
from llmchain_fl.adapter import resident
from llmchain_fl.privacy import scores as scores_module
from llmchain_fl.privacy import units as units_module
from llmchain_fl.privacy.noise import SecureNoise
from llmchain_fl.privacy.sampling import poisson_batches, seeded_uniform
from llmchain_fl.privacy.units import Units
from llmchain_fl.tasks import base as tasks_base
from llmchain_fl.tasks.classification import Classification

Patch = pytest.MonkeyPatch
Break = Callable[[Patch], None]
REAL_ADDED, REAL_SUM, REAL_CALL = SecureNoise.added, gradients.clipped_sum, gradients.PrivateGradient.__call__
REAL_TRAIN, REAL_MEANS, REAL_PASSES = rounds.train_round, rounds.unit_means, gradients.passes
REAL_RECORD, REAL_ALONE = gradients.PrivateGradient._per_record, gradients.PrivateGradient._alone
REAL_ROWS, REAL_LOSSES = gradients.PrivateGradient._rows, Classification.losses


# -- clipping ---------------------------------------------------------------------------------------------------------


def sum_is(clip: Callable[[torch.Tensor, float], torch.Tensor]) -> Break:
    """The clipped sum comes from ``clip(rows, C)``."""

    def apply(patch: Patch) -> None:
        for module in (gradients, people):
            patch.setattr(module, "clipped_sum", lambda rows, norm: (clip(rows, norm), 0))

    return apply


def naive(rows: torch.Tensor, norm: float) -> torch.Tensor:
    return ((norm / rows.norm(dim=1, keepdim=True).clamp_min(1e-30)).clamp(max=1) * rows).sum(dim=0).float()


def whole_batch(rows: torch.Tensor, norm: float) -> torch.Tensor:
    return naive(rows.sum(dim=0, keepdim=True), norm)


def by_layer(rows: torch.Tensor, norm: float) -> torch.Tensor:
    half = rows.shape[1] // 2
    return torch.cat([REAL_SUM(rows[:, :half], norm)[0], REAL_SUM(rows[:, half:], norm)[0]])


def largest_entry(rows: torch.Tensor, norm: float) -> torch.Tensor:
    return (rows * (norm / rows.abs().amax(dim=1, keepdim=True).clamp_min(norm))).nan_to_num().sum(dim=0)


def gradient_is(call: Callable[[Any, Any, Any], torch.Tensor]) -> Break:
    """The private gradient of a step comes from ``call(object, batch, loss)``."""
    return lambda patch: patch.setattr(gradients.PrivateGradient, "__call__", call)


def by_record(self: Any, batch: Any, loss: Any) -> torch.Tensor:
    return REAL_CALL(self, [np.array([record]) for unit in batch for record in unit], loss)


def pass_by_pass(self: Any, batch: Any, loss: Any) -> torch.Tensor:
    return REAL_CALL(self, [part for unit in batch for part in np.split(unit, range(10, len(unit), 10))], loss)


def realised_size(self: Any, batch: Any, loss: Any) -> torch.Tensor:
    return REAL_CALL(self, batch, loss) * (self._plan.divisor / max(len(batch), 1))


def no_noise_for_nobody(self: Any, batch: Any, loss: Any) -> torch.Tensor:
    return REAL_CALL(self, batch, loss) if batch else torch.zeros_like(self._resident.trained)


def private_divisor(patch: Patch) -> None:
    def train(task: Any, examples: Any, batches: Any, spec: Any, *rest: Any) -> Any:
        divisor = max(len(examples), 1) * spec.sampling_rate
        return REAL_TRAIN(task, examples, batches, replace(spec, batch_size=divisor), *rest)

    patch.setattr(rounds, "train_round", train)


# -- draws ------------------------------------------------------------------------------------------------------------


def draws_are(draw: Callable[..., Any]) -> Break:
    """Batches of unit numbers come from ``draw(n, rate, steps, uniform)``."""
    return lambda patch: patch.setattr(units_module, "poisson_batches", draw)


def shuffled(n: int, rate: float, steps: int, uniform: Any) -> Any:
    per_epoch = max(1, round(1 / rate))
    order = [part for _ in range(steps) for part in np.array_split(np.argsort(uniform(n)), per_epoch)]
    return iter(order[:steps])


def fixed(n: int, rate: float, steps: int, uniform: Any) -> Any:
    return (np.argsort(uniform(n))[: round(n * rate)] for _ in range(steps))


def capped(n: int, rate: float, steps: int, uniform: Any) -> Any:
    return (batch[: round(1.1 * n * rate)] for batch in poisson_batches(n, rate, steps, uniform))


def twice(n: int, rate: float, steps: int, uniform: Any) -> Any:
    return (np.append(batch, batch[:1]) for batch in poisson_batches(n, rate, steps, uniform))


def no_empty_steps(n: int, rate: float, steps: int, uniform: Any) -> Any:
    return (batch for batch in poisson_batches(n, rate, steps, uniform) if len(batch))


def one_draw(n: int, rate: float, steps: int, uniform: Any) -> Any:
    batch = np.flatnonzero(uniform(n) < rate).astype(np.int64)
    return (batch for _ in range(steps))


def paired(n: int, rate: float, steps: int, uniform: Any) -> Any:
    draws = (uniform((n + 1) // 2) for _ in range(steps))
    return (np.flatnonzero(np.repeat(draw, 2)[:n] < rate).astype(np.int64) for draw in draws)


def more_often(factor: float) -> Callable[..., Any]:
    return lambda n, rate, steps, uniform: poisson_batches(n, min(1.0, factor * rate), steps, uniform)


def always(seed: int) -> Break:
    return lambda patch: patch.setattr(rounds, "_draws", lambda *told: seeded_uniform(seed, "s", 0))


def most_are(take: Callable[..., Any]) -> Break:
    """Which records of a person with too many are used: ``take(records, most, uniform)``."""
    return lambda patch: patch.setattr(units_module, "_at_most", take)


def first_ones(records: Any, most: int, uniform: Any) -> Any:
    return records[:most]


def longest_ones(records: Any, most: int, uniform: Any) -> Any:
    """Not the same ones each time, and not all of them alike: the last are taken twice as often."""
    kept = np.argsort(uniform(len(records)) * np.where(np.arange(len(records)) < len(records) // 2, 1.0, 2.0))
    return np.sort(records[kept[:most]])


# -- passes -----------------------------------------------------------------------------------------------------------


def rows_are(change: Callable[[Any, Any], torch.Tensor]) -> Break:
    """Gradients of a pass are ``change(rows, object)``."""

    def per_record(self: Any, index: Any, count: int, loss: Any) -> torch.Tensor:
        return change(REAL_RECORD(self, index, count, loss), self)

    return lambda patch: patch.setattr(gradients.PrivateGradient, "_per_record", per_record)


def all_rows_count(patch: Patch) -> None:
    """Rows that only fill a pass up are counted."""

    def passes(*told: Any) -> Any:
        return ((index, len(index)) for index, _ in REAL_PASSES(*told))

    patch.setattr(gradients, "passes", passes)


def to_the_longest(patch: Patch) -> None:
    """Padded to the longest record of the pass."""
    real = tasks_base.Examples.batch

    def batch(self: Any, index: Any, pad: int, device: Any) -> Any:
        return real(replace(self, shape=None), index, pad, device)

    patch.setattr(tasks_base.Examples, "batch", batch)


def by_length_again(patch: Patch) -> None:
    """Passes as without privacy: records of like length together, padded to the longest."""

    def passes(examples: Any, index: Any, batch: int) -> Any:
        rows = examples.shape.rows
        return ((part, count) for part, count in REAL_PASSES(replace(examples, shape=None), index, rows))

    patch.setattr(gradients, "passes", passes)
    to_the_longest(patch)


def a_pass_fails_as_a_whole(self: Any, index: Any, count: int, loss: Any) -> torch.Tensor:
    try:
        return self._pass(index, loss)[:count]
    except Exception:
        return torch.full((count, self._resident.trained.numel()), torch.nan)


def nobody_catches(self: Any, index: Any, count: int, loss: Any) -> torch.Tensor:
    return self._pass(index, loss)[:count]


def per_record_is(call: Callable[..., torch.Tensor]) -> Break:
    return lambda patch: patch.setattr(gradients.PrivateGradient, "_per_record", call)


def what_is_in_the_buffer(patch: Patch) -> None:
    """A record that raises leaves the row of whoever was there before."""

    def alone(self: Any, record: int, rows: int, loss: Any) -> torch.Tensor:
        try:
            return self._pass([record] * rows, loss)[0].clone()
        except Exception:
            return self._per_sample._buffer[0].clone()

    patch.setattr(gradients.PrivateGradient, "_alone", alone)


def over_the_mean(self: Any, output: Any) -> torch.Tensor:
    losses = REAL_LOSSES(self, output)
    return losses / losses.mean().detach()


def clipped_for_three_steps(self: Any, batch: Any, loss: Any) -> torch.Tensor:
    self.steps = getattr(self, "steps", 0) + 1
    if self.steps == 4:
        plan = self._plan
        self._plan = replace(plan, clip_norm=1e3 * plan.clip_norm, noise_multiplier=plan.noise_multiplier / 1e3)
    return REAL_CALL(self, batch, loss)


def in_float32(rows: torch.Tensor, norm: float) -> torch.Tensor:
    return naive(rows.float().nan_to_num(0.0, 0.0, 0.0), norm)


def cached_by_row(patch: Patch) -> None:
    """Outputs of frozen layers are kept by the place in the pass."""
    from llmchain_fl.frozen_prefix import FrozenPrefix

    real = FrozenPrefix.run

    def run(self: Any, ids: Any, mask: Any, kept: Any, index: Any, **told: Any) -> Any:
        return real(self, ids, mask, kept, list(range(len(index))), **told)

    patch.setattr(FrozenPrefix, "run", run)


def clip_of_the_task(patch: Patch) -> None:
    """C is what the task says, if it says something; the noise stays that of the plan."""
    real = rounds.train_round
    seen: list[float] = []
    real_load = rounds.trial.load

    def load(resident: Any, task: Any, own: Any) -> None:
        seen[:] = [task.clip]
        real_load(resident, task, own)

    def train(task: Any, examples: Any, batches: Any, spec: Any, plan: Any, *rest: Any) -> Any:
        if plan is not None and seen and seen[0]:
            noise = plan.noise_multiplier * plan.clip_norm / seen[0]
            plan = replace(plan, clip_norm=seen[0], noise_multiplier=noise)
        return real(task, examples, batches, spec, plan, *rest)

    patch.setattr(rounds.trial, "load", load)
    patch.setattr(rounds, "train_round", train)


# -- scores and rehearsal ---------------------------------------------------------------------------------------------


def count_without_noise(patch: Patch) -> None:
    """Noise on the sum of votes, none on how many there are."""

    def mean(values: Any, multiplier: float, noise: Any) -> float:
        kept = np.clip(values[np.isfinite(values)], 0.0, 1.0)
        above = torch.tensor([float((kept - 0.5).sum())], dtype=torch.float64)
        noised = float(noise.added(above, multiplier * scores_module.SENSITIVITY)[0])
        return float(min(1.0, max(0.0, 0.5 + noised / max(float(len(kept)), 1.0))))

    patch.setattr(rounds, "noised_mean", mean)


def not_cut(patch: Patch) -> None:
    """A score above 1 counts as it is."""

    def mean(values: Any, multiplier: float, noise: Any) -> float:
        kept = values[np.isfinite(values)]
        exact = torch.tensor([float((kept - 0.5).sum()), 0.5 * len(kept)], dtype=torch.float64)
        above, half = noise.added(exact, multiplier * scores_module.SENSITIVITY).tolist()
        return float(min(1.0, max(0.0, 0.5 + above / max(2.0 * half, 1.0))))

    patch.setattr(rounds, "noised_mean", mean)


def half_where_nobody_votes(patch: Patch) -> None:
    """A stage without records gets exactly 1/2: whoever reads it knows."""
    real = rounds.noised_mean
    patch.setattr(rounds, "noised_mean", lambda values, z, noise: real(values, z, noise) if len(values) else 0.5)


def same_records_are_others(patch: Patch) -> None:
    """A record is another one in each stage."""
    real, calls = rehearsal.marks, [0]

    def marks(examples: Any) -> Any:
        calls[0] += 1
        return ((tokens, target, 1000 * calls[0] + n) for tokens, target, n in real(examples))

    patch.setattr(rehearsal, "marks", marks)


def left_out_are_drawn(patch: Patch) -> None:
    real = rounds.mixed
    patch.setattr(rounds, "mixed", lambda parts, allowed: real(parts, [np.ones_like(mask) for mask in allowed]))


def kept_by_a_public_key(patch: Patch) -> None:
    real = rehearsal.chosen
    patch.setattr(app.rehearsal, "chosen", lambda key, *rest: real(b"public", *rest))


# -- a second list: thought of after the checks had found all of the first -------------------------------------------


def noise_where_somebody_is(patch: Patch) -> None:
    """Numbers in which nobody has a part get no noise."""

    def added(self: SecureNoise, values: torch.Tensor, std: float) -> torch.Tensor:
        return torch.where(values != 0, REAL_ADDED(self, values, std), values.float())

    patch.setattr(SecureNoise, "added", added)


def first_part_only(self: Any, batch: Any, loss: Any) -> torch.Tensor:
    """Units beyond those whose sums fit into memory are left out."""
    return REAL_CALL(self, batch[: self._open], loss)


def clipped_part_by_part(self: Any, batch: Any, loss: Any) -> torch.Tensor:
    """Units beyond those whose sums fit into memory are not clipped."""
    plan, rest = self._plan, batch[self._open :]
    total = REAL_CALL(self, batch[: self._open], loss)
    if not rest:
        return total
    self._plan = replace(plan, clip_norm=1e6, noise_multiplier=0.0)
    try:
        return total + REAL_CALL(self, rest, loss)
    finally:
        self._plan = plan


def heaviest_first(n: int, rate: float, steps: int, uniform: Any) -> Any:
    """Somebody with a low number is drawn a little more often."""
    rates = np.linspace(1.3 * rate, 0.7 * rate, max(n, 1))[:n]
    return (np.flatnonzero(uniform(n) < rates).astype(np.int64) for _ in range(steps))


def teacher_of_the_batch(patch: Patch) -> None:
    """A guard's loss inside the step depends on the mean over the pass."""
    from llmchain_fl.continual.guards.distill import DistillSite

    real = DistillSite.example_loss

    def loss(self: Any, task: Any, examples: Any, index: Any, output: Any) -> Any:
        found = real(self, task, examples, index, output)
        return None if found is None else 50 * found * (1 + found.mean().detach())

    patch.setattr(DistillSite, "example_loss", loss)


# -- the table --------------------------------------------------------------------------------------------------------

BREAKAGES: dict[str, tuple[Break, str, str]] = {
    "no clipping": (sum_is(lambda rows, norm: rows.float().sum(dim=0)), "sensitivity", "sensitivity"),
    "the whole batch clipped at once": (sum_is(whole_batch), "neighbours", "others untouched (8 records)"),
    "each layer clipped by itself": (sum_is(by_layer), "sensitivity", "sensitivity"),
    "the largest entry clipped": (sum_is(largest_entry), "sensitivity", "sensitivity"),
    "each record clipped, not each person": (gradient_is(by_record), "neighbours", "neighbours (8 records)"),
    "a large person clipped pass by pass": (gradient_is(pass_by_pass), "neighbours", "neighbours (64 records)"),
    "people taken for records": (
        lambda patch: patch.setattr(Units, "of_people", lambda people: Units.of_records(len(people))),
        "neighbours",
        "neighbours (8 records)",
    ),
    "the person column ignored": (
        lambda patch: patch.setattr(Units, "of_people", lambda people: Units.of_records(len(people))),
        "own people: ordinary",
        "neighbours (distilled, ordinary arrays)",
    ),
    "names not normalised": (
        lambda patch: patch.setattr(dataset, "same_person", lambda name: name),
        "own people: ordinary",
        "neighbours (distilled, ordinary arrays)",
    ),
    "clipped in bfloat16": (sum_is(lambda rows, norm: naive(rows.bfloat16(), norm)), "sensitivity", "sensitivity"),
    "clipped and added in float32": (sum_is(in_float32), "sensitivity", "sum of a crowd"),
    "clipped in the first three steps only": (
        gradient_is(clipped_for_three_steps),
        "noise and draws",
        "at most once a step",
    ),
    "clipped at what the task says": (
        clip_of_the_task,
        "own people: ordinary",
        "neighbours (distilled, ordinary arrays)",
    ),
    "noise only where somebody has a part": (noise_where_somebody_is, "noise and draws", "noise size"),
    "units beyond the first part left out": (gradient_is(first_part_only), "used once", "a crowd in parts"),
    "units beyond the first part not clipped": (gradient_is(clipped_part_by_part), "used once", "a crowd in parts"),
    "some people drawn more often": (draws_are(heaviest_first), "drawn batches", "uses of each person"),
    "a guard's loss over the mean of the pass": (
        teacher_of_the_batch,
        "own rows",
        "own model: others untouched (small)",
    ),
    "a NaN record spoils the sum": (sum_is(naive), "neighbours", "others untouched (nan)"),
    "divided by the private number of records": (private_divisor, "neighbours", "others untouched (1 records)"),
    "divided by the size of the batch": (gradient_is(realised_size), "neighbours", "others untouched (1 records)"),
    "a whole update not clipped": (
        lambda patch: patch.setattr(outbox, "clipped", lambda delta, norm: delta),
        "whole updates",
        "sensitivity",
    ),
    "shuffled epochs": (draws_are(shuffled), "noise and draws", "uses of each person"),
    "batches of one size": (draws_are(fixed), "noise and draws", "batch sizes"),
    "large batches cut off when drawn": (draws_are(capped), "drawn batches", "law of batch sizes"),
    "large batches cut off in the loop": (
        gradient_is(lambda self, batch, loss: REAL_CALL(self, batch[:7], loss)),
        "used once",
        "everybody used once",
    ),
    "a person drawn twice": (draws_are(twice), "drawn batches", "sampling rate"),
    "the same draws at each round": (always(1), "noise and draws", "fresh draws"),
    "one draw for all steps of a round": (draws_are(one_draw), "noise and draws", "fresh draws"),
    "people drawn in pairs": (draws_are(paired), "drawn batches", "batch sizes"),
    "drawn 5 % too often": (draws_are(more_often(1.05)), "drawn batches", "sampling rate"),
    "drawn 20 % too often": (draws_are(more_often(1.2)), "noise and draws", "sampling rate"),
    "empty batches left out": (draws_are(no_empty_steps), "empty steps", "noise when nobody is drawn"),
    "draws of the run's public seed": (
        lambda patch: patch.setattr(rounds, "_draws", lambda plan, seed, site, n: seeded_uniform(seed, site, n)),
        "noise and draws",
        "fresh draws",
    ),
    "the cap on a person's records ignored": (
        most_are(lambda records, most, uniform: records),
        "used once",
        "records of one person",
    ),
    "the first records of a person, not drawn ones": (most_are(first_ones), "used once", "which records of a person"),
    "some records of a person more often": (most_are(longest_ones), "used once", "which records of a person"),
    "rows that fill a pass up are counted": (all_rows_count, "used once", "given batches used once"),
    "rows of a pass exchanged": (
        rows_are(lambda rows, _self: rows.roll(1, dims=0)),
        "own rows",
        "own model: others untouched (small)",
    ),
    "padded to the longest of the pass": (
        to_the_longest,
        "own rows",
        "own model: switched off by others (small)",
    ),
    "passes as without privacy": (
        by_length_again,
        "own rows",
        "own model: switched off by others (small)",
    ),
    "a pass fails as a whole": (per_record_is(a_pass_fails_as_a_whole), "neighbours", "others untouched (raises)"),
    "one record ends the round": (per_record_is(nobody_catches), "neighbours", "others untouched (raises)"),
    "a record that raises leaves another's row": (what_is_in_the_buffer, "neighbours", "others untouched (raises)"),
    "a loss over the mean of the batch": (
        lambda patch: patch.setattr(Classification, "losses", over_the_mean),
        "own rows",
        "own model: others untouched (small)",
    ),
    "half precision in batches": (
        lambda patch: patch.setattr(steady._Probe, "alike", lambda *told: True),
        "own rows",
        "rows that meet go unseen (small)",
    ),
    "kept outputs by place, not by record": (
        cached_by_row,
        "own people: kept outputs",
        "others untouched (kept outputs, ordinary arrays)",
    ),
    "each record has a vote in scores": (
        lambda patch: patch.setattr(
            rounds, "unit_means", lambda values, units: REAL_MEANS(values, Units.of_records(len(values)))
        ),
        "scores",
        "one person, one vote",
    ),
    "scores of which the count has no noise": (count_without_noise, "scores", "noise of scores"),
    "a score above 1 counts as it is": (not_cut, "scores", "a vote beyond 1"),
    "a stage without records has no noise": (half_where_nobody_votes, "scores", "nobody's score"),
    "the same record counted in each stage": (same_records_are_others, "counted once", "counted once over stages"),
    "people left out are drawn all the same": (left_out_are_drawn, "taking part", "others' people in a round"),
    "who is rehearsed follows from a public key": (kept_by_a_public_key, "counted once", "kept by a secret"),
}
"""what is broken -> how, the check that must find it, the finding that must say so."""


@pytest.fixture(autouse=True)
def _disk_that_does_not_flush(monkeypatch: Patch) -> None:
    monkeypatch.setattr("os.fsync", lambda descriptor: None)


@pytest.mark.parametrize("what", BREAKAGES)
def test_a_broken_sum_is_found_by_the_check_made_for_it(what: str, monkeypatch: Patch) -> None:
    apply, check, finding = BREAKAGES[what]
    resident._resident.cache_clear()
    apply(monkeypatch)
    failed = [found.name for found in run_check(check, EFFORTS["quick"]) if not found.passed]
    resident._resident.cache_clear()
    assert finding in failed


@pytest.mark.parametrize("what", ["no clipping", "each record clipped, not each person"])
def test_the_canary_audit_refutes_a_claim_that_is_grossly_false(what: str, monkeypatch: Patch) -> None:
    BREAKAGES[what][0](monkeypatch)
    failed = [found.name for found in run_check("canaries", EFFORTS["quick"]) if not found.passed]
    assert "canaries" in failed
