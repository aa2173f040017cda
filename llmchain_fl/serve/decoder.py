"""Prompts -> texts, token by token, for many adapters in one batch, over a causal language model.

Prompts of one kind of length begin together, padded on the left to that length, and take every step together until the
last of them has ended: the shape of each pass is a function of a row's own kind and of its step. Several such groups
take turns. Rows that have ended are computed on as copies, and their numbers dropped.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from llmchain_fl.core.base_model import Base
from llmchain_fl.core.errors import ModelError
from llmchain_fl.core.first_pass import text_config
from llmchain_fl.core.tasks.passes import rung
from llmchain_fl.serve.bank import Bank
from llmchain_fl.serve.encoder import Words
from llmchain_fl.serve.sampling import Sampler, Written
from llmchain_fl.serve.steady import filled, steady_sizes

STOP, LENGTH, LATE, GONE, FAILED = "stop", "length", "late", "gone", "failed"
"""Why a text ends; the last three are no answer."""
CLOSE = 1e-3
"""Largest difference that padding on the left may make to logits, over the largest of them."""
TRIED = 3
"""Steps behind the prompt that are tried for each kind."""


@dataclass(frozen=True)
class Piece:
    """A new piece of a text. ``reason``: why it is the last one; empty: more will come. ``tokens``: written so far."""

    text: str
    reason: str
    tokens: int


@dataclass
class Prompt:
    """One row.

    Attributes:
        ids: the prompt.
        adapter: number in the bank.
        most: tokens that may be written.
        sampler, written: how the next token is drawn, and what is there.
        ends: tokens at which it ends; None: those of the base.
        told: is given each new piece; the last one has a reason.
        unwanted: why nobody waits any more (``late``, ``gone``); empty: somebody does.
    """

    ids: Words
    adapter: int
    most: int
    sampler: Sampler
    written: Written
    ends: frozenset[int] | None = None
    told: Callable[[Piece], None] = lambda piece: None
    unwanted: Callable[[], str] = lambda: ""
    ended: bool = False

    def take(self, token: int, ends: frozenset[int]) -> None:
        """The next token of this row."""
        if self.ended:
            return
        if reason := self.unwanted():
            self.end(reason)
            return
        if token in (ends if self.ends is None else self.ends):
            self.end(STOP, self.written.rest())
            return
        new = self.written.take(token)
        if self.written.stopped:
            self.end(STOP, new)
        elif len(self.written.tokens) >= self.most:
            self.end(LENGTH, new + self.written.rest())
        elif new:
            self.told(Piece(new, "", len(self.written.tokens)))

    def end(self, reason: str, new: str = "") -> None:
        """Tell the last piece, once."""
        if not self.ended:
            self.ended = True
            self.told(Piece(new, reason, len(self.written.tokens)))


@dataclass
class Group:
    """Rows that take every step together."""

    rows: list[Prompt]
    size: int
    mask: Tensor
    cache: object = None
    next_ids: Tensor | None = None

    @property
    def over(self) -> bool:
        """Whether nobody waits for another token."""
        return all(row.ended for row in self.rows)

    def end(self, reason: str) -> None:
        """End the rows that have not ended."""
        for row in self.rows:
            row.end(reason)


@dataclass
class Decoder:
    """Groups of prompts over one bank. ``longest``: positions of the base; ``rows``: most rows of a group.

    ``reader`` is a tokenizer for other threads than the model's: one cannot be shared by two.
    """

    bank: Bank
    rows: int
    longest: int = 0
    sizes: dict[int, tuple[int, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        told = getattr(text_config(self.base.module), "max_position_embeddings", None)
        self.longest = int(told or 4096)
        tokenizer = self.base.tokenizer
        generation = getattr(self.base.module, "generation_config", None)
        named = getattr(generation, "eos_token_id", None)
        several = named if isinstance(named, list) else [named, tokenizer.eos_token_id]
        self.reader = copy.deepcopy(tokenizer)
        self.ends = frozenset(int(one) for one in several if one is not None)

    @property
    def base(self) -> Base:
        """Under all of them."""
        return self.bank.base

    def kind(self, row: Prompt) -> int:
        """Length to which its prompt is padded."""
        return self.kind_of(len(row.ids))

    def kind_of(self, tokens: int) -> int:
        """Length to which a prompt of so many tokens is padded."""
        return rung(tokens, self.longest)

    def room(self, kind: int) -> int:
        """Most rows of a group of this kind."""
        return self._sizes(kind)[-1]

    def begin(self, rows: Sequence[Prompt]) -> Group:
        """The first token of each row of one kind."""
        kind = self.kind(rows[0])
        size = filled(len(rows), self._sizes(kind))
        group = Group(list(rows), size, torch.zeros(0))
        whole = [*rows, *[rows[0]] * (size - len(rows))]
        ids, mask = self._padded([row.ids for row in whole], kind)
        logits, group.cache = self._pass([row.adapter for row in whole], ids, mask, None)
        group.mask = mask
        self._take(group, logits)
        return group

    def step(self, group: Group) -> None:
        """The next token of each row."""
        assert group.next_ids is not None
        group.mask = torch.cat([group.mask, group.mask.new_ones(group.size, 1)], dim=1)
        adapters = [row.adapter for row in group.rows]
        adapters += adapters[:1] * (group.size - len(adapters))
        logits, group.cache = self._pass(adapters, group.next_ids, group.mask, group.cache)
        self._take(group, logits)

    def _take(self, group: Group, logits: Tensor) -> None:
        told = logits.double().cpu().numpy()
        tokens = [0 if row.ended else row.sampler.next(told[place]) for place, row in enumerate(group.rows)]
        for row, token in zip(group.rows, tokens, strict=True):
            row.take(token, self.ends)
        whole = tokens + tokens[:1] * (group.size - len(tokens))
        group.next_ids = torch.tensor(whole, device=self.base.device)[:, None]

    def check(self) -> None:
        """Refuse a base whose next token padding on the left would change.

        Raises:
            ModelError: it is one.
        """
        ids = self._made_up(11)
        alone, _ = self._pass([0], torch.from_numpy(ids[0])[None].to(self.base.device), torch.ones(1, 11), None)
        padded, mask = self._padded([ids[0]], 16)
        beside, _ = self._pass([0], padded, mask, None)
        if float((alone - beside).abs().max()) > CLOSE * float(alone.abs().max()):
            what = f"{type(self.base.module).__name__} lets padding into a text's numbers"
            raise ModelError(what, remedy="serve a decoder with attention masks (Llama, Qwen, GPT-2, ...)")

    def _sizes(self, kind: int) -> tuple[int, ...]:
        """Tried once for each kind, when it is first met."""
        if kind not in self.sizes:
            ids = self._made_up(max(1, kind - 3))
            self.sizes[kind] = steady_sizes(lambda numbers: self._trial(ids, kind, numbers), self.rows)
        return self.sizes[kind]

    def _trial(self, ids: Sequence[Words], kind: int, numbers: Sequence[int]) -> Tensor:
        adapters = [number % (self.bank.count + 1) for number in numbers]
        given, mask = self._padded([ids[number] for number in numbers], kind)
        logits, cache = self._pass(adapters, given, mask, None)
        found = [logits]
        for step in range(TRIED):
            mask = torch.cat([mask, mask.new_ones(len(numbers), 1)], dim=1)
            told = torch.tensor([[int(ids[number][step % len(ids[number])])] for number in numbers])
            logits, cache = self._pass(adapters, told.to(self.base.device), mask, cache)
            found.append(logits)
        return torch.stack(found, dim=1)

    def _made_up(self, length: int) -> list[Words]:
        known = np.array(sorted(set(self.base.tokenizer.get_vocab().values())))
        known = known[known < text_config(self.base.module).vocab_size]
        draw = np.random.default_rng(length)
        return [draw.choice(known, size=max(1, length - k % 3)) for k in range(self.rows)]

    def _padded(self, texts: Sequence[Words], length: int) -> tuple[Tensor, Tensor]:
        ids = np.full((len(texts), length), self.base.tokenizer.pad_token_id or 0, dtype=np.int64)
        mask = np.zeros_like(ids)
        for place, text in enumerate(texts):
            ids[place, length - len(text) :], mask[place, length - len(text) :] = text, 1
        return torch.from_numpy(ids).to(self.base.device), torch.from_numpy(mask).to(self.base.device)

    def _pass(self, adapters: Sequence[int], ids: Tensor, mask: Tensor, cache: object) -> tuple[Tensor, object]:
        """(float32 [n, V] logits of the next token, the cache behind these tokens)."""
        mask = mask.to(ids.device).long()
        places = (mask.cumsum(dim=1) - 1).clamp_min(0)[:, -ids.shape[1] :]
        told: Mapping[str, object] = {"position_ids": places, "past_key_values": cache, "use_cache": True}
        with torch.inference_mode(), self.bank.rows(adapters):
            made = self.base.module(input_ids=ids, attention_mask=mask, **told)
        return made.logits[:, -1].float(), made.past_key_values
