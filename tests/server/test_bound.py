"""The bound on an update: what honest sites can reach, by other roads than the formula."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi

from client.local import OPTIMIZERS
from llmchain_fl.config.read import build
from llmchain_fl.core.codec_spec import CodecSpec
from llmchain_fl.core.compression import CODECS
from llmchain_fl.core.guards import SITE_GUARDS
from llmchain_fl.core.guards.agem import projected
from llmchain_fl.core.guards.site_guard import SiteGuard
from llmchain_fl.core.privacy.plan import PrivacyPlan
from llmchain_fl.core.work import GuardSpec, WorkSpec
from llmchain_fl.planning.work import work_from
from server import bound
from server.bound import CHANCE, DEFAULT, LEAST, MOST_UNITS, adam_reach, update_bound
from server.sound import LARGEST

PLAN = PrivacyPlan(0.1, 1.5, 0.5, 8, 4.0, 1e-5)


def work(
    plan: PrivacyPlan | None = PLAN, codec: CodecSpec | None = None, guards: tuple[str, ...] = (), **train: Any
) -> WorkSpec:
    """A run of 8 steps; ``train`` changes its loop."""
    run = build({"task": {"labels": ["x"]}, "data": {"train": "x"}, "train": {"steps": 8, "batch_size": 4.0, **train}})
    specs = tuple(GuardSpec(name) for name in guards)
    return replace(work_from(run, {"x": "x"}, ("lora_B",), plan), guards=specs, codec=codec or CodecSpec())


def walked(optimizer: str, gradients: list[float], momentum: float, lr: float = 1.0) -> list[float]:
    """How far each step of the sites' own optimiser moves one number, float64."""
    theta = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    made, path = OPTIMIZERS[optimizer](theta, lr, momentum), [0.0]
    for gradient in gradients:
        theta.grad = torch.tensor([gradient], dtype=torch.float64)
        made.step()
        path.append(float(theta.detach()))
    return [abs(after - before) for before, after in pairwise(path)]


# -- adam -------------------------------------------------------------------------------------------------------------

SIZES = st.floats(-1e12, 1e12) | st.floats(-1.0, 1.0) | st.sampled_from([0.0, 1e-30, -1e30])


@settings(max_examples=200)
@given(st.lists(SIZES, min_size=1, max_size=30), st.sampled_from([0.0, 0.5, 0.9, 0.99, 0.9995]))
def test_no_gradients_move_a_number_further_than_adam_reaches(gradients: list[float], momentum: float) -> None:
    assert sum(walked("adam", gradients, momentum)) <= adam_reach(len(gradients), momentum) * (1 + 1e-9)


@pytest.mark.parametrize("momentum", [0.3, 0.9, 0.99])
@pytest.mark.parametrize("steps", [1, 2, 7, 40])
def test_the_worst_gradients_take_a_last_step_as_long_as_the_bound_says(steps: int, momentum: float) -> None:
    """Equality in Cauchy-Schwarz; large numbers, so that torch's epsilon of 1e-8 does not show."""
    worst = [1e9 * (momentum / bound.BETA2) ** (steps - i) for i in range(1, steps + 1)]
    last = adam_reach(steps, momentum) - (adam_reach(steps - 1, momentum) if steps > 1 else 0.0)
    assert walked("adam", worst, momentum)[-1] == pytest.approx(last, rel=1e-6)


def test_one_step_of_adam_moves_every_number_by_the_learning_rate() -> None:
    assert adam_reach(1, 0.9) == pytest.approx(1.0)
    found = update_bound(work(steps=1), 400, 0.01, 0.0)
    assert 0.01 * 20 <= found <= 0.01 * 20 * 1.02


def test_where_the_sum_overflows_the_largest_bound_is_left() -> None:
    assert adam_reach(1_000_000, 0.999999) == math.inf
    assert update_bound(work(steps=1_000_000, momentum=0.999999), 10, 0.01, 1.0) == LARGEST


# -- sgd --------------------------------------------------------------------------------------------------------------


@settings(max_examples=100)
@given(st.lists(st.floats(0.0, 1.0), min_size=8, max_size=8), st.sampled_from([0.0, 0.9]), st.booleans())
def test_no_clipped_sum_of_a_thousand_times_the_expected_units_is_longer_than_the_bound(
    shares: list[float], momentum: float, all_of_it: bool
) -> None:
    plan = replace(PLAN, noise_multiplier=0.0)
    most = MOST_UNITS * plan.divisor * plan.clip_norm / plan.divisor  # N C / b
    steps = walked("sgd", [most * (1.0 if all_of_it else share) for share in shares], momentum, lr=0.3)
    assert sum(steps) <= update_bound(work(plan, optimizer="sgd", momentum=momentum), 1, 0.3, 0.0)


@pytest.mark.parametrize("numbers", [1, 10, 1000, 100_000])
def test_the_noise_of_all_steps_is_longer_with_no_more_than_the_stated_chance(numbers: int) -> None:
    spec = work(optimizer="sgd", momentum=0.0)
    silent = update_bound(replace(spec, plan=replace(PLAN, noise_multiplier=0.0)), numbers, 1.0, 0.0)
    for_noise = (update_bound(spec, numbers, 1.0, 0.0) - silent) / bound.SLACK / (1 + bound.ROUNDING * 8)
    each = for_noise / 8 * PLAN.divisor / PLAN.noise_std
    assert 8 * chi.sf(each, numbers) <= CHANCE * (1 + 1e-6)


def test_with_all_momentum_each_gradient_counts_ten_times() -> None:
    plain, heavy = (update_bound(work(optimizer="sgd", momentum=m), 50, 0.1, 0.0) for m in (0.0, 0.9))
    assert heavy == pytest.approx(10 * plain)


# -- what else a step may do ------------------------------------------------------------------------------------------


def test_every_guard_declares_what_its_site_half_does() -> None:
    for name, site in SITE_GUARDS.items():
        does = {hook for hook in ("penalty", "pull") if _overrides(site, hook)}
        if name == "agem":  # its pull is a projection of the step
            does -= {"pull"}
        assert site.adds == ("pull" if "pull" in does else "gradient" if "penalty" in does else "nothing"), name


def _overrides(site: Any, hook: str) -> bool:
    return getattr(site, hook) is not getattr(SiteGuard, hook)


@given(st.lists(st.floats(-1e3, 1e3), min_size=4, max_size=4), st.floats(0.0, 1.0), st.integers(0, 99))
def test_a_projected_step_is_no_longer_than_the_step(step: list[float], strength: float, seed: int) -> None:
    taken, reference = torch.tensor(step), torch.randn(4, generator=torch.Generator().manual_seed(seed))
    assert float(projected(taken, reference, strength).norm()) <= float(taken.norm()) * (1 + 1e-6)


CODEC_NAMES = [name for name in CODECS if name != "none"]


@settings(max_examples=100)
@given(st.sampled_from(CODEC_NAMES), st.integers(1, 300), st.sampled_from([1, 7, 64, 1000]), st.integers(0, 10**6))
def test_no_codec_lengthens_an_update_by_more_than_the_bound_allows(
    name: str, size: int, block: int, seed: int
) -> None:
    draw, spec = np.random.default_rng(seed), CodecSpec(name, block=block)  # type: ignore[arg-type]
    x = (draw.standard_normal(size) ** 9).astype(np.float32)
    y = CODECS[name].decode(CODECS[name].encode(x, spec, lambda n: np.full(n, 1 - 2.0**-53)), size, spec, "a test")
    allowed = update_bound(work(codec=spec), size, 1.0, 0.0) / update_bound(work(), size, 1.0, 0.0)
    assert float(np.linalg.norm(y)) <= float(np.linalg.norm(x)) * allowed * (1 + 1e-5)


@pytest.mark.parametrize(
    ("spec", "wanted"),
    [
        (work(None), DEFAULT),
        (work(replace(PLAN, sampling_rate=1.0, steps_per_round=1, unit="site")), DEFAULT),
        (work(guards=("anchor",)), DEFAULT),
        (work(guards=("olora",), optimizer="sgd"), DEFAULT),
        (work(guards=("replay",), optimizer="sgd"), DEFAULT),
        (work(codec=CodecSpec("int8", feedback=True)), DEFAULT),
    ],
    ids=["no privacy", "unit site", "anchor", "olora", "sgd with replay", "feedback"],
)
def test_where_no_bound_follows_there_is_one_all_the_same(spec: WorkSpec, wanted: float) -> None:
    assert update_bound(spec, 100, 0.01, 1.0) == wanted


def test_under_adam_what_a_guard_adds_to_the_gradient_changes_nothing() -> None:
    assert update_bound(work(guards=("replay",)), 100, 0.01, 1.0) == update_bound(work(), 100, 0.01, 1.0) < 10


def test_rounding_of_a_long_start_is_allowed_for() -> None:
    """Eight steps of a learning rate that float32 rounds up to a whole unit of the last place."""
    start = np.full(100, 1e4, dtype=np.float32)
    theta = start.copy()
    for _ in range(8):
        theta = np.nextafter(theta, np.float32(np.inf))
    length = float(np.linalg.norm(start.astype(np.float64)))
    assert float(np.linalg.norm(theta - start)) <= update_bound(work(), 100, 1e-12, length)


def test_a_bound_is_never_0_and_never_above_what_the_server_can_compute_with() -> None:
    assert update_bound(work(), 10, 0.0, 0.0) == LEAST
    assert update_bound(work(optimizer="sgd"), 10**9, 1e9, 0.0) == LARGEST
