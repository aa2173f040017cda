"""Route: keys by another road, and two tasks that want opposite answers to the same words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from llmchain_fl.core.adapter.digest import digest
from llmchain_fl.core.adapter.routing import FOLD, PAIR
from llmchain_fl.core.adapter.value import CENTRE, KEYS, TAU, Arrays
from llmchain_fl.core.errors import ConfigError, DataError
from llmchain_fl.core.guards import SiteGuards
from llmchain_fl.core.work import GuardSpec
from llmchain_fl.guards.protocol import View
from llmchain_fl.guards.route import RouteServer, keys_of
from llmchain_fl.guards.server_guards import ServerGuards

SCALE = 2.0
SLOTS, ROUTE = GuardSpec("slots", (("share", 0.0),)), GuardSpec("route", (("tau", 0.05),))
ASKED = {"bank": ("card", "pin", "limit", "cash"), "loan": ("money", "swap", "rate", "fee")}
ANSWERS = ["lost_card", "transfer", "rates", "other"]


def conflicting(domain: str, seed: int = 1, count: int = 24) -> list[dict[str, str]]:
    """Both domains ask about the same words; one answers the other way round. Only the first words tell them apart."""
    draw, turn = np.random.default_rng(seed), 0 if domain == "bank" else 2
    words = [word for group in ASKED.values() for word in group]
    rows = []
    for _ in range(count):
        place = int(draw.integers(len(words)))
        rows.append(
            {"text": f"{domain} {domain} {words[place]}", "label": ANSWERS[(place % 4 + turn) % 4], "stage": domain}
        )
    return rows


def view(task: Any, stage: int, rows: Sequence[Any], stages: tuple[str, ...] = ("bank", "loan")) -> View:
    told = {"round": stage + 1, "stage": stage, "stages": stages, "last": True, "scale": SCALE, "seed": 7}
    public = task.encode(rows) if rows else None
    return View(**told, before={}, probe=lambda arrays: {}, task=task, public=public, public_rows=tuple(rows))


def taught(small: Any, specs: Sequence[GuardSpec], steps: int = 60) -> tuple[Any, Arrays, list[Arrays]]:
    """(task, last serving adapter, those of each stage) of one site that learns one domain after the other."""
    from client.local import train_round

    task = small.task(trained=("lora_B",), rank=6)
    public = [row for domain in ASKED for row in conflicting(domain, seed=9)]
    guards, current, kept = ServerGuards(specs), task.resident.fresh(), []
    loop = small.work(train={"batch_size": 24.0, "micro_batch": 24}).train
    for stage, domain in enumerate(ASKED):
        task.resident.reset()
        task.resident.load(current)
        task.resident.load({n: v for n, v in guards.payload().items() if n.startswith(("slots.", "route."))})
        examples = task.encode(conflicting(domain))
        result = train_round(task, examples, [small.units(range(24))] * steps, loop, None, SiteGuards([], {}), 0.02)
        told = view(task, stage, public)
        current = guards.step(told, {**current, **result.arrays})
        serving = guards.serve(told, current)
        kept.append(serving)
        current = guards.on_stage_end(told, current, serving)
    return task, serving, kept


def accuracy(task: Any, arrays: Arrays, domain: str) -> float:
    task.resident.reset()
    task.resident.load(arrays)
    return float(task.score(task.encode(conflicting(domain, seed=5)))["accuracy"])


@pytest.fixture(scope="module")
def played(small: Any) -> tuple[RouteServer, Any, list[Arrays]]:
    """(guard, task, [adapter of stage 1, beginning of stage 2]) with a public record of each domain's every word."""
    task, rows = small.task(), [row for domain in ASKED for row in conflicting(domain)]
    guards, route = ServerGuards([SLOTS]), RouteServer({"tau": 0.05})
    told = view(task, 0, rows)
    first = route.serve(told, guards.serve(told, task.resident.arrays()))
    second = route.on_stage_end(told, guards.on_stage_end(told, task.resident.arrays(), first), first)
    return route, task, [first, second]


def test_route_serves_two_tasks_that_the_sum_of_slots_cannot(small: Any) -> None:
    task, serving, _ = taught(small, [SLOTS])
    assert accuracy(task, serving, "loan") == 1.0
    assert accuracy(task, serving, "bank") < 0.3  # the old answers are overwritten
    task, serving, kept = taught(small, [SLOTS, ROUTE])
    assert accuracy(task, kept[0], "bank") == 1.0
    assert [accuracy(task, serving, domain) for domain in ASKED] == [1.0, 1.0]
    summed = {name: value for name, value in serving.items() if not name.startswith("route.")}
    assert min(accuracy(task, summed, domain) for domain in ASKED) < 0.9  # it is the choice that does it


def test_keys_are_unit_means_of_unit_features_about_the_mean_of_the_stages(small: Any) -> None:
    """In numpy, from hidden states that transformers gives, one record at a time."""
    task, rows = small.task(last_layers=1), small.rows(7)
    task.resident.reset()
    examples, found = task.encode(rows), []
    with torch.no_grad():
        for ids in examples.ids:
            states = task.resident.base.module(input_ids=torch.from_numpy(ids)[None], output_hidden_states=True)
            found.append(states.hidden_states[2][0].mean(dim=0).double().numpy())
    groups = [[0, 1, 2], [3, 4, 5, 6]]
    centre = (np.mean(found[:3], axis=0) + np.mean(found[3:], axis=0)) / 2
    means = [
        np.mean([(f - centre) / np.linalg.norm(f - centre) for f in part], axis=0) for part in (found[:3], found[3:])
    ]
    keys, told = keys_of(task, examples, groups)
    np.testing.assert_allclose(told, centre, atol=1e-5)
    np.testing.assert_allclose(keys, [mean / np.linalg.norm(mean) for mean in means], atol=1e-4)
    task.resident.theta.normal_()
    np.testing.assert_allclose(keys_of(task, examples, groups)[0], keys, atol=1e-5)  # below the adapter


def test_stages_of_the_same_texts_have_the_same_key(small: Any) -> None:
    task = small.task()
    keys, _ = keys_of(task, task.encode(small.rows(4)), [[0, 1, 2, 3], [0, 1, 2, 3]])
    np.testing.assert_array_equal(keys[0], keys[1])
    assert np.linalg.norm(keys[0]) == pytest.approx(1.0, abs=1e-5) or not keys.any()


def test_the_first_stage_is_served_without_a_table(played: Any, small: Any) -> None:
    guard, task = RouteServer({"tau": 0.05}), small.task()
    told = view(task, 0, [*conflicting("bank"), *conflicting("loan")])
    arrays = {**task.resident.arrays(), PAIR: np.ones(3, np.float32)}
    assert digest(guard.step(told, arrays)) == digest(guard.serve(told, arrays)) == digest(arrays)
    assert guard.payload() == guard.state() == {}
    assert not [name for name in played[2][0] if name.startswith("route.")]


def test_from_the_second_stage_on_sites_and_server_choose_alike(played: Any, small: Any) -> None:
    route, task, (first, second) = played
    assert set(route.payload()) == {KEYS, CENTRE, TAU, FOLD, PAIR}
    assert route.payload()[FOLD].tolist() == first[PAIR].tolist() == [1.0] * 3
    assert route.payload()[PAIR].tolist() == [2.0] * 3
    assert route.payload()[TAU] == pytest.approx(0.05)
    moved = {n: v + 0.3 if n.endswith("lora_B") else v for n, v in second.items()}
    served = route.serve(None, {**moved, FOLD: first[PAIR], PAIR: np.full(3, 2.0, np.float32)})
    examples, found = task.encode([*conflicting("bank", count=3), *conflicting("loan", count=3)]), []
    for parts in ([served], [moved, route.payload()], [moved]):
        task.resident.reset()
        for arrays in parts:
            task.resident.load(arrays)
        with torch.no_grad():
            found.append(task.forward(examples, range(6)).logits)
    assert torch.equal(found[0], found[1])
    assert (found[0] - found[2]).abs().max() > 0.1  # without the table it is another model


def test_each_domain_chooses_its_own_slot(played: Any) -> None:
    from llmchain_fl.core.adapter.routing import chosen

    route, task, (_, second) = played
    task.resident.reset()
    task.resident.load({**second, **route.payload()})
    table = task.resident.router.table
    for slot, domain in enumerate(ASKED):
        examples = task.encode(conflicting(domain, seed=5))
        with task.resident.router.listening() as seen, torch.no_grad():
            task.forward(examples, range(len(examples)))
        assert chosen(seen[0], table)[:, slot].min() > 0.9


def test_the_table_survives_a_crash_and_stays_after_the_last_stage(played: Any) -> None:
    route, task, (first, second) = played
    other = RouteServer({"tau": 0.05})
    other.load_state(route.state())
    assert digest(other.payload()) == digest(route.payload())
    told = view(task, 1, [*conflicting("bank"), *conflicting("loan")])
    assert other.on_stage_end(told, second, first) is second
    assert digest(other.payload()) == digest(route.payload())


def test_public_records_must_tell_all_stages_apart(small: Any) -> None:
    task, guard = small.task(), RouteServer({"tau": 0.05})
    with pytest.raises(ConfigError, match='column "stage"'):
        guard.step(view(task, 0, small.rows(4)), {})
    with pytest.raises(DataError, match='"loan"'):
        guard.step(view(task, 0, conflicting("bank")), {})
    assert guard.step(view(task, 0, (), ("bank",)), {}) == {}  # one stage needs no choice


def test_without_slots_there_is_nothing_to_choose(small: Any) -> None:
    task = small.task()
    with pytest.raises(ConfigError, match="chooses among frozen pairs"):
        ServerGuards([ROUTE]).serve(view(task, 0, conflicting("bank")), task.resident.arrays())
