"""Each way to break the private mechanism, done to the real code, is found by the check that is there for it.

``BREAKAGES`` is also what ``benchmarks/bench_gate.py`` prints as a table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from client import gradients, outbox, rounds
from client.audit.gate import EFFORTS, run_check
from llmchain_fl.privacy import units as units_module
from llmchain_fl.privacy.ledger import FileLedger
from llmchain_fl.privacy.noise import SecureNoise, secure_uniform
from llmchain_fl.privacy.sampling import poisson_batches, seeded_uniform
from llmchain_fl.privacy.units import Units

Patch = pytest.MonkeyPatch
Break = Callable[[Patch], None]
REAL_ADDED, REAL_SUM, REAL_CALL = SecureNoise.added, gradients.clipped_sum, gradients.PrivateGradient.__call__
REAL_TRAIN, REAL_CHARGE = rounds.train_round, outbox.training_charges
REAL_MEANS, REAL_SCORE_CHARGE = rounds.unit_means, outbox.score_charge
REAL_RESERVE, REAL_SEAL, REAL_OUTBOX_RESERVE = FileLedger.reserve, FileLedger.seal, outbox.reserve


def noise_is(draw: Callable[[Any, torch.Tensor, float], torch.Tensor]) -> Break:
    """The noised sum comes from ``draw(noise object, values, std)`` wherever there is noise at all."""

    def added(self: SecureNoise, values: torch.Tensor, std: float) -> torch.Tensor:
        return draw(self, values, std) if std else values.float()

    return lambda patch: patch.setattr(SecureNoise, "added", added)


def normal(values: torch.Tensor, std: float, generator: torch.Generator | None = None) -> torch.Tensor:
    return values + std * torch.randn(values.shape, generator=generator)


def one_stream_a_round(patch: Patch) -> None:
    patch.setattr(SecureNoise, "__init__", lambda self: setattr(self, "g", torch.Generator().manual_seed(1)))
    noise_is(lambda self, values, std: normal(values, std, self.g))(patch)


def one_stream_a_process(patch: Patch) -> None:
    generator = torch.Generator().manual_seed(1)
    noise_is(lambda self, values, std: normal(values, std, generator))(patch)


def cut_off(self: SecureNoise, values: torch.Tensor, std: float) -> torch.Tensor:
    return values + (REAL_ADDED(self, values, std) - values).clamp(-3 * std, 3 * std)


def laplace(self: SecureNoise, values: torch.Tensor, std: float) -> torch.Tensor:
    u = torch.from_numpy(secure_uniform(values.numel())) - 0.5
    return values - (std / 2**0.5) * (u.sign() * torch.log1p(-2 * u.abs())).float()


def first_layer_only(self: SecureNoise, values: torch.Tensor, std: float) -> torch.Tensor:
    half = len(values) // 2
    return torch.cat([REAL_ADDED(self, values[:half], std), values[half:]])


def sum_is(clip: Callable[[torch.Tensor, float], torch.Tensor]) -> Break:
    """The clipped sum comes from ``clip(rows, C)``."""
    return lambda patch: patch.setattr(gradients, "clipped_sum", lambda rows, norm: (clip(rows, norm), 0))


def naive(rows: torch.Tensor, norm: float) -> torch.Tensor:
    return ((norm / rows.norm(dim=1, keepdim=True).clamp_min(1e-30)).clamp(max=1) * rows).sum(dim=0).float()


def whole_batch(rows: torch.Tensor, norm: float) -> torch.Tensor:
    return naive(rows.sum(dim=0, keepdim=True), norm)


def by_layer(rows: torch.Tensor, norm: float) -> torch.Tensor:
    half = rows.shape[1] // 2
    return torch.cat([REAL_SUM(rows[:, :half], norm)[0], REAL_SUM(rows[:, half:], norm)[0]])


def gradient_is(call: Callable[[Any, Any, Any], torch.Tensor]) -> Break:
    """The private gradient of a step comes from ``call(object, batch, loss)``."""
    return lambda patch: patch.setattr(gradients.PrivateGradient, "__call__", call)


def by_record(self: Any, batch: Any, loss: Any) -> torch.Tensor:
    return REAL_CALL(self, [np.array([record]) for unit in batch for record in unit], loss)


def realised_size(self: Any, batch: Any, loss: Any) -> torch.Tensor:
    return REAL_CALL(self, batch, loss) * (self._plan.divisor / max(len(batch), 1))


def no_noise_for_nobody(self: Any, batch: Any, loss: Any) -> torch.Tensor:
    return REAL_CALL(self, batch, loss) if batch else torch.zeros_like(self._resident.trained)


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


def private_divisor(patch: Patch) -> None:
    def train(task: Any, examples: Any, batches: Any, spec: Any, *rest: Any) -> Any:
        divisor = max(len(examples), 1) * spec.sampling_rate
        return REAL_TRAIN(task, examples, batches, replace(spec, batch_size=divisor), *rest)

    patch.setattr(rounds, "train_round", train)


def every_other_round_unrecorded(patch: Patch) -> None:
    def odd(key: str) -> bool:
        return int(key.rsplit("/", 1)[1]) % 2 == 1

    patch.setattr(FileLedger, "reserve", lambda self, r: REAL_RESERVE(self, r) if odd(r.key) else None)
    patch.setattr(FileLedger, "seal", lambda self, key, data: REAL_SEAL(self, key, data) if odd(key) else None)


def paid_afterwards(patch: Patch) -> None:
    def train(task: Any, *rest: Any) -> Any:
        result = REAL_TRAIN(task, *rest)
        REAL_OUTBOX_RESERVE(*late.pop())
        return result

    late: list[Any] = []
    patch.setattr(outbox, "reserve", lambda *told: late.append(told))
    patch.setattr(rounds, "train_round", train)


def booked_too_cheap(patch: Patch) -> None:
    def charges(plan: Any, stage: str, earlier: Any) -> Any:
        return REAL_CHARGE(replace(plan, noise_multiplier=2 * plan.noise_multiplier), stage, earlier)

    patch.setattr(outbox, "training_charges", charges)


def sealed_rounds_trained_again(patch: Patch) -> None:
    seen: dict[str, bytes] = {}
    patch.setattr(FileLedger, "reserve", lambda self, r: None if r.key in seen else REAL_RESERVE(self, r))
    patch.setattr(FileLedger, "seal", lambda self, key, payload: seen.update({key: payload}))
    patch.setattr(FileLedger, "sealed", lambda self, key: None)


def always(seed: int) -> Break:
    return lambda patch: patch.setattr(rounds, "_draws", lambda *told: seeded_uniform(seed, "s", 0))


BREAKAGES: dict[str, tuple[Break, str, str]] = {
    "no noise": (noise_is(lambda s, v, std: v.float()), "noise and draws", "noise size"),
    "half the noise": (noise_is(lambda s, v, std: REAL_ADDED(s, v, std / 2)), "noise and draws", "noise size"),
    "noise 10 % low": (noise_is(lambda s, v, std: REAL_ADDED(s, v, 0.9 * std)), "noise and draws", "noise size"),
    "noise in the first layer only": (noise_is(first_layer_only), "noise and draws", "noise size"),
    "noise cut off at 3 sigma": (noise_is(cut_off), "noise and draws", "noise tails"),
    "Laplace noise of the same size": (noise_is(laplace), "noise and draws", "noise shape"),
    "same seed at each step": (
        noise_is(lambda s, v, std: normal(v, std, torch.Generator().manual_seed(1))),
        "noise and draws",
        "noise re-use",
    ),
    "same seed at each round": (one_stream_a_round, "noise and draws", "noise re-use"),
    "noise of torch's global generator": (
        noise_is(lambda s, v, std: normal(v, std)),
        "noise and draws",
        "noise re-use",
    ),
    "same seed after a restart": (one_stream_a_process, "restart", "noise re-use after a restart"),
    "float32 noise, no grid": (
        noise_is(lambda s, v, std: v + s.sample(v.numel(), std)),
        "telling bits",
        "telling bits",
    ),
    "no clipping": (sum_is(lambda rows, norm: rows.float().sum(dim=0)), "sensitivity", "sensitivity"),
    "the whole batch clipped at once": (sum_is(whole_batch), "neighbours", "others untouched (8 records)"),
    "each layer clipped by itself": (sum_is(by_layer), "sensitivity", "sensitivity"),
    "each record clipped, not each person": (gradient_is(by_record), "neighbours", "neighbours (8 records)"),
    "people taken for records": (
        lambda patch: patch.setattr(Units, "of_people", lambda people: Units.of_records(len(people))),
        "neighbours",
        "neighbours (8 records)",
    ),
    "clipped in bfloat16": (
        sum_is(lambda rows, norm: naive(rows.bfloat16(), norm)),
        "sensitivity",
        "sensitivity",
    ),
    "a NaN record spoils the sum": (sum_is(naive), "neighbours", "others untouched (nan)"),
    "divided by the private number of records": (private_divisor, "neighbours", "others untouched (1 records)"),
    "divided by the size of the batch": (gradient_is(realised_size), "neighbours", "others untouched (1 records)"),
    "shuffled epochs": (draws_are(shuffled), "noise and draws", "uses of each person"),
    "batches of one size": (draws_are(fixed), "noise and draws", "batch sizes"),
    "large batches cut off when drawn": (draws_are(capped), "drawn batches", "law of batch sizes"),
    "large batches cut off in the loop": (
        lambda patch: patch.setattr(gradients, "packs", lambda batch, size: iter([batch[:size]] if batch else [])),
        "used once",
        "everybody used once",
    ),
    "a person drawn twice": (draws_are(twice), "noise and draws", "at most once a step"),
    "the same draws at each round": (always(1), "noise and draws", "fresh draws"),
    "empty batches left out": (draws_are(no_empty_steps), "empty steps", "noise when nobody is drawn"),
    "no noise on empty batches": (
        gradient_is(no_noise_for_nobody),
        "empty steps",
        "noise when hardly anybody is drawn",
    ),
    "draws of the run's public seed": (
        lambda patch: patch.setattr(rounds, "_draws", lambda plan, seed, site, n: seeded_uniform(seed, site, n)),
        "noise and draws",
        "fresh draws",
    ),
    "a whole update not clipped": (
        lambda patch: patch.setattr(outbox, "clipped", lambda delta, norm: delta),
        "whole updates",
        "sensitivity",
    ),
    "scores with half the noise": (noise_is(lambda s, v, std: REAL_ADDED(s, v, std / 2)), "scores", "noise of scores"),
    "scores with a seed": (one_stream_a_round, "scores", "noise re-use in scores"),
    "each record has a vote in scores": (
        lambda patch: patch.setattr(
            rounds, "unit_means", lambda values, units: REAL_MEANS(values, Units.of_records(len(values)))
        ),
        "scores",
        "one person, one vote",
    ),
    "many scores for the price of one": (
        lambda patch: patch.setattr(outbox, "score_charge", lambda plan, count: REAL_SCORE_CHARGE(plan, 1)),
        "scores",
        "scores on record",
    ),
    "every other round not recorded": (every_other_round_unrecorded, "books", "steps on record"),
    "recorded after training": (paid_afterwards, "books", "computed before paid"),
    "recorded as cheaper than it is": (booked_too_cheap, "books", "other terms"),
    "a sealed round trained again": (sealed_rounds_trained_again, "books", "a second update of a round"),
}
"""what is broken -> how, the check that must find it, the finding that must say so."""


@pytest.fixture(autouse=True)
def _disk_that_does_not_flush(monkeypatch: Patch) -> None:
    monkeypatch.setattr("os.fsync", lambda descriptor: None)


@pytest.mark.parametrize("what", BREAKAGES)
def test_a_broken_mechanism_is_found_by_the_check_made_for_it(what: str, monkeypatch: Patch) -> None:
    apply, check, finding = BREAKAGES[what]
    apply(monkeypatch)
    failed = [found.name for found in run_check(check, EFFORTS["quick"]) if not found.passed]
    assert finding in failed


@pytest.mark.parametrize("what", ["no noise", "no clipping", "each record clipped, not each person"])
def test_the_canary_audit_refutes_a_claim_that_is_grossly_false(what: str, monkeypatch: Patch) -> None:
    BREAKAGES[what][0](monkeypatch)
    failed = [found.name for found in run_check("canaries", EFFORTS["quick"]) if not found.passed]
    assert "canaries" in failed
