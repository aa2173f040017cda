"""Conversations with a causal language model: the base's chat template, loss on what the assistant says.

    L_r = - 1/|A| sum_{t in A} log p(x_t | x_<t),     A: the tokens of all turns of the assistant that are read

One conversation is one record, whatever rows it has. What does not fit into a row loses whole turns from its front, and
these are read in rows of their own, up to ``windows``; a system turn stands before each of them. Scores: the mean over
all tokens of A of all records (nats), its exponential, and bits a byte of what the assistant says (without marks): it
compares bases of any vocabulary. It is the sum of losses / (ln 2 x bytes of UTF-8).

| case | result |
|---|---|
| a reply that does not fit into a row with what it answers | loses its end, the other its beginning; counted as cut |
| more turns than fit into ``windows`` rows | the first ones are not read; the record counts as cut |
| a row in which the assistant says nothing | is not made |
| no byte said at all | bits a byte: 0 |
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from llmchain_fl.core.adapter.resident import Resident
from llmchain_fl.core.data.turns import turns_of
from llmchain_fl.core.tasks.base import Examples, Numbers, Task
from llmchain_fl.core.tasks.causal_lm import CONTEXT, CausalLM
from llmchain_fl.core.tasks.chat import ASSISTANT, SYSTEM, USER, Chat, Turns, joined_turns
from llmchain_fl.core.tasks.passes import each_record
from llmchain_fl.core.tasks.spec import TaskSpec
from llmchain_fl.core.tasks.windows import rows_with

LONGEST_TURN = 128
"""Tokens of a turn that ``predict`` writes."""
Row = tuple[Numbers, Numbers, int]
"""(token ids, 1 for those that the assistant says, bytes that it says)."""


class SaidExamples(Examples):
    """With the bytes that the assistant says in each row."""

    said: Numbers


class Dialogue(CausalLM):
    """A note of a row: 1 for each token that the assistant says. Scores are loss, perplexity and bits a byte."""

    def __init__(self, resident: Resident, max_tokens: int, windows: int, plain: bool) -> None:
        super().__init__(resident, max_tokens, windows)
        self.chat = Chat(resident.base.tokenizer, plain, resident.base.public_name)

    def encode(self, rows: Sequence[Mapping[str, str]]) -> SaidExamples:
        """Rows with ``messages``."""
        read = [self._parts(joined_turns(turns_of(row["messages"]))) for row in rows]
        counts = np.array([len(parts) for parts, _ in read], dtype=np.int64)
        parts = [part for told, _ in read for part in told]
        sizes = [[max(1, int(own.sum())) for _, own, _ in told] for told, _ in read]
        weights = [size / sum(told) for told in sizes for size in told]
        made = rows_with([ids for ids, _, _ in parts], weights, counts, sum(cut for _, cut in read))
        found = SaidExamples(made.ids, made.targets, owner=made.owner, weights=made.weights, cut=made.cut)
        found.targets, found.notes = np.zeros(len(parts), dtype=np.int64), [own for _, own, _ in parts]
        found.said = np.array([said for _, _, said in parts], dtype=np.int64)
        return found

    def _parts(self, turns: Turns) -> tuple[list[Row], bool]:
        """(rows of a conversation, the last turns first; whether something was cut)."""
        begun = int(turns[0]["role"] == SYSTEM)
        system, rest = turns[:begun], turns[begun:]
        rows, end, cut = list[Row](), len(rest), False
        row: Row | None = None
        while end and len(rows) < self._windows:
            end, row = self._last(system, rest[:end])
            if row[1].any():
                rows.append(self._cut(row))
                cut = cut or len(row[0]) > self._max_tokens
        if not rows:  # a reply of no token at all
            rows = [self._cut(row or self.chat.encoded(turns))]
        return rows, cut or end > 0

    def _last(self, system: Turns, rest: Turns) -> tuple[int, Row]:
        """(where it begins, its row) of the longest end of ``rest`` that fits into one, or of the shortest."""
        starts = [place for place, turn in enumerate(rest) if turn["role"] == USER] or [0]
        for start in starts:
            row = self.chat.encoded([*system, *rest[start:]])
            if len(row[0]) <= self._max_tokens or start == starts[-1]:
                break
        return start, row

    def _cut(self, row: Row) -> Row:
        """A row of at most ``max_tokens``; what is said before the reply keeps a quarter of it, if it is so long."""
        ids, own, said = row
        longest = self._max_tokens
        if len(ids) <= longest:
            return row
        first = int(own.argmax()) if own.any() else len(ids) - 1
        start = max(0, min(len(ids), first + longest - max(1, longest // CONTEXT)) - longest)
        here = slice(start, start + longest)
        return ids[here], own[here], said * int(own[here].sum()) // max(1, int(own.sum()))

    def answers(self, examples: Examples, index: Sequence[int], width: int) -> Tensor:
        """int64 [n, width], 1 where the assistant says a token; of rows without notes every token counts."""
        noted = torch.from_numpy(examples.noted(index, width, 0))
        known = torch.tensor([row < len(examples.notes) and examples.notes[row].size > 0 for row in index])
        return torch.where(known[:, None], noted, super().answers(examples, index, width))

    def score(self, examples: Examples, batch: int = 32) -> dict[str, float]:
        """``loss`` and ``perplexity`` over all tokens that the assistant says, and bits a byte of it."""
        assert isinstance(examples, SaidExamples)
        losses, tokens = each_record(examples, batch, lambda index: self._both(examples, index), 2)
        nats = float((losses * tokens).sum())
        loss, size = nats / max(float(tokens.sum()), 1.0), int(examples.said.sum())
        bits = nats / (math.log(2) * size) if size else 0.0
        return {"loss": loss, "perplexity": math.exp(min(loss, 50.0)), "bits_per_byte": bits}

    def predict(self, texts: Sequence[str], top: int = 1) -> list[list[tuple[str, float]]]:
        """The assistant's reply to each text as a user's first turn (one candidate, probability 1)."""
        return [self._replied([{"role": USER, "content": text}]) for text in texts]

    def answer(self, rows: Sequence[Mapping[str, str]], top: int = 1) -> list[list[tuple[str, float]]]:
        """The assistant's reply to the last turn of the user in each conversation; what it said then is not read."""
        return [self._replied(_asked(turns_of(row["messages"]))) for row in rows]

    def _replied(self, turns: Turns) -> list[tuple[str, float]]:
        most = min(LONGEST_TURN, self._max_tokens // 2)
        begun = int(turns[0]["role"] == SYSTEM)
        starts = [place for place, turn in enumerate(turns) if turn["role"] == USER] or [0]
        for start in starts:
            prompt = self.chat.opened([*turns[:begun], *turns[start:]])
            if len(prompt) <= self._max_tokens - most:
                break
        return [(self.continued(prompt[most - self._max_tokens :], most, self.chat.stops), 1.0)]


def _asked(turns: Turns) -> Turns:
    """The conversation up to the user's last turn."""
    last = max((place for place, turn in enumerate(turns) if turn["role"] != ASSISTANT), default=0)
    return turns[: last + 1]


def build(spec: TaskSpec, resident: Resident) -> Task:
    """The working task for ``spec``."""
    return Dialogue(resident, spec.max_tokens, spec.windows, spec.template == "plain")
