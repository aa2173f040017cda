"""Rows of any lengths end to end in one pass: no token is computed that nobody asked for.

    tokens  [ row 1 | row 2 | ... | row n | filler ]        sorted by adapter; each row counts its positions from 0
    linear layers, norms, activations    over all tokens at once, for none of them mixes tokens
    attention                            softmax(Q_n K_n^T / sqrt(d)) V_n, over the tokens of row n alone
    y[a:b] = W0 x[a:b] + s_k B_k A_k x[a:b]                 a:b = the tokens of adapter k, filled up to ``block``

What a kernel of a product rounds may depend on how many tokens it is given. So packing is tried before it is used
(:func:`packing_for`): each row alone, and in passes of more and more rows at many places, must have the same bits, and
those of the base's own pass but for rounding. ``block`` is the smallest of BLOCKS for which they do.

====================================================  =======================================
case                                                  result
====================================================  =======================================
bits depend on the number of tokens, at every block   None: rows are padded (``encoder.py``)
the base has an attention of its own kind             None
positions that cannot be given, or a window           None: its numbers are not those of its own pass
====================================================  =======================================
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface

from llmchain_fl.serve.bank import Bank, Segment

Words = npt.NDArray[np.int64]
BLOCKS = (8, 16, 64)
MOST_TOKENS = 1024
"""Of one pass, unless a single row has more: beyond it no product gets faster."""
TRIALS = 16
"""Passes of different numbers of rows that are tried."""
ATTENTION = "llmchain-fl-packed"
"""Under this name transformers finds :func:`attend_packed`."""

_CHOSEN = "_attn_implementation"


class Tokens(Protocol):
    """A row as it is packed."""

    @property
    def ids(self) -> Words: ...
    @property
    def adapter(self) -> int: ...


@dataclass(frozen=True)
class Span:
    """``count`` rows of one length, one after the other, from token ``start``."""

    start: int
    count: int
    length: int

    @property
    def end(self) -> int:
        """Behind its last token."""
        return self.start + self.count * self.length


@dataclass(frozen=True)
class Packing:
    """How rows are packed over one base: ``block`` as above, ``first``: the position of a row's first token."""

    block: int
    first: int

    def passes(self, rows: Sequence[Tokens]) -> list[list[int]]:
        """Places of rows, sorted by adapter and length, in passes of at most MOST_TOKENS tokens or one row."""
        order = sorted(range(len(rows)), key=lambda k: (rows[k].adapter, len(rows[k].ids)))
        passes: list[list[int]] = [[]]
        tokens = 0
        for place in order:
            length = len(rows[place].ids)
            if passes[-1] and tokens + length > MOST_TOKENS:
                passes.append([])
                tokens = 0
            passes[-1].append(place)
            tokens += length
        return passes

    def hidden(self, bank: Bank, rows: Sequence[Tokens]) -> list[Tensor]:
        """[T, H] of each row: the vectors of its tokens."""
        vectors: dict[int, Tensor] = {}
        for places in self.passes(rows):
            part = self._pass(bank, [rows[place] for place in places])
            vectors.update(zip(places, part, strict=True))
        return [vectors[place] for place in range(len(rows))]

    def _pass(self, bank: Bank, rows: Sequence[Tokens]) -> list[Tensor]:
        """Of rows sorted by adapter and length."""
        ids, positions = list[Words](), list[Words]()
        spans, segments, total = list[Span](), list[Segment](), 0
        for adapter, group in groupby(rows, key=lambda row: row.adapter):
            start = total
            for length, alike in groupby(group, key=lambda row: len(row.ids)):
                texts = [row.ids for row in alike]
                ids += texts
                positions += [self.first + np.arange(length)] * len(texts)
                spans.append(Span(total, len(texts), length))
                total = spans[-1].end
            if filler := -(total - start) % self.block:
                ids.append(np.full(filler, bank.base.tokenizer.pad_token_id or 0, dtype=np.int64))
                positions.append(np.full(filler, self.first))
                total += filler
            segments.append(Segment(adapter, start, total))
        tokens, places = (
            torch.from_numpy(np.concatenate(part)[None]).to(bank.base.device) for part in (ids, positions)
        )
        with bank.segments(segments), _attention(bank.base.module):
            hidden = bank.base.module(input_ids=tokens, position_ids=places, packed_spans=spans).last_hidden_state[0]
        return [part for span in spans for part in hidden[span.start : span.end].split(span.length)]


def attend_packed(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    packed_spans: Sequence[Span],
    scaling: float | None = None,
    **others: object,
) -> tuple[Tensor, None]:
    """Each row's tokens attend to themselves. ``query``: [1, heads, T, d]; gives [1, T, heads, d]; 0 for filler."""
    _, heads, total, width = query.shape
    out = query.new_zeros(1, total, heads, width)
    for span in packed_spans:
        of_rows = [_by_row(part, span) for part in (query, key, value)]
        attended = F.scaled_dot_product_attention(
            of_rows[0], of_rows[1], of_rows[2], scale=scaling, enable_gqa=key.shape[1] != heads
        )
        out[0, span.start : span.end] = attended.transpose(1, 2).reshape(-1, heads, width)
    return out, None


def _by_row(part: Tensor, span: Span) -> Tensor:
    """Of [1, heads, T, d] the tokens of ``span``, as [rows, heads, length, d]."""
    _, heads, _, width = part.shape
    return part[0, :, span.start : span.end].reshape(heads, span.count, span.length, width).transpose(0, 1)


AttentionInterface.register(ATTENTION, attend_packed)


@contextmanager
def _attention(module: nn.Module) -> Iterator[None]:
    config = module.config
    usual = getattr(config, _CHOSEN)
    setattr(config, _CHOSEN, ATTENTION)
    try:
        yield
    finally:
        setattr(config, _CHOSEN, usual)


def packing_for(bank: Bank, rows: Sequence[Tokens]) -> Packing | None:
    """How rows may be packed over this base, on this machine; None: not at all.

    Args:
        rows: made up, of all lengths and adapters that will be served; as many as a pass may have.
    """
    firsts = (0, (bank.base.tokenizer.pad_token_id or 0) + 1)  # RoBERTa counts from behind its padding
    for first in firsts:
        try:
            if _like_the_base(Packing(BLOCKS[-1], first), bank, rows):
                return next((one for block in BLOCKS if _steady(one := Packing(block, first), bank, rows)), None)
        except Exception:  # of whatever architecture: it has a pass of its own
            continue
    return None


def _like_the_base(packing: Packing, bank: Bank, rows: Sequence[Tokens]) -> bool:
    """Whether rows alone have the numbers of the base's own pass, but for rounding."""
    for row in rows:
        ids = torch.from_numpy(row.ids[None]).to(bank.base.device)
        with bank.rows([row.adapter]):
            own = bank.base.module(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state[0]
        (packed,) = packing.hidden(bank, [row])
        near = torch.finfo(own.dtype).eps ** 0.5 * float(own.abs().max())
        if not float((packed - own).abs().max()) <= near:
            return False
    return True


def _steady(packing: Packing, bank: Bank, rows: Sequence[Tokens]) -> bool:
    """Whether rows have the same bits alone and in passes of 2, 3, ... rows, each of others."""
    alone = [packing.hidden(bank, [row])[0] for row in rows]
    for count in range(2, len(rows) + 1, max(1, len(rows) // TRIALS)):
        places = [(count * (count + 1) // 2 + k) % len(rows) for k in range(count)]
        beside = packing.hidden(bank, [rows[place] for place in places])
        if not all(torch.equal(one, alone[place]) for one, place in zip(beside, places, strict=True)):
            return False
    return True
