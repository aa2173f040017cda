"""Rows end to end in one pass: each row of the table of ``packed.py``, and the same bits alone and in any company."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from llmchain_fl.core.base_model import Base, BaseSpec
from llmchain_fl.serve import packed
from llmchain_fl.serve.bank import Bank, Factors
from llmchain_fl.serve.encoder import PACKED, Encoder, Row
from llmchain_fl.serve.packed import BLOCKS, Packing, Span, attend_packed


def opened(base: Base, rows: int = 8, adapters: int = 3) -> Encoder:
    """An encoder over adapters of some attention layers, tried."""
    paths = [path for path, module in base.module.named_modules() if path.endswith((".query", ".query_proj"))]
    draw = np.random.default_rng(1)
    held = []
    for _ in range(adapters):
        arrays = {}
        for path in paths:
            arrays[f"{path}.lora_A"] = draw.normal(size=(2, 32)).astype(np.float32)
            arrays[f"{path}.lora_B"] = draw.normal(size=(32, 2)).astype(np.float32)
        held.append(Factors(arrays, 0.5))
    encoder = Encoder(Bank(base, held), 16, rows)
    encoder.try_passes()
    return encoder


def roberta(folder: Path, small: Any) -> str:
    """Its positions begin behind the padding token."""
    from transformers import AutoTokenizer, RobertaConfig, RobertaModel

    AutoTokenizer.from_pretrained(small.bert).save_pretrained(folder)
    torch.manual_seed(3)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    size = len(AutoTokenizer.from_pretrained(small.bert))
    config = RobertaConfig(vocab_size=size, max_position_embeddings=48, initializer_range=0.2, pad_token_id=0, **shape)
    RobertaModel(config).save_pretrained(folder)
    return str(folder)


def test_each_row_attends_to_its_own_tokens_and_filler_is_zero() -> None:
    draw = torch.Generator().manual_seed(1)
    query, key, value = (torch.randn(1, 2, 12, 4, generator=draw) for _ in range(3))
    spans = [Span(0, 2, 3), Span(6, 1, 5)]
    attended, _ = attend_packed(nn.Identity(), query, key, value, None, packed_spans=spans, scaling=0.7)
    expected = torch.zeros(1, 12, 2, 4)
    for start, end in ((0, 3), (3, 6), (6, 11)):
        for head in range(2):
            for token in range(start, end):
                weights = torch.stack(
                    [0.7 * query[0, head, token] @ key[0, head, other] for other in range(start, end)]
                )
                expected[0, token, head] = weights.softmax(0) @ value[0, head, start:end]
    assert torch.allclose(attended, expected, atol=1e-6)
    assert not attended[0, 11].any()


@pytest.mark.parametrize(("name", "first"), [("bert", 0), ("roberta", 1), ("deberta", None)])
def test_a_base_is_packed_where_its_numbers_are_those_of_its_own_pass(
    small: Any, tools: Any, tmp_path: Path, name: str, first: int | None
) -> None:
    path = roberta(tmp_path, small) if name == "roberta" else str(small.shape(name))
    encoder = opened(tools.fresh_base(BaseSpec(path, device="cpu")))
    assert (encoder.packing.first if encoder.packing else None) == first
    texts = [row["text"] for row in small.rows(10, seed=4)]
    rows = [encoder.encode(text, k % 4, "mean", 16) for k, text in enumerate(texts)]
    for row in rows:
        (vector,) = encoder.vectors([row])
        ids = torch.from_numpy(row.ids[None])
        with torch.no_grad(), encoder.bank.rows([row.adapter]):
            hidden = encoder.base.module(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state[0]
        assert torch.allclose(vector, nn.functional.normalize(hidden.mean(0), dim=-1), atol=1e-5)
    alone = [encoder.vectors([row])[0] for row in rows]
    kind = encoder.kind(rows[0])
    places = [place for place, row in enumerate(rows) if encoder.kind(row) == kind][: encoder.room(kind)]
    beside = encoder.vectors([rows[place] for place in places])
    assert all(torch.equal(one, alone[place]) for one, place in zip(beside, places, strict=True))


def test_a_base_that_mixes_tokens_outside_of_any_attention_is_not_packed(small: Any, tools: Any) -> None:
    assert opened(tools.fresh_base(BaseSpec(str(small.shape("fnet")), device="cpu"))).packing is None


def test_passes_hold_every_row_once_and_no_more_tokens_than_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "MOST_TOKENS", 20)
    for seed in range(20):
        draw = random.Random(seed)
        rows = [Row(np.ones(draw.randint(1, 30), np.int64), draw.randint(0, 2), "mean") for _ in range(12)]
        passes = Packing(8, 0).passes(rows)
        assert sorted(place for part in passes for place in part) == list(range(12))
        for part in passes:
            assert len(part) == 1 or sum(len(rows[place].ids) for place in part) <= 20


def test_a_row_is_the_same_when_its_request_needs_several_passes(
    small: Any, tools: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = opened(tools.fresh_base(small.base()))
    assert encoder.packing is not None
    rows = [encoder.encode(row["text"], k % 4, "cls", 16) for k, row in enumerate(small.rows(12, seed=5))]
    whole = encoder.vectors(rows)
    monkeypatch.setattr(packed, "MOST_TOKENS", 16)
    assert all(torch.equal(one, other) for one, other in zip(encoder.vectors(rows), whole, strict=True))


def rounds_below(tokens: int) -> Callable[[nn.Module, tuple[torch.Tensor], torch.Tensor], torch.Tensor]:
    """A layer that rounds otherwise where it is given few tokens."""

    def change(_layer: nn.Module, given: tuple[torch.Tensor], output: torch.Tensor) -> torch.Tensor:
        return output * (1 + 1e-6) if given[0].shape[:-1].numel() < tokens else output

    return change


@pytest.mark.parametrize(("tokens", "block"), [(0, BLOCKS[0]), (12, BLOCKS[1]), (10**6, BLOCKS[0]), (100, None)])
def test_a_pass_is_filled_up_until_no_bit_changes_or_rows_are_padded(
    small: Any, tools: Any, tokens: int, block: int | None
) -> None:
    base = tools.fresh_base(small.base())
    base.module.encoder.layer[0].output.dense.register_forward_hook(rounds_below(tokens))
    encoder = opened(base, rows=16)
    assert (encoder.packing.block if encoder.packing else None) == block
    row = encoder.encode("card lost why", 1, "mean", 16)
    assert (encoder.kind(row) == PACKED) == (block is not None)


def test_a_base_is_left_as_it_was_after_a_pass(small: Any, tools: Any) -> None:
    base = tools.fresh_base(small.base())
    usual = base.module.config._attn_implementation
    encoder = opened(base)
    assert encoder.packing is not None
    encoder.vectors([encoder.encode("card lost", 1, "mean", 16)])
    assert base.module.config._attn_implementation == usual
