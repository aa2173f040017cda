"""What a base cannot read is said when it is opened: not by the round that draws a long record."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from llmchain_fl.core.base_model import Base, _without_dropout, load_base
from llmchain_fl.core.errors import ModelError
from llmchain_fl.core.first_pass import first_pass
from llmchain_fl.core.readable import check_readable
from llmchain_fl.core.tasks.spec import TaskSpec
from llmchain_fl.core.work import open_work

TINY = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


class Words:
    """A tokenizer of so many words; the last is the largest id."""

    def __init__(self, largest: int, pad: int | None = 0) -> None:
        self.largest, self.pad_token_id = largest, pad
        self.all_special_tokens = ["[PAD]"]

    def get_vocab(self) -> Mapping[str, int]:
        return {"[PAD]": 0, "word": 3, "last": self.largest}


def base_of(module: nn.Module, largest: int = 29, pad: int | None = 0) -> Base:
    return Base(module.eval(), Words(largest, pad), torch.device("cpu"), "a base", 16)


def reads(length: int, **told: Any) -> TaskSpec:
    """A task without labels that has so many tokens."""
    return TaskSpec(**{"kind": "classification", "max_tokens": length, **told})


def bert(positions: int = 20, size: int = 30) -> nn.Module:
    from transformers import BertConfig, BertModel

    return BertModel(BertConfig(vocab_size=size, max_position_embeddings=positions, **TINY))


def roberta(positions: int = 20) -> nn.Module:
    from transformers import RobertaConfig, RobertaModel

    return RobertaModel(RobertaConfig(vocab_size=30, max_position_embeddings=positions, pad_token_id=1, **TINY))


def gpt2(positions: int = 20) -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(GPT2Config(vocab_size=30, n_embd=16, n_layer=1, n_head=2, n_positions=positions))


def llama(positions: int = 20) -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(vocab_size=30, max_position_embeddings=positions, **TINY))


@pytest.mark.parametrize(("made", "pad", "most"), [(bert, 0, 20), (roberta, 1, 18), (gpt2, 0, 20), (llama, 0, 20)])
def test_a_base_reads_as_many_tokens_as_it_has_positions_and_is_refused_one_more(
    made: Any, pad: int, most: int
) -> None:
    """What it takes is tried by the model itself, which is the other road."""
    module = made()
    base = base_of(module, pad=pad)
    for length in (4, most - 1, most):
        check_readable(base, reads(length))
        ids = torch.full((1, length), 3)
        with torch.no_grad():
            module(input_ids=ids, attention_mask=torch.ones_like(ids))
    for length in (most + 1, most + 7, 32_768):
        with pytest.raises(ModelError, match=f"reads at most {most} tokens, model.max_tokens is {length}") as caught:
            check_readable(base, reads(length))
        assert f"model.max_tokens = {most} or less" in caught.value.remedy


def test_a_base_without_a_limit_reads_anything() -> None:
    module = bert()
    module.config.max_position_embeddings = -1
    module.embeddings.position_embeddings = nn.Identity()
    check_readable(base_of(module), reads(32_768))


def test_a_token_id_without_a_row_in_the_embedding_is_refused() -> None:
    check_readable(base_of(bert(size=30), largest=29), reads(8))
    with pytest.raises(ModelError, match="token ids up to 30, the base reads ids below 30"):
        check_readable(base_of(bert(size=30), largest=30), reads(8))


def test_a_tokenizer_that_cannot_pad_is_refused() -> None:
    with pytest.raises(ModelError, match="neither a padding token nor an end of text"):
        check_readable(base_of(bert(), pad=None), reads(8))


def test_a_base_without_a_tokenizer_is_not_asked() -> None:
    check_readable(Base(bert(), None, torch.device("cpu"), "a base", 16), reads(32_768))


def test_it_is_asked_when_work_is_opened(small: Any) -> None:
    open_work(small.work(max_tokens=48).resident, small.work(max_tokens=48).task)
    with pytest.raises(ModelError, match="reads at most 48 tokens"):
        open_work(small.work(max_tokens=49).resident, small.work(max_tokens=49).task)


def test_it_is_asked_of_a_tokenizer_that_was_extended_and_of_its_model_that_was_not(small: Any, tmp_path: Path) -> None:
    from dataclasses import replace

    from transformers import AutoTokenizer, BertModel

    tokenizer = AutoTokenizer.from_pretrained(small.bert)
    tokenizer.add_tokens(["hiv"])
    tokenizer.save_pretrained(tmp_path)
    BertModel.from_pretrained(small.bert).save_pretrained(tmp_path)
    work = small.work()
    work = replace(work, base=replace(work.base, path=str(tmp_path)))
    with pytest.raises(ModelError, match="token ids up to"):
        open_work(work.resident, work.task)
    load_base.cache_clear()


def opened(module: nn.Module, kind: str, tokenizer: Any = None) -> Base:
    """A base as ``load_base`` makes it."""
    _without_dropout(module)
    width, sees_ahead = first_pass(module.requires_grad_(False), "here", kind)
    return Base(module, tokenizer or Words(29), torch.device("cpu"), "a base", width, sees_ahead)


def bert_that_writes() -> nn.Module:
    from transformers import BertConfig, BertLMHeadModel

    return BertLMHeadModel(BertConfig(vocab_size=30, max_position_embeddings=20, **TINY))


def llama_body() -> nn.Module:
    from transformers import LlamaConfig, LlamaModel

    return LlamaModel(LlamaConfig(vocab_size=30, max_position_embeddings=20, **TINY))


@pytest.mark.parametrize(("made", "kind", "ahead"), [(bert, "encoder", True), (gpt2, "causal-lm", False)])
def test_which_way_a_base_reads_is_found_by_one_pass(made: Any, kind: str, ahead: bool) -> None:
    """The other road: whether another last token changes what is said of the first."""
    module = made()
    assert opened(module, kind).sees_ahead is ahead
    ids = torch.tensor([[3, 4, 5], [3, 4, 6]])
    with torch.no_grad():
        first = module(input_ids=ids, attention_mask=torch.ones_like(ids))[0][:, 0]
    assert bool((first[0] - first[1]).abs().max() > 1e-6) is ahead


def test_a_language_model_that_sees_what_it_has_to_say_is_refused() -> None:
    base = opened(bert_that_writes(), "causal-lm")
    for kind in ("causal-lm", "plain-text"):
        with pytest.raises(ModelError, match="would learn to copy them"):
            check_readable(base, reads(8, kind=kind))


def test_a_decoder_classifies_by_the_mean_with_a_word_and_not_by_its_first_token(
    caplog: pytest.LogCaptureFixture,
) -> None:
    base = opened(llama_body(), "encoder")
    check_readable(base, reads(8))
    assert "reads from left to right" in caplog.text
    with pytest.raises(ModelError, match="its first token has seen nothing of the text") as caught:
        check_readable(base, reads(8, pooling="cls"))
    assert 'task.pooling = "mean"' in caught.value.remedy


class Unread(Words):
    """A tokenizer to which every text is the same unknown token."""

    def __call__(self, texts: Any, **_: Any) -> Any:
        return {"input_ids": [[1, 3, 2] for _ in texts]}


def test_labels_that_are_all_unknown_are_refused_or_said(caplog: pytest.LogCaptureFixture) -> None:
    base, labels = opened(bert(), "encoder", Unread(29)), (("a", "lost card"), ("b", "why"))
    with pytest.raises(ModelError, match="reads all 2 labels as the same tokens"):
        check_readable(base, reads(8, labels=labels))
    check_readable(base, reads(8, labels=labels, head="trained"))
    assert "reads all labels as the same tokens" in caplog.text


def test_a_folder_without_a_tokenizer_is_refused(small: Any, tmp_path: Path) -> None:
    """The library makes one up that knows special tokens alone: it would train on [UNK]."""
    from dataclasses import replace

    from transformers import BertModel

    BertModel.from_pretrained(small.bert).save_pretrained(tmp_path)
    work = small.work()
    work = replace(work, base=replace(work.base, path=str(tmp_path)))
    with pytest.raises(ModelError, match="knows no words"):
        open_work(work.resident, work.task)
    load_base.cache_clear()


def test_a_tokenizer_that_cannot_be_read_is_said_to_be_the_tokenizer(small: Any, tmp_path: Path) -> None:
    from dataclasses import replace

    from transformers import LlamaForCausalLM

    LlamaForCausalLM.from_pretrained(small.llama).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="its tokenizer cannot be loaded") as caught:
        load_base(replace(small.base("causal-lm"), path=str(tmp_path)))
    assert "tokenizer files" in caught.value.remedy
