"""Conversations: loss on the assistant alone, whole turns in a row, replies; beside computations by hand."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import torch

from llmchain_fl.core.errors import ModelError
from llmchain_fl.core.work import open_work

TALK = ["card lost", "why pin", "fee", "loan rate money", "swap", "new open pay"]


def row(*contents: str, system: str = "") -> dict[str, str]:
    """A conversation whose turns say ``contents``, the user first."""
    turns = [{"role": "system", "content": system}] if system else []
    turns += [{"role": ("user", "assistant")[k % 2], "content": text} for k, text in enumerate(contents)]
    return {"messages": json.dumps(turns)}


def own_words(task: Any, examples: Any) -> list[list[str]]:
    """What is trained of each row, without ends."""
    tokenizer = task.resident.base.tokenizer
    kept = [ids[note == 1] for ids, note in zip(examples.ids, examples.notes, strict=True)]
    return [[w for w in tokenizer.convert_ids_to_tokens(ids.tolist()) if w not in ("</s>", "<unk>")] for ids in kept]


def nats(task: Any, ids: np.ndarray, own: np.ndarray) -> list[float]:
    """-log p of each token that the assistant says, by the bare model."""
    with torch.no_grad():
        logits = task.resident.base.module(input_ids=torch.from_numpy(ids)[None]).logits[0].double()
    logs = torch.log_softmax(logits, dim=-1)
    return [-float(logs[t - 1, ids[t]]) for t in np.flatnonzero(own)]


def test_the_loss_of_a_conversation_is_the_mean_over_what_the_assistant_says(small: Any) -> None:
    task = small.task("dialogue", max_tokens=64)
    rows = [row(*TALK), row(*TALK[:2]), row(*TALK[2:], system="bank")]
    examples = task.encode(rows)
    expected = [nats(task, *pair) for pair in zip(examples.ids, examples.notes, strict=True)]
    with torch.no_grad():
        losses = task.losses(task.forward(examples, range(3)))
    assert losses.tolist() == pytest.approx([float(np.mean(one)) for one in expected], abs=1e-4)
    assert own_words(task, examples) == [
        TALK[1].split() + TALK[3].split() + TALK[5].split(),
        TALK[1].split(),
        TALK[3].split() + TALK[5].split(),
    ]


def test_scores_are_over_all_said_tokens_and_bits_over_the_bytes_said(small: Any) -> None:
    task = small.task("dialogue", max_tokens=64)
    examples = task.encode([row(*TALK), row(*TALK[:2])])
    every = [loss for pair in zip(examples.ids, examples.notes, strict=True) for loss in nats(task, *pair)]
    size = sum(map(len, (TALK[1], TALK[3], TALK[5], TALK[1])))
    found = task.score(examples)
    assert found["loss"] == pytest.approx(np.mean(every), abs=1e-4)
    assert found["perplexity"] == pytest.approx(math.exp(np.mean(every)), rel=1e-3)
    assert found["bits_per_byte"] == pytest.approx(sum(every) / math.log(2) / size, rel=1e-4)
    assert task.record_scores(examples)[1] == pytest.approx(
        np.mean(nats(task, examples.ids[1], examples.notes[1])), abs=1e-4
    )


def test_a_long_conversation_is_cut_between_turns_and_every_reply_is_read_once(small: Any) -> None:
    task = small.task("dialogue", max_tokens=20, windows=3)
    examples = task.encode([row(*TALK, system="bank")])
    assert own_words(task, examples) == [
        ["new", "open", "pay"],
        ["loan", "rate", "money"],
        ["why", "pin"],
    ] or own_words(task, examples) == [["loan", "rate", "money", "new", "open", "pay"], ["why", "pin"]]
    assert examples.cut == 0
    assert examples.weights.sum() == pytest.approx(1.0)
    text = [task.resident.base.tokenizer.decode(ids) for ids in examples.ids]
    assert all(part.lstrip().startswith(text[0].split("bank")[0].lstrip()) and "bank" in part for part in text)


def test_without_windows_the_last_turns_are_read_and_the_record_counts_as_cut(small: Any) -> None:
    task = small.task("dialogue", max_tokens=20, windows=1)
    examples = task.encode([row(*TALK), row(*TALK[:2])])
    assert len(examples) == 2
    assert own_words(task, examples)[0][-3:] == ["new", "open", "pay"]
    assert examples.cut == 1


@pytest.mark.parametrize(("asked", "said"), [(40, 2), (2, 40), (40, 40)])
def test_a_reply_too_long_for_a_row_loses_its_end_and_the_question_its_beginning(
    small: Any, asked: int, said: int
) -> None:
    task = small.task("dialogue", max_tokens=16)
    examples = task.encode([row("card " * asked, "fee " * said)])
    (words,), (note,) = own_words(task, examples), examples.notes
    assert examples.length(0) == 16
    assert examples.cut == 1
    assert set(words) == {"fee"}
    assert len(words) >= min(said, 11)
    assert note[0] == 0


def test_a_conversation_that_ends_with_the_user_is_learned_up_to_the_last_reply(small: Any) -> None:
    task = small.task("dialogue", max_tokens=64)
    assert own_words(task, task.encode([row(*TALK[:3])])) == [TALK[1].split()]


def test_a_reply_is_the_greedy_continuation_of_the_conversation_up_to_the_last_user_turn(small: Any) -> None:
    task = small.task("dialogue", max_tokens=64)
    tokenizer, model = task.resident.base.tokenizer, task.resident.base.module
    ids = task.chat.opened(json.loads(row(*TALK[:3])["messages"])).tolist()
    made: list[int] = []
    while len(made) < 32 and (not made or made[-1] != tokenizer.eos_token_id):
        with torch.no_grad():
            made.append(int(model(input_ids=torch.tensor([ids + made])).logits[0, -1].argmax()))
    expected = tokenizer.decode(made, skip_special_tokens=True).strip()
    assert task.answer([row(*TALK[:3]), row(*TALK[:4])]) == [[(expected, 1.0)]] * 2
    assert task.predict([TALK[0]]) == task.answer([row(TALK[0])])


def test_a_base_without_a_chat_template_is_refused_unless_the_plain_one_is_asked_for(small: Any) -> None:
    from dataclasses import replace

    work = small.work("dialogue")
    with pytest.raises(ModelError, match="no chat template"):
        open_work(work.resident, replace(work.task, template="base"))
    assert open_work(work.resident, work.task)[1].metrics[0].name == "loss"


def test_an_encoder_with_a_decoder_holds_no_conversations(small: Any) -> None:
    work = small.work("dialogue", path=str(small.shape("t5")))
    with pytest.raises(ModelError, match="which this kind of task has no use for"):
        open_work(work.resident, work.task)
