"""A row's answer is the same alone and in any company, bit for bit; and it is what the run itself answers."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from llmchain_fl.core.errors import ModelError
from llmchain_fl.core.work import open_work
from llmchain_fl.serve.bank import BARE, Bank, Factors
from llmchain_fl.serve.decoder import Prompt
from llmchain_fl.serve.encoder import Row
from llmchain_fl.serve.engine import Engine, open_engine
from llmchain_fl.serve.prompts import prompt_ids
from llmchain_fl.serve.sampling import Sampler, Written
from llmchain_fl.serve.served import Opened


def rows_of(small: Any, engine: Engine, count: int, seed: int) -> list[Row]:
    assert engine.encoder is not None
    draw = random.Random(seed)
    texts = [row["text"] for row in small.rows(count, seed=seed)]
    return [
        engine.encoder.encode(text, draw.randint(1, len(engine.served)), draw.choice(["mean", "cls"]), 16)
        for text in texts
    ]


def test_a_vector_is_the_same_alone_and_in_any_company(
    small: Any, made: Callable[..., list[Opened]], tools: Any
) -> None:
    engine = open_engine(made(5), 8, tools.fresh_base)
    assert engine.encoder is not None
    rows = rows_of(small, engine, 40, 3)
    alone = [engine.encoder.vectors([row])[0] for row in rows]
    for seed in range(12):
        draw = random.Random(seed)
        kinds: dict[Any, list[int]] = {}
        for place in draw.sample(range(len(rows)), len(rows)):
            kinds.setdefault(engine.encoder.kind(rows[place]), []).append(place)
        for kind, places in kinds.items():
            while places:
                size = draw.randint(1, engine.encoder.room(kind))
                part, places = places[:size], places[size:]
                found = engine.encoder.vectors([rows[place] for place in part])
                assert all(torch.equal(one, alone[place]) for one, place in zip(found, part, strict=True))
    engine.bank.close()


def written(tools: Any, engine: Engine, prompts: list[tuple[str, int, int | None]]) -> list[str]:
    """Prompts that begin together -> their texts; (prompt, adapter, seed; None: no drawing)."""
    decoder = engine.decoder
    assert decoder is not None
    rows = []
    for text, adapter, seed in prompts:
        sampler = Sampler(0.0 if seed is None else 1.0, 0.9, seed)
        ids, reader = prompt_ids(decoder.reader, text), Written(decoder.base.tokenizer)
        rows.append(Prompt(ids, adapter, 6, sampler, reader))
    texts: list[str] = tools.written(decoder, rows)
    return texts


def test_a_text_is_the_same_alone_and_in_any_company_drawn_or_not(
    small: Any, made: Callable[..., list[Opened]], tools: Any
) -> None:
    engine = open_engine(made(3, "causal-lm"), 4, tools.fresh_base)
    asked = [("card lost", 1, None), ("pay", 2, 5), ("why send money", 3, None), ("new loan", 1, 6), ("pin", 2, None)]
    alone = [written(tools, engine, [one])[0] for one in asked]
    assert len(set(alone)) > 2
    for seed in range(6):
        draw = random.Random(seed)
        places = draw.sample(range(len(asked)), 4)
        assert written(tools, engine, [asked[place] for place in places]) == [alone[place] for place in places]
    engine.bank.close()


@pytest.mark.parametrize(
    "told",
    [{}, {"head": "trained"}, {"head": "trained", "features": 8}, {"pooling": "cls"}, {"last_layers": 1}, {"rank": 7}],
    ids=str,
)
def test_answers_are_those_of_the_run(
    small: Any, made: Callable[..., list[Opened]], told: dict[str, Any], tools: Any
) -> None:
    opened = made(3, **told)
    texts = [row["text"] for row in small.rows(12, seed=9)]
    expected = []
    for one in opened:
        work = small.work(**{**told, "rank": told.get("rank", 1 + int(one.verified.label[1]) % 3)})
        resident, task = open_work(work.resident, work.task)
        resident.load(one.verified.to_load())
        expected.append(task.predict(texts, 4))
    engine = open_engine(opened, 4, tools.fresh_base)
    assert engine.encoder is not None
    for served, answers in zip(engine.served, expected, strict=True):
        assert served.head is not None
        for text, answer in zip(texts, answers, strict=True):
            row = engine.encoder.encode(text, served.number, served.task.pooling, served.task.max_tokens)
            found = dict(served.head.best(engine.encoder.vectors([row])[0], 4))
            assert found.keys() == dict(answer).keys()
            assert found == pytest.approx(dict(answer), abs=1e-4)
    engine.bank.close()


def test_a_text_is_that_of_the_run(small: Any, made: Callable[..., list[Opened]], tools: Any) -> None:
    opened = made(2, "causal-lm", max_tokens=32)
    work = small.work("causal-lm", max_tokens=32, rank=2)
    resident, task = open_work(work.resident, work.task)
    resident.load(opened[0].verified.to_load())
    expected = [answer[0][0] for answer in task.predict(["card lost", "why"], 1)]
    engine = open_engine(opened, 2, tools.fresh_base)
    decoder = engine.decoder
    assert decoder is not None
    for text, answer in zip(["card lost", "why"], expected, strict=True):
        row = Prompt(prompt_ids(decoder.reader, text), 1, 48, Sampler(), Written(decoder.base.tokenizer))
        found: list[str] = []
        row.told = lambda piece, found=found: found.append(piece.text)  # type: ignore[misc]
        group = decoder.begin([row])
        while not group.over:
            decoder.step(group)
        assert "".join(found).strip() == answer
    engine.bank.close()


def test_no_adapter_answers_as_another_or_as_the_base(
    small: Any, made: Callable[..., list[Opened]], tools: Any
) -> None:
    engine = open_engine(made(4), 8, tools.fresh_base)
    assert engine.encoder is not None
    rows = [engine.encoder.encode("card lost why", number, "mean", 16) for number in range(5)]
    found = engine.encoder.vectors(rows)
    for one in range(5):
        for other in range(one):
            assert float((found[one] - found[other]).abs().max()) > 1e-3
    engine.bank.close()


def test_each_row_of_the_table_of_the_bank(small: Any, tools: Any) -> None:
    """A layer that only one adapter changes; none; a pass outside ``rows``; another number of rows."""
    base = tools.fresh_base(small.base())
    path = "encoder.layer.0.attention.self.query"
    draw = np.random.default_rng(1)
    arrays = {f"{path}.lora_A": draw.normal(size=(2, 32)), f"{path}.lora_B": draw.normal(size=(32, 2))}
    one = Factors({name: value.astype(np.float32) for name, value in arrays.items()}, 0.5)
    ids = torch.randint(4, 20, (3, 8), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        bare = base.module(input_ids=ids).last_hidden_state
        bank = Bank(base, [one, Factors({}, 1.0)])
        with bank.rows([1, 2, BARE]):
            found = base.module(input_ids=ids).last_hidden_state
        assert float((found[0] - bare[0]).abs().max()) > 1e-3
        assert torch.allclose(found[1:], bare[1:], atol=1e-6)
        with pytest.raises(ModelError, match="0 rows"):
            base.module(input_ids=ids)
        with pytest.raises(ModelError, match="2 rows"), bank.rows([1, 2]):
            base.module(input_ids=ids)
        bank.close()
        assert torch.equal(base.module(input_ids=ids).last_hidden_state, bare)
    wrong = [{"nowhere.lora_A": one.arrays[f"{path}.lora_A"]}, {f"{path}.lora_A": np.zeros((2, 5), np.float32)}]
    for bad in wrong:
        with pytest.raises(ModelError, match=r"no layer|do not fit"):
            Bank(base, [Factors(bad, 1.0)])


def test_what_would_be_answered_otherwise_is_refused(small: Any, made: Callable[..., list[Opened]], tools: Any) -> None:
    from llmchain_fl.serve.served import check_servable, one_base

    (one,) = made(1)
    arrays = one.verified.to_load()
    still = {name: np.zeros_like(value) if name.endswith("lora_B") else value for name, value in arrays.items()}
    with pytest.raises(ModelError, match="changes nothing"):
        check_servable("a@1", still, 1.0)
    check_servable("a@1", {**still, "head.weight": np.ones((2, 2), np.float32)}, 1.0)
    with pytest.raises(ModelError, match="chooses among slots"):
        check_servable("a@1", {**arrays, "route.keys": np.ones((2, 2), np.float32)}, 1.0)
    with pytest.raises(ModelError, match="fold"):
        check_servable("a@1", {**arrays, "x.fold_A": np.ones((2, 2), np.float32)}, 1.0)
    other = made(1, "causal-lm")
    with pytest.raises(ModelError, match="one base model"):
        one_base([one, *other])
    with pytest.raises(ModelError, match="no adapter"):
        one_base([])
