from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    DebertaV2Config,
    DebertaV2Model,
    DistilBertConfig,
    DistilBertModel,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    MPNetConfig,
    MPNetModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    RobertaConfig,
    RobertaModel,
)

from llmchain_fl.core.adapter.resident import _resident
from llmchain_fl.core.base_model import load_base
from llmchain_fl.core.frozen_prefix import FrozenPrefix
from llmchain_fl.core.remembered import Remembered

KINDS = ["classification", "causal-lm"]


def run(task: Any, examples: Any, index: Sequence[int]) -> tuple[Tensor, Tensor]:
    """(losses [n], gradient [P] of their sum over the trained parameters) of one forward pass."""
    parameters = [task.resident.parameters[name] for name in task.resident.trained_names]
    losses = task.losses(task.forward(examples, index))
    return losses.detach(), torch.cat([g.reshape(-1) for g in torch.autograd.grad(losses.sum(), parameters)])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("last", [1, 2])
def test_outputs_and_gradients_are_those_without_keeping(small: Any, kind: str, last: int) -> None:
    rows, order = small.rows(12, kind), [[0, 3, 5], [5, 1, 2, 0, 7], [9], [11, 10, 9, 8], [0, 3, 5]]
    found = []
    for cache_mb in (0, 64):
        task = small.task(kind, last_layers=last, cache_mb=cache_mb, trained=("lora_A", "lora_B"))
        examples = task.encode(rows)
        found.append([run(task, examples, index) for index in order])
        assert bool(examples.frozen_outputs) == bool(cache_mb)
    for (plain, plain_gradient), (kept, kept_gradient) in zip(*found, strict=True):
        assert torch.allclose(plain, kept, atol=1e-5, rtol=1e-5)
        assert torch.allclose(plain_gradient, kept_gradient, atol=1e-5 * float(plain_gradient.abs().max()))


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_kept_does_not_depend_on_the_padding_it_was_computed_under(small: Any, kind: str) -> None:
    task = small.task(kind, last_layers=1, cache_mb=64)
    rows = sorted(small.rows(12, kind), key=lambda row: len(str(row)))
    alone, together = task.encode(rows), task.encode(rows)
    task.forward(alone, [0])
    task.forward(together, range(12))
    assert alone.frozen_outputs[0].shape == (alone.length(0), 32)
    assert torch.allclose(alone.frozen_outputs[0], together.frozen_outputs[0], atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_is_computed_once_and_frozen_layers_not_run_again(small: Any, kind: str) -> None:
    task = small.task(kind, last_layers=1, cache_mb=64)
    examples, calls = task.encode(small.rows(6, kind)), []
    lowest = task.resident.prefix._stack[0]
    hook = lowest.register_forward_hook(lambda *_: calls.append(1))
    for index in ([0, 1], [1, 2], [2, 1, 0]):
        task.forward(examples, index)
    hook.remove()
    assert len(calls) == 2
    assert set(examples.frozen_outputs) == {0, 1, 2}


def test_the_memory_limit_is_respected_and_the_output_stays_right(small: Any) -> None:
    free = small.task(last_layers=1, cache_mb=64)
    rows = small.rows(40)
    expected = run(free, free.encode(rows), range(40))
    task = small.task(last_layers=1, cache_mb=1)
    prefix = task.resident.prefix
    prefix._limit = prefix.used + 5000
    examples = task.encode(rows)
    for _ in range(2):
        losses, gradient = run(task, examples, range(40))
        held = sum(value.numel() * value.element_size() for value in examples.frozen_outputs.values())
        assert 0 < held <= 5000
        assert torch.allclose(losses, expected[0], atol=1e-5)
        assert torch.allclose(gradient, expected[1], atol=1e-5 * float(expected[1].abs().max()))


def test_memory_is_free_again_when_the_records_are_gone(small: Any) -> None:
    """Otherwise a program that predicts for days would keep nothing any more."""
    task = small.task(last_layers=1, cache_mb=1)
    before = task.resident.prefix.used
    for _ in range(3):
        examples = task.encode(small.rows(20))
        task.forward(examples, range(20))
        assert task.resident.prefix.used > before
        del examples
        assert task.resident.prefix.used == before


@pytest.mark.parametrize(
    ("last", "cache_mb", "enabled"), [(0, 64, False), (3, 64, False), (1, 0, False), (1, 64, True)]
)
def test_nothing_is_kept_where_there_is_nothing_to_keep(small: Any, last: int, cache_mb: int, enabled: bool) -> None:
    task = small.task(last_layers=last, cache_mb=cache_mb)
    examples = task.encode(small.rows(3))
    task.forward(examples, range(3))
    assert (task.resident.prefix is not None and task.resident.prefix.enabled) is enabled
    assert bool(examples.frozen_outputs) is enabled


@pytest.mark.parametrize("kind", KINDS)
def test_the_stack_is_whole_again_after_an_error(small: Any, kind: str) -> None:
    task = small.task(kind, last_layers=1, cache_mb=64)
    examples = task.encode(small.rows(3, kind))
    names = [name for name, _ in task.resident.base.module.named_modules()]
    for layer in (0, 2):
        hook = task.resident.prefix._stack[layer].register_forward_pre_hook(lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            task.forward(examples, [layer])
        hook.remove()
        assert [name for name, _ in task.resident.base.module.named_modules()] == names
    assert torch.isfinite(task.losses(task.forward(examples, range(3)))).all()


SHAPE = {"vocab_size": 30, "hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 24}
MIXED = {
    **SHAPE,
    "num_key_value_heads": 1,
    "sliding_window": 3,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
    "head_dim": 8,
}
ARCHITECTURES = {
    "roberta": lambda: RobertaModel(RobertaConfig(**SHAPE, max_position_embeddings=40, pad_token_id=1)),
    "distilbert": lambda: DistilBertModel(
        DistilBertConfig(vocab_size=30, dim=16, n_layers=4, n_heads=2, hidden_dim=24)
    ),
    "deberta-v2, whose layers return tuples": lambda: DebertaV2Model(
        DebertaV2Config(**SHAPE, relative_attention=True, position_biased_input=False, pos_att_type=["p2c", "c2p"])
    ),
    "mpnet, whose layers return tuples": lambda: MPNetModel(MPNetConfig(**SHAPE, max_position_embeddings=40)),
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(vocab_size=30, n_embd=16, n_layer=4, n_head=2, n_positions=40)),
    "qwen2, some layers with a sliding window": lambda: Qwen2ForCausalLM(Qwen2Config(**MIXED, use_sliding_window=True)),
    "gemma2, every second layer with a sliding window": lambda: Gemma2ForCausalLM(
        Gemma2Config(**MIXED, query_pre_attn_scalar=8)
    ),
}


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("first", [1, 2, 3])
def test_other_architectures_give_the_same_output_from_any_layer_on(name: str, first: int) -> None:
    """Layers that differ by their position (masks, rotations) must keep their position."""
    torch.manual_seed(1)
    module = ARCHITECTURES[name]().eval().requires_grad_(False)
    for parameter in module.parameters():
        if parameter.dim() > 1:
            parameter.mul_(8.0)
    ids, mask = torch.randint(3, 30, (3, 12)), torch.ones(3, 12, dtype=torch.int64)
    mask[1, 7:] = 0
    kept: dict[int, Tensor] = {}
    prefix = FrozenPrefix(module, first, 16)
    prefix.prove()
    assert prefix.enabled
    with torch.no_grad():
        plain = module(input_ids=ids, attention_mask=mask)[0]
        for _ in range(2):
            assert torch.allclose(prefix.run(ids, mask, kept, [4, 2, 9])[0][mask.bool()], plain[mask.bool()], atol=1e-4)
    assert set(kept) == {4, 2, 9}


class Odd(torch.nn.Module):
    """Stands for a layer; ``fault``: what it does that a replayed one cannot."""

    def __init__(self, layer: torch.nn.Module, fault: str) -> None:
        super().__init__()
        self.layer, self.fault = layer, fault

    def forward(self, hidden: Tensor, *more: Any, **named: Any) -> Any:
        out = self.layer(hidden, *more, **named)
        if self.fault == "padding":  # a text's numbers depend on what stands behind it, as in FNet
            return out + hidden.mean(dim=1, keepdim=True)
        return out


@pytest.mark.parametrize(("fault", "kept"), [("nothing", True), ("padding", False)])
def test_what_cannot_be_replayed_exactly_is_computed_every_time(
    small: Any, caplog: pytest.LogCaptureFixture, fault: str, kept: bool
) -> None:
    task = small.task(last_layers=1, cache_mb=64)
    prefix, stack, rows = task.resident.prefix, task.resident.prefix._stack, small.rows(5)
    plain = stack[0]
    stack[0] = prefix._lower[0] = Odd(plain, fault)
    try:
        prefix.prove()
        examples = task.encode(rows)
        both = [run(task, examples, range(5)) for _ in range(2)]
        prefix._exact = False
        direct = run(task, task.encode(rows), range(5))
    finally:
        stack[0] = prefix._lower[0] = plain
        prefix._exact = True
    assert bool(examples.frozen_outputs) is kept
    assert ("cannot be replayed" in caplog.text) is not kept
    assert all(torch.allclose(one[0], direct[0], atol=1e-5) for one in both)


def forget_models() -> None:
    """The next task loads its base anew."""
    _resident.cache_clear()
    load_base.cache_clear()


@pytest.fixture
def remembering(small: Any) -> Iterator[Any]:
    """A task whose base remembers up to 1 MB, and nothing yet."""
    forget_models()
    task = small.task(last_layers=1, cache_mb=64)
    task.resident.base.remembered.limit_mb = 1
    yield task
    forget_models()  # other tests share the base


def calls_of(task: Any, examples: Any, index: Sequence[int]) -> int:
    """How many texts went through the lowest frozen layer."""
    calls: list[int] = []
    hook = task.resident.prefix._stack[0].register_forward_hook(lambda _m, inputs, _o: calls.append(len(inputs[0])))
    task.forward(examples, index)
    hook.remove()
    return sum(calls)


def test_another_run_over_the_same_texts_computes_only_those_that_are_new(remembering: Any, small: Any) -> None:
    task, rows = remembering, small.rows(9)
    first, second = task.encode(rows[:6]), task.encode(rows[3:])
    assert calls_of(task, first, range(6)) == 6
    assert calls_of(task, second, range(6)) == 3
    found = run(task, second, range(6))
    forget_models()
    fresh = small.task(last_layers=1, cache_mb=64)
    assert fresh.resident.base is not task.resident.base
    expected = run(fresh, fresh.encode(rows[3:]), range(6))
    for known, plain in zip(found, expected, strict=True):
        assert torch.allclose(known, plain, atol=1e-5)


def test_passes_of_a_fixed_shape_share_only_what_passes_of_this_length_left_and_give_the_same_bits() -> None:
    torch.manual_seed(2)
    module = ARCHITECTURES["mpnet, whose layers return tuples"]().eval().requires_grad_(False)
    ids, mask, remembered = torch.randint(3, 30, (4, 12)), torch.ones(4, 12, dtype=torch.int64), Remembered()
    mask[:, 9:], remembered.limit_mb, calls = 0, 1, []
    module.encoder.layer[0].register_forward_hook(lambda _module, inputs, _output: calls.append(len(inputs[0])))
    with torch.no_grad():
        plain = FrozenPrefix(module, 2, 16).run(ids, mask, {}, range(4), fixed=True)[0]
        prefix = FrozenPrefix(module, 2, 16, remembered)
        twice = [0, 1, 0, 1]
        prefix.run(ids[twice], mask[twice], {}, twice, fixed=True)
        assert len(remembered) == 2
        assert torch.equal(prefix.run(ids, mask, {}, range(4), fixed=True)[0], plain)
        assert calls == [4, 4, 4]  # two texts were known, the two others went through a pass of four rows
        assert torch.equal(prefix.run(ids, mask, {}, range(4), fixed=True)[0], plain)
        assert calls == [4, 4, 4]
        prefix.run(ids, mask, {}, range(4))
        assert len(remembered) == 8  # without a fixed shape they are others


def test_a_new_prefix_over_layers_that_return_tuples_goes_on_with_what_is_remembered() -> None:
    """It must know what its layers return although none of them was run in it."""
    torch.manual_seed(1)
    module = ARCHITECTURES["mpnet, whose layers return tuples"]().eval().requires_grad_(False)
    ids, mask, remembered = torch.randint(3, 30, (3, 12)), torch.ones(3, 12, dtype=torch.int64), Remembered()
    remembered.limit_mb = 1
    with torch.no_grad():
        plain = module(input_ids=ids, attention_mask=mask)[0]
        for _ in range(2):
            found = FrozenPrefix(module, 2, 16, remembered).run(ids, mask, {}, range(3))[0]
            assert torch.allclose(found, plain, atol=1e-5)
    assert len(remembered) == 3


def test_an_adapter_of_another_rank_finds_what_was_remembered(remembering: Any, small: Any) -> None:
    task, rows = remembering, small.rows(4)
    task.forward(task.encode(rows), range(4))
    other = small.task(last_layers=1, cache_mb=64, rank=task.resident.spec.adapter.rank + 1)
    assert other.resident is not task.resident
    assert calls_of(other, other.encode(rows), range(4)) == 0


def test_adapters_on_more_layers_do_not_take_what_fewer_left(remembering: Any, small: Any) -> None:
    task, rows = remembering, small.rows(4)
    task.forward(task.encode(rows), range(4))
    other = small.task(last_layers=2, cache_mb=64)
    assert calls_of(other, other.encode(rows), range(4)) == 4


def test_nothing_outlives_the_records_unless_it_is_asked_for(small: Any) -> None:
    task = small.task(last_layers=1, cache_mb=64)
    task.forward(task.encode(small.rows(4)), range(4))
    assert len(task.resident.base.remembered) == 0


def test_what_is_remembered_stays_below_its_limit(remembering: Any, small: Any) -> None:
    task = remembering
    store = task.resident.base.remembered
    store.used = 2**20 - 5000
    examples = task.encode(small.rows(40))
    assert calls_of(task, examples, range(40)) == 40
    assert 0 < len(store) < 40
    assert store.used <= 2**20
