"""Every guard with a half at the site, through the real local loop, with and without privacy: it acts, and only there.

A new guard with a site half must get a line in ``CASES``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from client.local import train_round
from client.training import LocalResult
from llmchain_fl.continual.product_energy import difference, energy
from llmchain_fl.core.adapter.digest import digest
from llmchain_fl.core.adapter.product import modules, product_pair
from llmchain_fl.core.adapter.value import Arrays
from llmchain_fl.core.guards import SITE_GUARDS, SiteGuards
from llmchain_fl.core.work import GuardSpec
from llmchain_fl.guards import GUARDS
from llmchain_fl.guards.server_guards import ServerGuards

ENDLESS = 1e30
WORDS = [{"text": "lost card why", "label": "lost_card"}, {"text": "send money open account", "label": "transfer"}]
WORDS += [{"text": "loan rate fee", "label": "rates"}, {"text": "why swap pin", "label": "other"}]


def agem_conflict(task: Any, old: Arrays, start: Arrays) -> float:
    """How far the last step went against the reference of its round's first step (SGD, one step, all records)."""
    now = task.resident.trained.clone()
    task.resident.load(start)
    examples = task.encode(WORDS)
    loss = task.losses(task.forward(examples, range(4))).mean()
    reference = torch.autograd.grad(loss, [task.resident.parameters[n] for n in task.resident.trained_names])
    flat = torch.cat([g.reshape(-1) for g in reference]).double()
    step = now.double() - task.resident.trained.double()
    task.resident.trained.copy_(now)
    return max(0.0, float(torch.dot(step, flat) / flat.norm() / step.norm()))


def product_distance(task: Any, old: Arrays, start: Arrays) -> float:
    """|Delta W - Delta W*| / |Delta W*|."""
    now, apart, whole = task.resident.arrays(), 0.0, 0.0
    for module in modules(now):
        star = product_pair(old, module, 2.0)
        apart += energy(difference(product_pair(now, module, 2.0), star))[0].sum()
        whole += energy(star)[0].sum()
    return float(np.sqrt(apart / whole))


def output_distance(task: Any, old: Arrays, start: Arrays) -> float:
    """Mean difference of the probabilities on the guard's records."""
    examples = task.encode(WORDS)
    with torch.no_grad():
        found = torch.softmax(task.forward(examples, range(4)).logits, dim=-1)
        with task.resident.swapped(task.resident.state_of(old)):
            taught = torch.softmax(task.forward(examples, range(4)).logits, dim=-1)
    return float((found - taught).abs().mean())


def overlap(task: Any, old: Arrays, start: Arrays) -> float:
    """|A A_old^T| / |A| |A_old|."""
    now = task.resident.arrays()
    names = [name for name in now if name.endswith("lora_A")]
    inside = sum(np.square(now[n].astype(np.float64) @ old[n].astype(np.float64).T).sum() for n in names)
    return float(np.sqrt(inside / sum(np.square(now[n]).sum() * np.square(old[n]).sum() for n in names)))


def loss_gained(task: Any, old: Arrays, start: Arrays) -> float:
    """How far the loss on the guard's records has risen since the round began."""
    now, examples = task.resident.trained.clone(), task.encode(WORDS)
    with torch.no_grad():
        after = float(task.losses(task.forward(examples, range(4))).mean())
        task.resident.load(start)
        before = float(task.losses(task.forward(examples, range(4))).mean())
    task.resident.trained.copy_(now)
    return max(0.0, after - before)


@dataclass(frozen=True)
class Case:
    """Settings but for the strength; what is 0 once the guard is strong; the share of it that may be left."""

    guard: str
    strength: str
    settings: dict[str, float | str]
    strong: float
    distance: Callable[[Any, Arrays, Arrays], float]
    near: float
    loop: tuple[tuple[str, Any], ...] = ()

    def spec(self, strength: float) -> GuardSpec:
        return GuardSpec(self.guard, tuple(sorted({**self.settings, self.strength: strength}.items())))


BATCH, PUBLIC = (
    {"data": "batch", "temperature": 2.0, "batch": 4.0},
    {"data": "public", "temperature": 2.0, "batch": 4.0},
)
LONG = (("steps", 12), ("lr", 0.003))
ONE = (("optimizer", "sgd"), ("momentum", 0.0), ("steps", 1))
CASES = {
    "agem": Case("agem", "strength", {"batch": 4.0}, 1.0, agem_conflict, 1e-5, ONE),
    "agem under adam": Case("agem", "strength", {"batch": 4.0}, 1.0, agem_conflict, 1e-5, (("steps", 1),)),
    "anchor": Case("anchor", "strength", {"importance": "plain", "decay": 1.0}, ENDLESS, product_distance, 1e-5),
    "anchor by path": Case("anchor", "strength", {"importance": "path", "decay": 1.0}, ENDLESS, product_distance, 1e-5),
    "anchor by public records": Case(
        "anchor", "strength", {"importance": "public", "decay": 1.0}, ENDLESS, product_distance, 1e-5
    ),
    "distill": Case("distill", "weight", dict(BATCH), 1e4, output_distance, 0.35, LONG),
    "distill on public records": Case("distill", "weight", dict(PUBLIC), 1e4, output_distance, 0.35, LONG),
    "replay": Case("replay", "weight", {"data": "public", "batch": 4.0}, ENDLESS, loss_gained, 1e-5, LONG),
    "olora": Case("olora", "strength", {"form": "squared", "rows": 64.0}, ENDLESS, overlap, 1e-6),
}
EVERY = pytest.mark.parametrize("name", CASES)
AFTER_NOISE = pytest.mark.parametrize("name", [name for name in CASES if name != "distill"])
EITHER = pytest.mark.parametrize("private", [False, True], ids=["plain", "private"])


class FixedNoise:
    """Noise that can be repeated, and a record of what it was added to."""

    def __init__(self) -> None:
        self.seen: list[tuple[torch.Tensor, float]] = []
        self._draw = torch.Generator().manual_seed(1)

    def added(self, values: torch.Tensor, std: float) -> torch.Tensor:
        self.seen.append((values.clone(), std))
        return values.float() + std * torch.randn(values.shape, generator=self._draw)


@dataclass
class Played:
    task: Any
    result: LocalResult
    old: Arrays
    start: Arrays
    noise: FixedNoise

    def distance(self, case: Case) -> float:
        self.task.resident.reset()
        self.task.resident.load(self.result.arrays)
        return case.distance(self.task, self.old, self.start)


@pytest.fixture
def play(small: Any, view: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Played]:
    """Ends a stage at the server, moves on a little, and plays one round at a site."""

    def run(case: Case, strength: float | None, *, private: bool = False, z: float = 1.0, **train: Any) -> Played:
        noise = FixedNoise()
        monkeypatch.setattr("client.gradients.SecureNoise", lambda: noise)
        task = small.task()
        resident = task.resident
        old = resident.arrays()
        seen = {"public_rows": tuple(WORDS), "scale": resident.spec.adapter.scale}
        shown = view(task, before=resident.fresh(), **seen)
        specs = [] if strength is None else [case.spec(strength)]
        server = ServerGuards(specs)
        server.step(shown, old)
        server.on_stage_end(shown, old, old)
        draw = torch.Generator().manual_seed(5)
        resident.trained.add_(0.02 * torch.randn(resident.trained.shape, generator=draw))
        start = resident.arrays()
        loop = {"steps": 6, "batch_size": 4.0, **dict(case.loop), **train}
        lr = loop.pop("lr", 0.01)
        work = small.work(train=loop)
        examples = task.encode([{**row, "label": "lost_card"} for row in WORDS])  # not what the public records say
        batches = [small.units(range(4))] * loop["steps"]
        plan = small.plan(work, noise_multiplier=z) if private else None
        if private:
            small.fixed(examples)
        result = train_round(task, examples, batches, work.train, plan, SiteGuards(specs, server.payload()), lr)
        return Played(task, result, old, start, noise)

    return run


def test_every_guard_with_a_half_at_the_site_is_in_the_cases() -> None:
    assert {case.guard for case in CASES.values()} | {"rehearsal", "mask"} == set(SITE_GUARDS)


@EITHER
@EVERY
def test_a_strong_guard_holds_what_its_docstring_says(play: Any, name: str, private: bool) -> None:
    case = CASES[name]
    free, held = play(case, None, private=private), play(case, case.strong, private=private)
    gone = free.distance(case)
    assert held.distance(case) <= case.near * gone
    assert gone > 0.01
    assert np.isfinite(held.task.resident.theta.numpy()).all()


@EITHER
@EVERY
def test_a_guard_of_strength_nothing_changes_no_bit(play: Any, name: str, private: bool) -> None:
    case = CASES[name]
    none, zero = play(case, None, private=private), play(case, 0.0, private=private)
    assert digest(zero.result.arrays) == digest(none.result.arrays)
    assert (zero.result.penalty, zero.result.pull) == (0.0, 0.0)


@EITHER
@EVERY
def test_a_mild_guard_acts_and_is_seen_in_the_result(play: Any, name: str, private: bool) -> None:
    case = CASES[name]
    none, mild = play(case, None, private=private), play(case, min(case.strong, 1.0), private=private)
    assert digest(mild.result.arrays) != digest(none.result.arrays)
    if name == "distill on public records":
        assert mild.result.penalty > 0
    elif case.guard in ("anchor", "olora"):
        assert mild.result.pull > 0


@AFTER_NOISE
def test_what_is_clipped_and_noised_is_that_of_a_run_without_the_guard(play: Any, name: str) -> None:
    """The first step: later ones start elsewhere. A penalty inside the clipped loss fails here."""
    case = CASES[name]
    none, strong = play(case, None, private=True), play(case, case.strong, private=True)
    assert torch.equal(strong.noise.seen[0][0], none.noise.seen[0][0])


@EVERY
def test_privacy_pays_the_same_with_the_guard(play: Any, small: Any, name: str) -> None:
    """As many noised sums, as much noise on each, none longer than the clip norm allows; no charged claim."""
    case = CASES[name]
    none, strong = play(case, None, private=True), play(case, case.strong, private=True)
    assert [std for _, std in strong.noise.seen] == [std for _, std in none.noise.seen]
    assert strong.result.steps == none.result.steps == len(strong.noise.seen)
    plan = small.plan()
    assert all(float(value.norm()) <= 4 * plan.clip_norm * (1 + 1e-5) for value, _ in strong.noise.seen)
    assert GUARDS[case.guard].claim in ("in-step", "post-processing")


def test_a_penalty_is_neither_clipped_nor_noised(play: Any) -> None:
    """Noise multiplier 0, one step of SGD: the clipped sum, divided, and the whole gradient of the penalty."""
    case = CASES["distill on public records"]
    loop = {"optimizer": "sgd", "momentum": 0.0, "steps": 1, "lr": 0.01}
    none = play(case, None, private=True, z=0.0, **loop)
    strong = play(case, 1e3, private=True, z=0.0, **loop)
    moved = _apart(none, strong) / 0.01
    task = strong.task
    task.resident.load(strong.start)
    examples = task.encode(WORDS)
    with torch.no_grad(), task.resident.swapped(task.resident.state_of(strong.old)):
        taught = task.forward(examples, range(4))
    loss = 1e3 * task.divergence(task.forward(examples, range(4)), taught, 2.0).mean()
    found = torch.autograd.grad(loss, [task.resident.parameters[n] for n in task.resident.trained_names])
    expected = torch.cat([g.reshape(-1) for g in found])
    assert float(expected.norm()) > 10.0  # far more than the clip norm of 1
    assert torch.allclose(moved, expected, rtol=1e-2, atol=1e-3 * float(expected.abs().max()))
    size = float(none.noise.seen[0][0].norm()) / 4.0
    assert strong.result.penalty == pytest.approx(float(expected.norm()) / size, rel=1e-3)


def _apart(one: Played, other: Played) -> torch.Tensor:
    """Difference of what two rounds sent."""
    names = one.task.resident.trained_names
    parts = [one.result.arrays[n] - other.result.arrays[n] for n in names]
    return torch.from_numpy(np.concatenate([part.reshape(-1) for part in parts]))


def test_the_pull_is_told_as_a_share_of_the_step(play: Any) -> None:
    """One step of SGD with an endless anchor from the anchor itself: all of the step is taken back."""
    case = CASES["anchor"]
    loop = {"optimizer": "sgd", "momentum": 0.0, "steps": 1}
    none, strong = play(case, None, **loop), play(case, case.strong, **loop)
    names = none.task.resident.trained_names
    step = np.concatenate([(none.result.arrays[n] - none.start[n]).reshape(-1) for n in names])
    pulled = float(_apart(none, strong).norm())
    assert strong.result.pull == pytest.approx(pulled / float(np.linalg.norm(step)), rel=1e-3)
