"""The guard ``merge``: it acts, it does not act where it must not, and its state survives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmchain_fl.core.adapter.digest import digest
from llmchain_fl.core.adapter.value import Arrays
from llmchain_fl.guards.merge import SHARES, MergeServer
from llmchain_fl.guards.protocol import View

SCALE = 2.0


def arrays(seed: int, rank: int = 2, frozen: bool = False) -> Arrays:
    draw, common = np.random.default_rng(seed), np.random.default_rng(99)
    return {
        "x.lora_A": (common if frozen else draw).normal(size=(rank, 7)).astype(np.float32),
        "x.lora_B": draw.normal(size=(6, rank)).astype(np.float32),
        "head.bias": draw.normal(size=3).astype(np.float32),
    }


def view(stage: int = 0, last: bool = True) -> View:
    names = ("cards", "loans", "cash")
    return View(stage + 1, stage, names, last, SCALE, 1, {}, lambda _: {}, None)  # type: ignore[arg-type]


def guard(kind: str = "wise", beta: float = 0.5, density: float = 0.5) -> MergeServer:
    return MergeServer({"kind": kind, "beta": beta, "density": density})


def play(one: MergeServer, stage: int, new: Arrays) -> tuple[Arrays, Arrays]:
    """(what is served, what the next stage starts from) of a stage that ends with ``new``."""
    served = one.serve(view(stage), new)
    return served, one.on_stage_end(view(stage), new, served)


def product(adapter: Arrays) -> Any:
    return SCALE * adapter["x.lora_B"].astype(np.float64) @ adapter["x.lora_A"].astype(np.float64)


@pytest.mark.parametrize("kind", list(SHARES))
def test_the_first_stage_is_as_it_was_bit_for_bit(kind: str) -> None:
    served, start = play(guard(kind), 0, arrays(1))
    assert digest(served) == digest(start) == digest(arrays(1))


@pytest.mark.parametrize("kind", list(SHARES))
def test_nothing_happens_before_the_last_round_of_a_stage(kind: str) -> None:
    one = guard(kind)
    play(one, 0, arrays(1))
    assert digest(one.serve(view(1, last=False), arrays(2))) == digest(arrays(2))
    assert one.notes() == {}
    assert one.payload() == {}


@pytest.mark.parametrize("kind", ["wise", "ties"])
@pytest.mark.parametrize("frozen", [False, True])
def test_a_share_of_zero_is_the_old_adapter_and_a_share_of_one_the_new_bit_for_bit(kind: str, frozen: bool) -> None:
    for beta, wanted in ((0.0, 1), (1.0, 2)):
        one = guard(kind, beta)
        play(one, 0, arrays(1, frozen=frozen))
        served, start = play(one, 1, arrays(2, frozen=frozen))
        assert digest(served) == digest(start) == digest(arrays(wanted, frozen=frozen))
        assert one.notes()["share_new"] == beta


def test_a_smaller_share_leaves_the_serving_adapter_nearer_to_the_old_one() -> None:
    gaps = []
    for beta in (0.0, 0.25, 0.5, 0.75, 1.0):
        one = guard("wise", beta)
        play(one, 0, arrays(1, frozen=True))
        gaps.append(
            float(np.linalg.norm(product(play(one, 1, arrays(2, frozen=True))[0]) - product(arrays(1, frozen=True))))
        )
    assert gaps[0] < 1e-9
    assert gaps == sorted(gaps)
    assert gaps[-1] > 1.0


@pytest.mark.parametrize(
    ("kind", "weights"),
    [
        ("wise", (0.0625, 0.1875, 0.75)),
        ("mean", (1 / 3, 1 / 3, 1 / 3)),
        ("root", ((1 - 2**-0.5) * (1 - 3**-0.5), 2**-0.5 * (1 - 3**-0.5), 3**-0.5)),
    ],
)
def test_three_stages_have_the_weights_of_their_kind_where_a_is_frozen(kind: str, weights: tuple[float, ...]) -> None:
    """``mean`` is the mean of all stages; ``root`` weighs as SLAO does."""
    one, stages = guard(kind, 0.75), [arrays(seed, frozen=True) for seed in (1, 2, 3)]
    for stage, new in enumerate(stages):
        served, start = play(one, stage, new)
    want = sum(w * product(adapter) for w, adapter in zip(weights, stages, strict=True))
    np.testing.assert_allclose(product(served), want, atol=1e-5)
    np.testing.assert_allclose(
        served["head.bias"], sum(w * a["head.bias"] for w, a in zip(weights, stages, strict=True)), atol=1e-6
    )
    assert digest(start) == digest(served)
    assert np.array_equal(served["x.lora_A"], stages[0]["x.lora_A"])
    assert one.notes()["lost"] == 0.0


def test_where_a_moved_the_product_is_merged_to_the_best_of_the_rank_and_the_loss_is_told() -> None:
    one = guard("wise", 0.5)
    play(one, 0, arrays(1))
    served, _ = play(one, 1, arrays(2))
    want = (product(arrays(1)) + product(arrays(2))) / 2
    values = np.linalg.svd(want, compute_uv=False)
    assert served["x.lora_A"].shape == (2, 7)
    error = float(np.linalg.norm(product(served) - want))
    assert error == pytest.approx(float(np.sqrt(np.sum(values[2:] ** 2))), rel=1e-5)
    notes = one.notes()
    assert notes["lost"] == pytest.approx(error / np.linalg.norm(want), rel=1e-5)
    gap = np.linalg.norm(product(served) - product(arrays(2))) / np.linalg.norm(product(arrays(2)))
    assert notes["moved"] == pytest.approx(gap, rel=1e-5)
    factors = sum(0.5 * arrays(s)["x.lora_B"] for s in (1, 2)) @ sum(0.5 * arrays(s)["x.lora_A"] for s in (1, 2))
    assert np.linalg.norm(SCALE * factors - want) > 1.2 * error  # what a mean of the factors would have given


def test_ties_acts_and_tells_that_it_loses() -> None:
    one = guard("ties", 0.5, 0.3)
    play(one, 0, arrays(1))
    served, _ = play(one, 1, arrays(2))
    wise = guard("wise", 0.5)
    play(wise, 0, arrays(1))
    assert digest(served) != digest(play(wise, 1, arrays(2))[0])
    assert 0.0 < one.notes()["lost"] < 1.0


def test_what_sites_go_on_from_has_the_form_of_their_arrays() -> None:
    """What is served may have another form than what sites train (a later guard, a grown rank)."""
    one = guard()
    play(one, 0, arrays(1))
    one.serve(view(1), arrays(2))
    fold = {"x.fold_A": np.ones((1, 7), np.float32), "x.fold_B": np.ones((6, 1), np.float32)}
    start = one.on_stage_end(view(1), arrays(2) | fold, {})
    whole = product(start) + start["x.fold_B"].astype(np.float64) @ start["x.fold_A"]
    again = guard()
    play(again, 0, arrays(1))
    np.testing.assert_allclose(whole, product(play(again, 1, arrays(2))[0]), atol=1e-5)
    assert np.array_equal(start["x.lora_B"], arrays(2)["x.lora_B"])


def test_a_stage_whose_last_round_nobody_came_to_is_merged_all_the_same() -> None:
    one = guard()
    play(one, 0, arrays(1, frozen=True))
    one.serve(view(1, last=False), arrays(2, frozen=True))
    start = one.on_stage_end(view(1), arrays(2, frozen=True), arrays(2, frozen=True))
    want = (product(arrays(1, frozen=True)) + product(arrays(2, frozen=True))) / 2
    np.testing.assert_allclose(product(start), want, atol=1e-5)


@pytest.mark.parametrize("kind", list(SHARES))
def test_a_resumed_guard_goes_on_bit_for_bit(kind: str, tmp_path: Path) -> None:
    """The state goes through a real file, as the run's does."""
    from server.checkpoint import load_state, read_state, save_state

    whole, first = guard(kind), guard(kind)
    for stage in (0, 1):
        play(whole, stage, arrays(stage + 1))
        play(first, stage, arrays(stage + 1))
    save_state(tmp_path, 2, {"merge": first})
    resumed, found = guard(kind), read_state(tmp_path)
    assert found is not None
    load_state(found, {"merge": resumed})
    for one in (whole, resumed):
        one.serve(view(2, last=False), arrays(7))
    assert [digest(a) for a in play(resumed, 2, arrays(3))] == [digest(a) for a in play(whole, 2, arrays(3))]
    assert resumed.notes() == whole.notes()
    fresh = guard(kind)
    fresh.load_state({})
    assert digest(play(fresh, 0, arrays(3))[0]) == digest(arrays(3))


def test_what_was_handed_in_and_out_is_not_changed_later() -> None:
    one, new = guard(), arrays(1)
    served, _ = play(one, 0, new)
    before = digest(served), digest(new)
    play(one, 1, arrays(2))
    assert (digest(served), digest(new)) == before
