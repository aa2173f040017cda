"""Texts -> one vector each, or one for each token, for many adapters in one pass, over an encoder.

Rows go through end to end, without padding, where that was found to change no bit (``packed.py``). Elsewhere a row goes
through beside rows of its own kind (``core/tasks/passes.py``), in passes of a number of rows that was found to change
none (``steady.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from llmchain_fl.core.base_model import Base
from llmchain_fl.core.tasks.classification import POOLINGS
from llmchain_fl.core.tasks.passes import Kind, Shape
from llmchain_fl.core.tasks.text import token_ids
from llmchain_fl.serve.bank import BARE, Bank
from llmchain_fl.serve.packed import Packing, packing_for
from llmchain_fl.serve.steady import Compute, filled, steady_sizes

Words = npt.NDArray[np.int64]
PACKED: Kind = (0, False)
"""The kind of every row where rows are packed."""
TOKENS = "tokens"
"""In place of a pooling: the vector of each token, as the base gives it."""


@dataclass(frozen=True)
class Row:
    """One text, pair of texts or window for one adapter. ``pooling``: how its tokens' vectors become one, or TOKENS."""

    ids: Words
    adapter: int
    pooling: str


@dataclass
class Encoder:
    """Rows -> vectors.

    Attributes:
        bank: the base with its adapters.
        longest: most tokens of any adapter's task.
        rows: most rows of a pass.
        packing: how rows are packed; None: they are padded.
        sizes: of padded passes, kind of length -> numbers of rows that change no bit.
    """

    bank: Bank
    longest: int
    rows: int
    packing: Packing | None = None
    sizes: dict[Kind, tuple[int, ...]] = field(default_factory=dict)

    @property
    def base(self) -> Base:
        """Under all of them."""
        return self.bank.base

    def encode(self, text: str, adapter: int, pooling: str, most: int) -> Row:
        """Cut at ``most`` tokens, as in training."""
        return Row(token_ids(self.base.tokenizer, [text], most)[0], adapter, pooling)

    def encode_pair(self, text: str, text2: str, adapter: int, pooling: str, most: int) -> Row:
        """Two texts in one row, as in training: the longer one is cut first."""
        told = self.base.tokenizer(text, text2, truncation="longest_first", max_length=most)["input_ids"]
        return Row(np.array(told, dtype=np.int64), adapter, pooling)

    def kind(self, row: Row) -> Kind:
        """Only rows of one kind stand in one pass."""
        if self.packing is not None:
            return PACKED
        return Shape(self.rows, self.longest).kind(len(row.ids))

    def room(self, kind: Kind) -> int:
        """Most rows of a pass of this kind."""
        if kind == PACKED:
            return self.rows
        return self.sizes.get(kind, (1,))[-1]

    def vectors(self, rows: Sequence[Row]) -> list[Tensor]:
        """float32 [H] at unit length of each row, or [T, H]. ``rows``: of one kind, not more than there is room for."""
        if self.packing is not None:
            with torch.inference_mode():
                packed = self.packing.hidden(self.bank, rows)
                return [_vector(row, own, own.new_ones(len(own))).cpu() for row, own in zip(rows, packed, strict=True)]
        sizes = self.sizes.get(self.kind(rows[0]), (1,))
        whole = [*rows, *([rows[0]] * (filled(len(rows), sizes) - len(rows)))]
        with torch.inference_mode():
            hidden, mask = self._pass(whole)
            return [_vector(row, hidden[k], mask[k]).cpu() for k, row in enumerate(rows)]

    def bare(self, texts: Sequence[str], pooling: str, most: int) -> Tensor:
        """float32 [n, H]: each text in the base alone."""
        rows = [self.encode(text, BARE, pooling, most) for text in texts]
        found = [self.vectors([row])[0] for row in rows]
        return torch.stack(found) if found else torch.zeros(0, self.base.hidden_size)

    def try_passes(self) -> None:
        """Find how rows may go through: packed, or for every kind of length how many of them; see ``steady.py``."""
        lengths = np.linspace(2, self.longest, self.rows).round().astype(int)
        with torch.inference_mode():
            made_up = [Row(self._ids(int(n)), k % (self.bank.count + 1), "mean") for k, n in enumerate(lengths)]
            self.packing = packing_for(self.bank, made_up)
        if self.packing is not None:
            return
        shape = Shape(self.rows, self.longest)
        for kind, length in {shape.kind(length): length for length in range(2, self.longest + 1)}.items():
            self.sizes[kind] = steady_sizes(self._over(self._made_up(length)), self.rows)

    def _over(self, made_up: Sequence[Row]) -> Compute:
        """Every token's vector, so that whatever is made of a row is the same too; 0 behind a row's end."""

        def compute(numbers: Sequence[int]) -> Tensor:
            with torch.inference_mode():
                hidden, mask = self._pass([made_up[number] for number in numbers])
                return torch.where(mask.unsqueeze(-1) == 1, hidden, 0.0)

        return compute

    def _made_up(self, length: int) -> list[Row]:
        shape = Shape(self.rows, self.longest)
        shorter = [n for n in range(max(2, length - 7), length + 1) if shape.kind(n) == shape.kind(length)]
        return [
            Row(self._ids(shorter[-1 - k % len(shorter)], k), k % (self.bank.count + 1), "mean")
            for k in range(self.rows)
        ]

    def _ids(self, length: int, seed: int = 0) -> Words:
        known = np.array(sorted(set(self.base.tokenizer.get_vocab().values()) - {self.base.tokenizer.pad_token_id}))
        return np.random.default_rng((length, seed)).choice(known, size=length).astype(np.int64)

    def _pass(self, rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
        """(vectors of tokens [n, T, H], mask [n, T])."""
        length = Shape(self.rows, self.longest).padded(max(len(row.ids) for row in rows))
        ids = np.full((len(rows), length), self.base.tokenizer.pad_token_id or 0, dtype=np.int64)
        mask = np.zeros_like(ids)
        for place, row in enumerate(rows):
            ids[place, : len(row.ids)], mask[place, : len(row.ids)] = row.ids, 1
        given, told = (torch.from_numpy(part).to(self.base.device) for part in (ids, mask))
        with self.bank.rows([row.adapter for row in rows]):
            return self.base.module(input_ids=given, attention_mask=told).last_hidden_state, told


def _vector(row: Row, hidden: Tensor, mask: Tensor) -> Tensor:
    """What is asked of one row, of its vectors [T, H] alone."""
    if row.pooling == TOKENS:
        return hidden[: len(row.ids)].float()
    return F.normalize(POOLINGS[row.pooling](hidden.unsqueeze(0), mask.unsqueeze(0)), dim=-1)[0]
