"""Routing: against the softmax written out, and against an adapter built by hand for each text."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from llmchain_fl.core.adapter.routing import FOLD, PAIR, Table, chosen, pooled
from llmchain_fl.core.adapter.value import CENTRE, KEYS, TAU, is_beside
from llmchain_fl.core.errors import ModelError

SETTINGS = [{}, {"last_layers": 1}, {"last_layers": 2, "cache_mb": 64}, {"kind": "causal-lm"}, {"head": "trained"}]
HIDDEN = 32


def table(keys: Any, centre: Any = None, tau: float = 0.5) -> Table:
    keys = torch.nn.functional.normalize(torch.as_tensor(keys, dtype=torch.float32), dim=-1)
    centre = torch.zeros(keys.shape[1]) if centre is None else torch.as_tensor(centre, dtype=torch.float32)
    return Table(keys, centre, tau, torch.zeros(0, dtype=torch.int64), torch.zeros(3, dtype=torch.int64))


def slotted(task: Any, keys: int = 3, tau: float = 0.5, seed: int = 5, examples: Any = None) -> dict[str, Any]:
    """An adapter of ``keys`` slots (the last one is the pair), and how to choose among them.

    With ``examples`` the centre is that of their features, so that they differ in what they choose.
    """
    draw = np.random.default_rng(seed)
    arrays: dict[str, Any] = {}
    for name, value in task.resident.arrays().items():
        arrays[name] = value
        module, _, ending = name.rpartition(".")
        if ending == "lora_A" and keys > 1:
            arrays[f"{module}.fold_A"] = draw.normal(scale=0.3, size=(3 * (keys - 1), value.shape[1]))
        elif ending == "lora_B" and keys > 1:
            arrays[f"{module}.fold_B"] = draw.normal(scale=0.5, size=(value.shape[0], 3 * (keys - 1)))
    points = draw.normal(size=(keys, HIDDEN))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    centre = draw.normal(scale=0.1, size=HIDDEN)
    if examples is not None:
        centre = features_of(task, examples).mean(axis=0)
    arrays |= {KEYS: points, CENTRE: centre, TAU: np.full(1, tau)}
    arrays |= {FOLD: np.repeat(np.arange(1, keys), 3), PAIR: np.full(3, keys)}
    return {name: np.asarray(value, np.float32) for name, value in arrays.items()}


def loaded(task: Any, arrays: dict[str, Any]) -> Any:
    task.resident.reset()
    task.resident.load(arrays)
    return task


def features_of(task: Any, examples: Any) -> Any:
    with task.resident.router.listening() as seen, torch.no_grad():
        task.forward(examples, range(len(examples)))
    return seen[0].double().numpy()


def gates_of(task: Any, examples: Any, arrays: dict[str, Any]) -> Any:
    """a(x) by numpy."""
    shifted = features_of(task, examples) - arrays[CENTRE]
    cosines = (shifted / np.linalg.norm(shifted, axis=1, keepdims=True)) @ arrays[KEYS].astype(np.float64).T
    powers = np.exp((cosines - cosines.max(axis=1, keepdims=True)) / arrays[TAU][0])
    return powers / powers.sum(axis=1, keepdims=True)


def by_hand(task: Any, arrays: dict[str, Any], gates: Any) -> dict[str, Any]:
    """The plain adapter of one text: each slot's B times its gate."""
    own = {name: value for name, value in arrays.items() if not is_beside(name)}
    for name, value in own.items():
        if name.endswith("fold_B"):
            own[name] = value * gates[arrays[FOLD].astype(int) - 1]
        elif name.endswith("lora_B"):
            own[name] = value * gates[arrays[PAIR].astype(int) - 1]
    return own


# -- choosing ---------------------------------------------------------------------------------------------------------


def test_gates_are_a_softmax_of_cosines() -> None:
    keys, features = np.random.default_rng(1).normal(size=(3, 5)), np.random.default_rng(2).normal(size=(4, 5))
    centre = np.random.default_rng(3).normal(size=5)
    found = chosen(torch.tensor(features, dtype=torch.float32), table(keys, centre, 0.3)).numpy()
    for row, feature in zip(found, features - centre, strict=True):
        powers = [np.exp(k @ feature / np.linalg.norm(k) / np.linalg.norm(feature) / 0.3) for k in keys]
        np.testing.assert_allclose(row, np.array(powers) / sum(powers), atol=1e-6)


def test_a_small_temperature_chooses_the_nearest_key_alone() -> None:
    features = torch.randn(6, 8, generator=torch.Generator().manual_seed(1))
    soft, hard = (chosen(features, table(torch.eye(8)[:3], tau=tau)) for tau in (0.5, 1e-4))
    assert torch.equal(hard, torch.nn.functional.one_hot(soft.argmax(dim=1), 3).float())
    assert float(soft.min()) > 0.05


def test_a_text_far_from_all_keys_gets_the_mean_of_the_slots() -> None:
    keys = torch.eye(8)[:4]
    away = torch.stack([torch.eye(8)[6], 1e3 * torch.eye(8)[7], torch.zeros(8)])
    assert torch.allclose(chosen(away, table(keys, tau=0.05)), torch.full((3, 4), 0.25))
    assert torch.allclose(chosen(-keys[:1], table(keys, tau=0.05))[0, 1:], torch.full((3,), 1 / 3), atol=1e-6)


def test_only_the_tokens_that_decide_are_pooled() -> None:
    hidden = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(1))
    decide = torch.tensor([[1, 1, 0, 0], [0, 0, 0, 0]])
    assert torch.allclose(pooled(hidden, decide), torch.stack([hidden[0, :2].mean(dim=0), torch.zeros(3)]))


# -- in the model -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", SETTINGS)
def test_each_text_is_answered_by_its_own_mixture_of_slots(small: Any, settings: dict[str, Any]) -> None:
    task = small.task(**settings)
    examples = task.encode(small.rows(4, settings.get("kind", "classification")))
    arrays = slotted(task, examples=examples)
    loaded(task, arrays)
    with torch.no_grad():
        together = task.losses(task.forward(examples, range(4)))
        alone = torch.cat([task.losses(task.forward(examples, [i])) for i in range(4)])
    gates = gates_of(task, examples, arrays)
    assert np.ptp(gates, axis=0).max() > 0.1
    loaded(task, by_hand(task, arrays, np.full(3, 1 / 3)))
    with torch.no_grad():
        assert (task.losses(task.forward(examples, range(4))) - together).abs().max() > 0.01  # choosing matters here
        for i in range(4):
            loaded(task, by_hand(task, arrays, gates[i]))
            expected = task.losses(task.forward(examples, [i]))
            assert torch.allclose(together[i], expected[0], atol=2e-4)
            assert torch.allclose(alone[i], expected[0], atol=2e-4)


@pytest.mark.parametrize("settings", SETTINGS)
def test_what_decides_is_what_enters_the_first_adapted_layer(small: Any, settings: dict[str, Any]) -> None:
    task = small.task(**settings)
    kind = settings.get("kind", "classification")
    examples = task.encode(small.rows(1, kind, seed=3))
    loaded(task, slotted(task))
    with task.resident.router.listening() as seen, torch.no_grad():
        task.forward(examples, [0])
        loaded(task, task.resident.fresh())  # whatever the adapter is
        ids = torch.from_numpy(examples.ids[0])[None]
        states = task.resident.base.module(input_ids=ids, output_hidden_states=True).hidden_states
    first = 3 - settings["last_layers"] if "last_layers" in settings else 0
    deciding = states[first][0, : examples.targets[0]] if kind == "causal-lm" else states[first][0]
    assert torch.allclose(seen[0][0], deciding.mean(dim=0), atol=1e-5)


def test_an_answer_does_not_decide_and_plain_text_decides_by_its_beginning(small: Any) -> None:
    task = small.task("causal-lm", max_tokens=40)
    words = " ".join(small.words)
    pairs = task.encode([{"prompt": "lost card", "answer": answer} for answer in ("pay", "new loan rate")])
    texts = task.encode([{"text": f"{words} {more}"} for more in ("pay", "new loan rate")])
    for examples in (pairs, texts):
        with task.resident.router.listening() as seen, torch.no_grad():
            task.forward(examples, [0, 1])
        assert torch.allclose(seen[0][0], seen[0][1], atol=1e-6)


def test_a_prompt_is_answered_by_the_slot_it_is_scored_with(small: Any) -> None:
    task = small.task("causal-lm")
    prompts = [row["prompt"] for row in small.rows(4, "causal-lm")]
    examples = task.encode([{"prompt": prompt, "answer": "pay"} for prompt in prompts])
    arrays = slotted(task, tau=1e-4, examples=examples)
    found = [answer for ((answer, _),) in loaded(task, arrays).predict(prompts)]
    gates = gates_of(task, examples, arrays)
    assert len(set(gates.argmax(axis=1))) > 1
    for prompt, gate, answer in zip(prompts, gates, found, strict=True):
        (((expected, _),),) = loaded(task, by_hand(task, arrays, gate)).predict([prompt])
        assert expected == answer


def test_one_slot_is_the_plain_adapter_bit_for_bit(small: Any) -> None:
    task = small.task()
    examples, arrays = task.encode(small.rows(4)), slotted(task, keys=1)
    with torch.no_grad():
        routed = loaded(task, arrays).forward(examples, range(4)).logits
        plain = loaded(task, by_hand(task, arrays, np.ones(1))).forward(examples, range(4)).logits
    assert torch.equal(routed, plain)


def test_without_a_table_nothing_is_gated(small: Any) -> None:
    task = small.task()
    examples, arrays = task.encode(small.rows(3)), slotted(task)
    own = {name: value for name, value in arrays.items() if not name.startswith("route.")}
    with torch.no_grad():
        plain = loaded(task, own).forward(examples, range(3)).logits
        loaded(task, arrays)
        task.resident.reset()
        task.resident.load(own)
        assert torch.equal(task.forward(examples, range(3)).logits, plain)


def test_gradients_of_single_records_go_through_the_gates(small: Any) -> None:
    """The private step's own rule against one record at a time."""
    from client.per_sample import PerSample

    task = small.task()
    examples = task.encode(small.rows(3))
    loaded(task, slotted(task))
    parameters = [task.resident.parameters[name] for name in task.resident.trained_names]
    slow = []
    for i in range(3):
        found = torch.autograd.grad(task.losses(task.forward(examples, [i])).sum(), parameters)
        slow.append(torch.cat([g.reshape(-1) for g in found]))
    fast = PerSample(task.resident, 3)
    try:
        rows = fast.rows(3, lambda: task.losses(task.forward(examples, range(3))).sum().backward()).clone()
    finally:
        fast.close()
    assert torch.allclose(rows, torch.stack(slow), rtol=1e-3, atol=1e-4)


def test_another_adapter_brings_its_own_table_and_leaves_it_behind(small: Any) -> None:
    task = small.task()
    examples, mine, other = task.encode(small.rows(3)), slotted(task), slotted(task, keys=2, seed=6)
    with torch.no_grad():
        expected = loaded(task, other).forward(examples, range(3)).logits
        before = loaded(task, mine).forward(examples, range(3)).logits
        with task.resident.swapped(task.resident.state_of(other)):
            assert torch.equal(task.forward(examples, range(3)).logits, expected)
        with task.resident.swapped(torch.zeros_like(task.resident.theta)):
            bare = task.forward(examples, range(3)).logits
        assert torch.equal(task.forward(examples, range(3)).logits, before)
        assert torch.allclose(loaded(task, {}).forward(examples, range(3)).logits, bare, atol=1e-5)


def test_a_pass_in_which_nobody_chooses_is_refused_and_no_hook_stays(small: Any) -> None:
    task = loaded(small.task(), {})
    layer = task.resident.base.module.encoder.layer[0]
    hooks = len(layer._forward_pre_hooks)
    loaded(task, slotted(task))
    task.forward(task.encode(small.rows(2)), [0, 1])
    with pytest.raises(ModelError, match="no text was named"):
        task.resident.base.module(input_ids=torch.tensor([[1, 2, 3]]))
    assert len(layer._forward_pre_hooks) == hooks


@pytest.mark.parametrize(
    "wrong",
    [
        {KEYS: np.ones(HIDDEN)},
        {KEYS: np.full((3, HIDDEN), np.nan)},
        {CENTRE: np.zeros(HIDDEN - 1)},
        {TAU: np.zeros(1)},
        {TAU: np.ones(2)},
        {PAIR: np.full(3, 4.0)},
        {PAIR: np.full(3, 0.0)},
        {FOLD: np.full(6, 1.5)},
        {FOLD: np.ones((6, 1))},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_arrays_that_make_no_table_are_refused(small: Any, wrong: dict[str, Any]) -> None:
    task = small.task()
    with pytest.raises(ModelError, match="slot"):
        loaded(task, slotted(task) | {name: np.asarray(v, np.float32) for name, v in wrong.items()})


@pytest.mark.parametrize("name", [FOLD, PAIR])
def test_a_table_of_another_adapter_is_refused(small: Any, name: str) -> None:
    task = small.task()
    loaded(task, slotted(task) | {name: np.ones(7, np.float32)})
    with pytest.raises(ModelError, match="7 rows of slots"):
        task.forward(task.encode(small.rows(2)), [0, 1])
