"""Conversations as tokens, by the base's own chat template, and which of these the assistant says.

A turn is found by rendering the conversation up to it: the text up to ``turns[:i]`` with the opening of an answer must
begin the text up to ``turns[:i + 1]``, and that must begin the whole. What lies between is the assistant's turn i, and
tokens are its own where the tokenizer's offsets say so. No mark in the template is asked for (most have none).

================================================  ====================================================================
case                                              result
================================================  ====================================================================
two turns of one role in a row                    read as one, a line break between them
a template that refuses a system turn             it stands before the first user turn, an empty line between them
a template that rewrites earlier turns            ModelError, before anybody trains
no chat template, and none of ours asked for      ModelError
no offsets (no fast tokenizer)                    ModelError
a token that begins before the turn               not the assistant's: a reply never begins inside a token
blanks behind the last special token of a turn    not trained: generation has stopped there
================================================  ====================================================================

The plain template of this project, for bases without one (``task.template = "plain"``)::

    System: ...
    User: ...
    Assistant: ...<end of text>
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmchain_fl.core.data.turns import turns_of
from llmchain_fl.core.errors import ModelError

Turns = Sequence[Mapping[str, str]]
Numbers = NDArray[np.int64]
SYSTEM, USER, ASSISTANT = "system", "user", "assistant"
PLAIN = (
    "{% for turn in messages %}{{ turn['role'] | capitalize }}: {{ turn['content'] }}"
    "{% if turn['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)
PROBE = tuple({"role": role, "content": text} for role, text in ((USER, "a"), (ASSISTANT, "b")) * 2)
"""A conversation that nobody had."""
OTHER = 'set task.template = "plain", or use a base with another chat template'


def fault(row: Mapping[str, str], names: Container[str]) -> str:
    """Why ``row`` is no conversation to learn from; "": it is one."""
    silent = all(turn["role"] != ASSISTANT for turn in turns_of(row["messages"]))
    return asked_fault(row, names) or ("a conversation in which the assistant says nothing" if silent else "")


def asked_fault(row: Mapping[str, str], names: Container[str]) -> str:
    """Why ``row`` is no conversation; "": it is one."""
    turns = turns_of(row["messages"])
    if not turns:
        return "a conversation without turns"
    roles = [turn["role"] for turn in turns]
    if not set(roles) <= {SYSTEM, USER, ASSISTANT}:
        return "a role that is none of system, user, assistant"
    if SYSTEM in roles[1:]:
        return "a system turn that is not the first"
    if not all(turn["content"].strip() for turn in turns):
        return "a turn without content"
    if roles[roles[0] == SYSTEM :][:1] != [USER]:
        return "a conversation that does not begin with the user"
    return ""


def joined_turns(turns: Turns) -> list[dict[str, str]]:
    """The same conversation without two turns of one role in a row."""
    runs = groupby(turns, lambda turn: turn["role"])
    return [{"role": role, "content": "\n".join(turn["content"] for turn in run)} for role, run in runs]


class Chat:
    """The template of one base.

    Args:
        tokenizer: of the base.
        plain: whether our own template is used, whatever the base has.
        name: of the base, for messages.

    Attributes:
        stops: ids of tokens that end a reply.

    Raises:
        ModelError: see the table of the module.
    """

    def __init__(self, tokenizer: Any, plain: bool, name: str) -> None:
        self._tokenizer, self._template, self._name = tokenizer, PLAIN if plain else None, name
        if not getattr(tokenizer, "is_fast", False):
            raise ModelError(
                f"the tokenizer of {name} does not say where its tokens stand", remedy="use one with a fast tokenizer"
            )
        if not plain and not getattr(tokenizer, "chat_template", None):
            raise ModelError(
                f"{name} has no chat template: nobody told it how a conversation looks",
                remedy='set task.template = "plain", or use a base that was tuned to chat',
            )
        unknown = {tokenizer.unk_token_id} - {tokenizer.eos_token_id}
        self._special = sorted(set(tokenizer.all_special_ids) - unknown)
        self._system = True
        self._system = self._takes_system()
        ids, own, _ = self.encoded(PROBE)
        ends = {tokenizer.eos_token_id, int(ids[own == 1][-1])}
        self.stops = [end for end in self._special if end in ends]

    def _takes_system(self) -> bool:
        try:
            told = self._rendered([{"role": SYSTEM, "content": "zqx"}, *PROBE], reply=False)
        except Exception:  # templates raise what they like
            return False
        return "zqx" in told

    def rendered(self, turns: Turns, *, reply: bool) -> str:
        """The text of a conversation; ``reply``: with the opening of the assistant's next turn.

        Raises:
            ModelError: the template refuses it. No word of it is quoted.
        """
        try:
            return self._rendered(turns, reply=reply)
        except Exception as error:
            what = f"the chat template of {self._name} refuses a conversation ({type(error).__name__})"
            raise ModelError(what, remedy=OTHER) from None

    def _rendered(self, turns: Turns, *, reply: bool) -> str:
        turns = joined_turns(turns)
        if not self._system and turns[0]["role"] == SYSTEM and len(turns) > 1:
            both = f"{turns[0]['content']}\n\n{turns[1]['content']}"
            turns = [{"role": USER, "content": both}, *turns[2:]]
        told = {"tokenize": False, "add_generation_prompt": reply, "chat_template": self._template}
        return str(self._tokenizer.apply_chat_template(turns, **told))

    def opened(self, turns: Turns) -> Numbers:
        """Token ids of a conversation and the opening of the assistant's next turn."""
        text = self.rendered(turns, reply=True)
        return np.asarray(self._tokenizer(text, add_special_tokens=False)["input_ids"], dtype=np.int64)

    def encoded(self, turns: Turns) -> tuple[Numbers, Numbers, int]:
        """(token ids, 1 for those that the assistant says, how many bytes of UTF-8 its turns have).

        Raises:
            ModelError: the template refuses the conversation, or rewrites earlier turns.
        """
        turns = joined_turns(turns)
        text = self.rendered(turns, reply=False)
        told = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        ids = np.asarray(told["input_ids"], dtype=np.int64)
        places = np.asarray(told["offset_mapping"], dtype=np.int64).reshape(-1, 2)
        special = np.isin(ids, self._special)
        own = np.zeros(len(ids), dtype=np.int64)
        for start, end in self._spans(turns, text):
            inside = np.flatnonzero((places[:, 0] >= start) & (places[:, 1] <= end) & (places[:, 1] > places[:, 0]))
            marks = np.flatnonzero(special[inside])
            own[inside[: marks[-1] + 1] if len(marks) else inside] = 1
        said = [turn["content"] for turn in turns if turn["role"] == ASSISTANT]
        return ids, own, sum(len(content.encode("utf-8", "replace")) for content in said)

    def _spans(self, turns: Turns, text: str) -> list[tuple[int, int]]:
        """Where the assistant's turns stand in the text."""
        spans = []
        for place, turn in enumerate(turns):
            if turn["role"] != ASSISTANT:
                continue
            before = self.rendered(turns[:place], reply=True)
            after = text if place + 1 == len(turns) else self.rendered(turns[: place + 1], reply=False)
            if not (text.startswith(after) and after.startswith(before)):
                what = f"the chat template of {self._name} rewrites earlier turns when the conversation goes on"
                raise ModelError(what, remedy=OTHER)
            spans.append((len(before), len(after)))
        return spans
