"""The instruments by which the gate reads a whole site, each against another road."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save
from scipy.stats import norm

from client.gradients import gradient_of
from client.local import OPTIMIZERS
from llmchain_fl.core.array_record import pack, unpack
from llmchain_fl.core.errors import ConfigError
from llmchain_fl.core.guards.mask import MaskSite
from llmchain_fl.core.privacy.events import Event
from llmchain_fl.core.privacy.noise import secure_uniform
from llmchain_fl.core.privacy.plan import MAX_CLIP_NORM, MIN_CLIP_NORM
from llmchain_fl.core.tasks.kind import TASKS
from llmchain_fl.core.tasks.passes import Shape
from llmchain_fl.core.work import TrainSpec, open_work
from simulations.audit import own_run
from simulations.audit.entropy import Recorded, source_is
from simulations.audit.gate import EFFORTS, checks_of, run_check, run_gate
from simulations.audit.hostile_arrays import ARRAYS
from simulations.audit.own_noise import MOMENTUM, coefficients, readable
from simulations.audit.own_reading import CLIP, READABLE, Sums, apart, for_people
from simulations.audit.own_run import SECOND, Setting, of_run, small
from simulations.audit.own_site import OwnSite, made_up_rows
from simulations.audit.replies import Seen
from simulations.audit.second_accountant import second_epsilon
from simulations.guard_specs import spec_of


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("momentum", [0.0, 0.25, 0.9])
@pytest.mark.parametrize("steps", [1, 2, 30])
def test_an_update_of_noise_is_the_sum_that_the_law_says(optimizer: str, momentum: float, steps: int) -> None:
    draw, size = torch.Generator().manual_seed(1), 1e-12
    noise = torch.randn(steps, 50, generator=draw, dtype=torch.float64) * size
    theta = torch.nn.Parameter(torch.zeros(50, dtype=torch.float64))
    stepping = OPTIMIZERS[optimizer](theta, 3.0, momentum)
    for one in noise:
        theta.grad = one.clone()
        stepping.step()
    spec = TrainSpec(steps, 1.0, 1.0, 1, optimizer, momentum, 1)
    told = -3.0 * (torch.from_numpy(coefficients(spec))[:, None] * noise).sum(dim=0)
    told = told / 1e-8 if optimizer == "adam" else told
    assert torch.allclose(theta.detach(), told, rtol=2e-3, atol=1e-3 * float(told.abs().max()))


@given(
    st.sampled_from(["sgd", "adam"]),
    st.floats(0, 0.99),
    st.floats(0.05, 50),
    st.floats(0.5, 1000),
    st.sampled_from([1, 3, 100]),
    st.booleans(),
)
def test_any_settings_can_be_read(
    optimizer: str, momentum: float, noise: float, divisor: float, steps: int, guarded: bool
) -> None:
    guards = (own_run.DISTILL, own_run.ANCHOR) if guarded else ()
    told = {"noise_multiplier": noise, "divisor": divisor}
    reading = readable(Setting(small(optimizer=optimizer, momentum=momentum, steps=steps, guards=guards, **told)))
    plan = reading.setting.plan
    assert MIN_CLIP_NORM <= plan.clip_norm <= MAX_CLIP_NORM
    assert 0 < reading.lr <= 1e3
    assert plan.noise_multiplier == noise
    assert math.isfinite(reading.std)
    assert reading.std > 1e-6
    assert reading.setting.work.train.optimizer == optimizer
    assert [guard.name for guard in reading.setting.work.guards] == [guard.name for guard in guards]
    assert momentum == 0 or coefficients(TrainSpec(steps, 1, 1, 1, optimizer, MOMENTUM, 1)).min() > 0.5


def gaussian_epsilon(mu: float, delta: float) -> float:
    """Balle & Wang 2018, theorem 8, by bisection."""
    low, high = 0.0, 100.0
    for _ in range(100):
        middle = (low + high) / 2
        found = norm.cdf(mu / 2 - middle / mu) - math.exp(middle) * norm.cdf(-mu / 2 - middle / mu)
        low, high = (middle, high) if found > delta else (low, middle)
    return high


@pytest.mark.parametrize(("noise", "steps"), [(1.0, 1), (2.0, 9), (5.0, 100), (0.7, 2)])
def test_the_second_accountant_is_the_closed_form_where_there_is_one(noise: float, steps: int) -> None:
    told = second_epsilon([Event("gaussian", 1.0, noise, steps)], 1e-5)
    assert told == pytest.approx(gaussian_epsilon(steps**0.5 / noise, 1e-5), rel=1e-4)


def test_the_second_accountant_grows_with_steps_and_rate_and_is_0_for_nothing() -> None:
    told = [second_epsilon([Event("poisson-gaussian", q, 1.0, n)], 1e-5) for q, n in ((0.1, 1), (0.1, 5), (0.2, 5))]
    assert sorted(told) == told
    assert second_epsilon([], 1e-5) == 0.0


def test_a_gap_is_measured_beyond_what_rounding_and_noise_explain() -> None:
    rounding = np.full(100, 1e-9)
    one, other = Sums(np.zeros(100), rounding), Sums(np.full(100, 0.1), rounding)
    assert apart(one, other) == pytest.approx(1.0, abs=1e-6)
    assert apart(other, other) == 0.0
    assert math.isnan(apart(None, one))
    assert math.isnan(apart(one, None))
    coarse = dataclasses.replace(other, rounding=np.full(100, 2 * READABLE))
    assert apart(one, coarse) == 0.0


def test_arrays_that_overflow_at_far_positions_switch_long_records_off_and_no_others() -> None:
    setting = for_people(Setting(small()))
    task = open_work(setting.work.resident, setting.work.task)[1]
    task.resident.focus(setting.work.adapter.trained)
    task.resident.load(ARRAYS["overflowing"](setting))
    rows = made_up_rows(setting.work.task, ["ann"] * 6, lengths=(4, 5, 6, 13, 22, 2))
    examples = task.encode(rows)
    examples.fix(Shape(6, 24))
    off = []
    for record in range(6):
        with gradient_of(task.resident, examples, 6, setting.plan) as gradient:
            gradient([np.array([record])], lambda index: task.losses(task.forward(examples, index)))
            off.append(gradient.unusable == 1)
    assert off == [False, False, True, True, True, False]


@pytest.mark.parametrize("kind", ARRAYS)
def test_hostile_arrays_are_finite_and_of_the_shapes_that_a_site_takes(kind: str) -> None:
    setting = for_people(Setting(small(head="trained")))
    shapes = setting.resident().shapes
    for name, value in ARRAYS[kind](setting).items():
        assert (value.dtype, value.shape) == (np.float32, shapes[name])
        assert np.isfinite(value).all()


def test_the_source_of_bytes_answers_the_same_to_the_same_question_but_for_one_bit() -> None:
    plain, flipped = Recorded("x"), Recorded("x", flipped=9)
    one, other = plain(32), flipped(32)
    assert [i for i in range(256) if (one[i // 8] ^ other[i // 8]) >> i % 8 & 1] == [9]
    with source_is(Recorded("x")):
        first = secure_uniform(4)
    with source_is(Recorded("x")):
        assert np.array_equal(secure_uniform(4), first)
    assert not np.array_equal(secure_uniform(4), first)
    assert plain.asked == [32]


def reply_with(change: Callable[[Any], None], tmp_path: Path) -> list[str]:
    """Faults found in a real update that was changed afterwards."""
    seen, setting = Seen(), Setting(small())
    task = setting.task(1, 1.0)
    site = OwnSite(tmp_path, Seen())
    reply = site.write(SECOND, made_up_rows(setting.work.task, ["ann"])).train(task)
    change(reply)
    seen.update(task, reply)
    return seen.faults


def others(reply: Any, change: Callable[[str, dict[str, Any]], object]) -> None:
    """``change`` gets the name of one array, and all of them."""
    arrays: dict[str, Any] = unpack(reply["arrays"])
    change(min(arrays), arrays)
    reply["arrays"] = pack(arrays)


def noted(reply: Any) -> None:
    """Words in the table of the arrays, where the format has a place for them."""
    (array,) = reply["arrays"].values()
    array.data = save(unpack(reply["arrays"]), {"n": "3"})


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda reply: reply["config"].__setitem__("n", 3), "config"),
        (lambda reply: reply["config"].__setitem__("round", 2), "round"),
        (lambda reply: reply["config"].__setitem__("version", "0.1.0+0.25"), "version"),
        (lambda reply: reply["config"].__setitem__("receipt", reply["config"]["receipt"] + "A"), "receipt"),
        (lambda reply: reply["config"].__setitem__("receipt", "12 records" + "A" * 126), "receipt"),
        (lambda reply: others(reply, lambda _, all_: all_.update(zz=np.zeros(3, np.float32))), "names"),
        (lambda reply: others(reply, lambda name, all_: all_.pop(name)), "names"),
        (lambda reply: others(reply, lambda name, all_: all_.update({name: all_[name].astype(np.float64)})), "type"),
        (lambda reply: others(reply, lambda name, all_: all_.update({name: all_[name][None]})), "shape"),
        (noted, "bytes"),
        (lambda reply: reply.__setitem__("more", reply["config"]), "records"),
    ],
)
def test_whatever_is_not_on_the_list_of_a_reply_is_a_fault(
    change: Callable[[Any], None], word: str, tmp_path: Path
) -> None:
    assert word in " ".join(reply_with(change, tmp_path))
    assert reply_with(lambda reply: None, tmp_path / "as-it-is") == []


def test_a_run_without_noise_at_its_sites_has_nothing_to_check() -> None:
    for work in (
        dataclasses.replace(small(), plan=None),
        small(noise_multiplier=0.0),
        small(unit="site", sampling_rate=1.0, records_per_unit=1),
    ):
        with pytest.raises(ConfigError):
            checks_of(of_run(work))


def test_a_run_of_ones_own_is_played_with_and_without_its_codec() -> None:
    work = small(codec=own_run.CodecSpec("int8"), guards=(own_run.REHEARSAL,), rehearsal="earlier")
    as_is, plain = of_run(work, ("lora_B",), ())
    assert (as_is.work.codec.name, plain.work.codec.name) == ("int8", "none")
    assert as_is.again
    assert as_is.trains == ("lora_B",)
    assert {"own noise: own run", "own noise: own run, not compressed"} <= set(checks_of((as_is, plain)))


def test_a_run_in_lockstep_with_shared_noise_sums_and_a_mask_passes_as_it_is_shipped() -> None:
    labels = (("first", (0, 1)), ("middle", (1,)), ("last", (1, 2)))
    made = small(head="trained", method="lockstep", head_alone=True, guards=(spec_of(MaskSite, others=0.0),))
    task = dataclasses.replace(made.task, stage_labels=labels)
    plan = dataclasses.replace(made.plan, shares=3, members=5, grid=10)  # type: ignore[type-var]
    settings = of_run(dataclasses.replace(made, task=task, plan=plan), sums=True)
    assert [own.name for own in settings] == ["own run", "own run, sums by label"]
    assert settings[0].work.task.stage_labels == (("first", (0, 1)), (SECOND, (1, 2)))
    own = [name for name in checks_of(settings) if name.startswith("own ")]
    sums = "own run, sums by label"
    assert {"own shares", "own sums", f"own noise: {sums}", f"own people: {sums}"} <= set(own)
    findings = run_gate("quick", tuple(own), settings)
    assert [str(finding) for finding in findings if not finding.passed] == []
    assert any(finding.name == "sums with too little noise (z 2, 3 of 5)" for finding in findings)


@pytest.mark.parametrize("kind", sorted(TASKS))
@pytest.mark.part(2)
def test_every_kind_of_task_passes_as_a_run_of_ones_own(kind: str, small: Any) -> None:
    made = small.work(kind, train={"optimizer": "adam", "steps": 2})
    plan = small.plan(made, unit="person", records_per_unit=8, noise_multiplier=2.0)
    settings = of_run(dataclasses.replace(made, plan=plan))
    own = tuple(name for name in checks_of(settings) if name.startswith("own "))
    findings = run_gate("quick", own, settings)
    assert [str(finding) for finding in findings if not finding.passed] == []


def test_a_made_up_site_has_its_own_files_alone(tmp_path: Path) -> None:
    setting = Setting(small())
    site = OwnSite(tmp_path / "a", Seen()).write(SECOND, made_up_rows(setting.work.task, ["ann"]))
    site.train(setting.task(1, 1.0))
    assert site.lines() == ["reserve", "seal"]
    assert site.booked() == 1
    assert OwnSite(tmp_path / "b", Seen()).lines() == []
    assert setting.plan.clip_norm != CLIP
    assert run_check("policy", EFFORTS["quick"], tmp_path)[0].passed
