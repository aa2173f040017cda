"""Which tokens the assistant says: by templates of several families, and beside the contents themselves."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchain_fl.core.errors import ModelError
from llmchain_fl.core.tasks.chat import PROBE, Chat, asked_fault, fault, joined_turns

CHATML = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nbe kind<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
NO_SYSTEM = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
    "{% if m['role'] == 'user' %}[INST] {{ m['content'] | trim }} [/INST]"
    "{% else %} {{ m['content'] | trim }}{{ eos_token }}{% endif %}{% endfor %}"
)
DROPS_SYSTEM = (
    "{% for m in messages %}{% if m['role'] != 'system' %}<{{ m['role'] }}>{{ m['content'] }}{{ eos_token }}"
    "{% endif %}{% endfor %}"
)
MARKED = (
    "{% for m in messages %}{{ m['role'] }}: {% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] }}"
    "{{ eos_token }}{% endgeneration %}{% else %}{{ m['content'] }}{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
REWRITES = (
    "{% for m in messages %}{% if m['role'] == 'assistant' and loop.last %}A: (thinks) {{ m['content'] }}"
    "{% else %}{{ m['role'] }}: {{ m['content'] }}{% endif %}\n{% endfor %}"
)
FAMILIES = {"chatml": CHATML, "no system": NO_SYSTEM, "drops system": DROPS_SYSTEM, "marked": MARKED, "plain": ""}
CONTENT = st.lists(st.sampled_from(["card", "lost", "why", "fee", "pin", "zz"]), min_size=1, max_size=5).map(" ".join)
TALKS = st.tuples(st.booleans(), st.lists(st.tuples(CONTENT, CONTENT), min_size=1, max_size=4))


def turns_of(talk: tuple[bool, list[tuple[str, str]]]) -> list[dict[str, str]]:
    system = [{"role": "system", "content": "bank new open"}] if talk[0] else []
    pairs = [[{"role": "user", "content": a}, {"role": "assistant", "content": b}] for a, b in talk[1]]
    return [*system, *(turn for pair in pairs for turn in pair)]


@pytest.fixture(scope="module")
def tokenizer(small: Any) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(small.llama)


def chat(tokenizer: Any, family: str) -> Chat:
    tokenizer.chat_template = FAMILIES[family] or None
    return Chat(tokenizer, family == "plain", "here")


def trained(one: Chat, tokenizer: Any, turns: Sequence[dict[str, str]]) -> list[str]:
    """The words that the assistant says, special tokens left out."""
    ids, own, _ = one.encoded(turns)
    words = tokenizer.convert_ids_to_tokens(ids[own == 1].tolist())
    return [word for word in words if word != "</s>"]


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_trained_is_what_the_assistant_says_in_every_family_of_templates(tokenizer: Any, family: str) -> None:
    one = chat(tokenizer, family)

    @given(TALKS)
    def holds(talk: Any) -> None:
        turns = turns_of(talk)
        text = " ".join(turn["content"] for turn in turns if turn["role"] == "assistant")
        # a mark of a template that is no token of this tokenizer is read as unknown words behind the reply
        said = [word for word in trained(one, tokenizer, turns) if word != "<unk>"]
        assert said == [word for word in text.split() if word != "zz"]

    holds()


@pytest.mark.parametrize("family", ["plain", "no system", "marked"])
def test_the_end_of_a_reply_is_trained_and_stops_generation_and_nothing_behind_it_is(
    tokenizer: Any, family: str
) -> None:
    one = chat(tokenizer, family)
    ids, own, said = one.encoded(PROBE)
    assert one.stops == [tokenizer.eos_token_id]
    assert (ids[own == 1] == tokenizer.eos_token_id).sum() == 2
    assert said == 2


@pytest.mark.parametrize("family", FAMILIES)
def test_the_opening_of_a_reply_begins_the_conversation_that_has_it(tokenizer: Any, family: str) -> None:
    one, turns = chat(tokenizer, family), turns_of((True, [("card lost", "why"), ("fee", "pin pin")]))
    ids, own, _ = one.encoded(turns)
    opened = one.opened(turns[:-1])
    assert ids[: len(opened)].tolist() == opened.tolist()
    assert not own[len(one.encoded(turns[:3])[0]) : len(opened)].any()
    assert own[len(opened) :].any()


@pytest.mark.parametrize("family", ["no system", "drops system"])
def test_a_template_that_takes_no_system_turn_is_told_it_with_the_first_user_turn(tokenizer: Any, family: str) -> None:
    text = chat(tokenizer, family).rendered(turns_of((True, [("card", "why")])), reply=False)
    assert "bank new open\n\ncard" in text


def test_two_turns_of_one_role_are_one(tokenizer: Any) -> None:
    told = [{"role": role, "content": role} for role in ("user", "user", "assistant", "assistant", "user")]
    assert [turn["content"] for turn in joined_turns(told)] == ["user\nuser", "assistant\nassistant", "user"]
    assert chat(tokenizer, "no system").encoded(told)[1].any()


@pytest.mark.parametrize(
    ("template", "plain", "reason"),
    [
        (None, False, "has no chat template"),
        (REWRITES, False, "rewrites earlier turns"),
        ("{{ x.y.z }}", False, "refuses"),
    ],
)
def test_a_base_whose_template_cannot_be_used_is_refused_with_the_way_out(
    tokenizer: Any, template: str | None, plain: bool, reason: str
) -> None:
    tokenizer.chat_template = template
    with pytest.raises(ModelError, match=reason) as caught:
        Chat(tokenizer, plain, "here")
    assert 'task.template = "plain"' in caught.value.remedy


def test_a_tokenizer_without_offsets_is_refused() -> None:
    with pytest.raises(ModelError, match="where its tokens stand"):
        Chat(object(), True, "here")


def test_a_mark_in_what_a_user_writes_is_not_trained(tokenizer: Any) -> None:
    turns = [{"role": "user", "content": "card </s>\nAssistant: lost </s>"}, {"role": "assistant", "content": "fee"}]
    assert trained(chat(tokenizer, "plain"), tokenizer, turns) == ["fee"]


def test_a_conversation_that_is_only_asked_may_end_with_the_user() -> None:
    row = {"messages": json.dumps([{"role": "user", "content": "why"}])}
    assert asked_fault(row, ()) == ""
    assert fault(row, ()) == "a conversation in which the assistant says nothing"


SHARED = Path("../shared/models")


@pytest.mark.parametrize("name", ["stories260K", "tokenizers/gpt2"])
def test_a_real_tokenizer_gives_each_reply_back_whole(name: str) -> None:
    from transformers import AutoTokenizer

    if not (SHARED / name).is_dir():
        pytest.skip(f"needs ../shared/models/{name}")
    tokenizer = AutoTokenizer.from_pretrained(SHARED / name)
    one = Chat(tokenizer, True, name)
    replies = ["Your card is on its way.", "卡已寄出，请稍等。", "Schöne Grüße aus Köln!  Bye."]
    turns = [
        turn
        for reply in replies
        for turn in ({"role": "user", "content": "Hé?"}, {"role": "assistant", "content": reply})
    ]
    ids, own, said = one.encoded(turns)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], own, [0]])))
    texts = [tokenizer.decode(ids[a:b], skip_special_tokens=True).strip() for a, b in edges.reshape(-1, 2)]
    assert [" ".join(text.split()) for text in texts] == [" ".join(reply.split()) for reply in replies]
    assert said == sum(len(reply.encode()) for reply in replies)
