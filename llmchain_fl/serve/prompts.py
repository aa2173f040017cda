"""What a request to write holds -> the row of the decoder: the prompt's tokens, and how it is gone on with.

==========================================  ================================================================
case                                        result
==========================================  ================================================================
messages, and the base has a chat template  the template; the turn of the assistant is begun
one message of a user, and there is none    this message as a prompt, as the adapter was trained
any other messages without a template       ApiError 400: nobody has said how they follow each other
a task that makes its own prompts           these (``asking.py``), by its own template
a message holds a control token             ApiError 400: it would begin a turn in another's name
prompt and answer have no place             ApiError 400
==========================================  ================================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from llmchain_fl.core.tasks.causal_lm import LONGEST, LONGEST_ANSWER, PROMPT
from llmchain_fl.core.tasks.text import begun
from llmchain_fl.serve import refusals
from llmchain_fl.serve.asking import Asked
from llmchain_fl.serve.decoder import Decoder, Prompt
from llmchain_fl.serve.encoder import Words
from llmchain_fl.serve.sampling import Sampler, Written
from llmchain_fl.serve.served import Served


@dataclass(frozen=True)
class Writing:
    """How a prompt is gone on with.

    Attributes:
        ids: the prompt's tokens.
        most: tokens that may be written.
        temperature, top_p, seed: see :class:`~llmchain_fl.serve.sampling.Sampler`.
        stop: sequences at which the text ends.
        ends: tokens at which it ends; None: those of the base.
    """

    ids: Words
    most: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    ends: frozenset[int] | None = None


def asked_of(decoder: Decoder, served: Served, prompt: str) -> Asked:
    """What is written behind a text.

    Raises:
        ApiError: see the table of this file.
    """
    if served.asking is not None:
        check_signs(decoder.reader, [prompt], "prompt")
        return served.asking.text(prompt)
    return Asked(prompt_ids(decoder.reader, prompt), LONGEST_ANSWER)


def replied_of(decoder: Decoder, served: Served, turns: Sequence[tuple[str, str]]) -> Asked:
    """What is written behind (role, content) of each turn.

    Raises:
        ApiError: see the table of this file.
    """
    if served.asking is not None:
        check_signs(decoder.reader, [content for _, content in turns], "messages")
        return served.asking.reply(turns)
    return Asked(chat_ids(decoder.reader, turns), LONGEST_ANSWER)


def writing_of(decoder: Decoder, asked: Asked, bound: int, most: int | None = None, **told: Any) -> Writing:
    """How it is gone on with: in ``most`` tokens, or as many as the task writes, at most ``bound``.

    Raises:
        ApiError: prompt and answer have no place.
    """
    writing = Writing(asked.ids, most or min(asked.most, bound), ends=asked.ends, **told)
    check_room(decoder, writing.ids, writing.most)
    return writing


def check_signs(tokenizer: Any, texts: Sequence[str], param: str) -> None:
    """Refuse a text that would begin a turn in another's name.

    Raises:
        ApiError: a control token stands in it.
    """
    signs = [sign for sign in tokenizer.all_special_tokens if sign]
    if any(sign in text for text in texts for sign in signs):
        raise refusals.bad(param, "a text holds a control token of the model")


def prompt_ids(tokenizer: Any, prompt: str) -> Words:
    """As in training: what the tokenizer puts before a text, nothing behind it."""
    return np.asarray(begun(tokenizer, [PROMPT.format(prompt=prompt)], LONGEST)[0], dtype=np.int64)


def chat_ids(tokenizer: Any, messages: Sequence[tuple[str, str]]) -> Words:
    """(role, content) of each turn -> the tokens behind which the assistant writes.

    Raises:
        ApiError: see the table of this file.
    """
    if not getattr(tokenizer, "chat_template", None):
        if len(messages) != 1 or messages[0][0] != "user":
            raise refusals.bad("messages", "this base has no chat template; send one message of the role user")
        return prompt_ids(tokenizer, messages[0][1])
    check_signs(tokenizer, [content for _, content in messages], "messages")
    told = [{"role": role, "content": content} for role, content in messages]
    try:
        ids = tokenizer.apply_chat_template(told, add_generation_prompt=True, return_dict=False)
    except Exception:  # a template raises whatever it likes
        raise refusals.bad(
            "messages", "the chat template of this base does not take these roles in this order"
        ) from None
    return np.asarray(ids, dtype=np.int64)


def check_room(decoder: Decoder, ids: Words, most: int) -> None:
    """Refuse a prompt that leaves no place for ``most`` tokens behind it.

    Raises:
        ApiError: prompt and answer together are longer than the base's positions.
    """
    if len(ids) + most > decoder.longest:
        what = f"{len(ids)} tokens and {most} to write do not fit into {decoder.longest}"
        raise refusals.ApiError(400, f"prompt: {what}", "context_length_exceeded", "prompt")


def prompt_row(decoder: Decoder, adapter: int, writing: Writing) -> Prompt:
    """The row that is computed."""
    sampler = Sampler(writing.temperature, writing.top_p, writing.seed)
    return Prompt(writing.ids, adapter, writing.most, sampler, Written(decoder.base.tokenizer, writing.stop),
                  writing.ends)  # fmt: skip
