"""Frozen layers below the first adapted one give the same output every time: compute it once per text.

For a forward pass the frozen layers are replaced: ``[Replay, ..., Replay, first adapted layer, ...]``. ``Replay`` hands
on the kept hidden states instead of computing them, so nothing else of the architecture needs to be known. Every layer
keeps its position, because some architectures choose mask and rotation by it (sliding windows: Gemma, Qwen), and hands
on what kind of value the layer it stands for does (MPNet, GPT: a tuple or list, hidden states first).
Exact up to the padding of the batch (float32: about 1e-6), because dropout is off in the base; in fixed shapes
(``tasks/passes.py``) every pass has the same one, and what runs remember for each other is of passes of this length.

Where layers hand on more than hidden states (RWKV), hold them in another order (XLNet), or let padding into a text's
numbers (FNet, ConvBERT), replayed layers give something else: that is found by trying (``prove``): nothing is kept.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from llmchain_fl.core.base_model import layer_stack
from llmchain_fl.core.first_pass import made_up_ids
from llmchain_fl.core.remembered import Remembered

log = logging.getLogger("llmchain_fl.client")
EXACT = 1e-5
"""Largest difference of a replayed pass from a direct one over the largest output; more in half precision."""


class Replay(nn.Module):
    """Stands for one frozen layer and returns what the last of them would."""

    def __init__(self, attention_type: str | None) -> None:
        super().__init__()
        self.hidden: Tensor | None = None
        self.beside: tuple[None, ...] | None = None
        if attention_type is not None:
            self.attention_type = attention_type

    def forward(self, *_: Any, **__: Any) -> Tensor | tuple[Tensor | None, ...]:
        if self.hidden is None:
            raise RuntimeError("Replay was called without hidden states")
        return self.hidden if self.beside is None else (self.hidden, *self.beside)


@dataclass
class _Memory:
    """Counts bytes from when a tensor is kept until the records that it belongs to are gone."""

    used: int = 0

    def hold(self, value: Tensor) -> None:
        self.used += value.nbytes
        weakref.finalize(value, self._release, value.nbytes).atexit = False

    def _release(self, size: int) -> None:
        self.used -= size


class FrozenPrefix:
    """Runs a model from its first adapted layer on.

    Args:
        module: the base (with or without adapter).
        first: position of the first adapted layer; 0 means there is nothing to keep.
        limit_mb: no further text is kept once this much memory is used; it is then computed each time.
        remembered: what other runs over the same base have computed.
    """

    def __init__(self, module: nn.Module, first: int, limit_mb: int, remembered: Remembered | None = None) -> None:
        name, self._stack = layer_stack(module)
        self._parent = module.get_submodule(name.rpartition(".")[0])
        self._attribute = name.rpartition(".")[2]
        self._module, self.first, self._limit = module, first, limit_mb * 2**20
        self._replays = [Replay(getattr(layer, "attention_type", None)) for layer in self._stack[:first]]
        self._short = nn.ModuleList([*self._replays, *self._stack[first:]])
        self._lower = nn.ModuleList(list(self._stack[:first]))
        self._memory = _Memory()
        self._remembered = Remembered() if remembered is None else remembered
        self._seen, self._exact = False, True

    @property
    def used(self) -> int:
        """Bytes kept at present."""
        return self._memory.used

    @property
    def enabled(self) -> bool:
        """Whether anything can be kept."""
        return self.first > 0 and self._limit > 0 and self._exact

    def prove(self) -> None:
        """Keep nothing from here on if made-up texts come out otherwise than directly; the log says so once."""
        if not self.enabled:
            return
        try:
            with torch.no_grad():
                self._exact = self._is_exact()
        except Exception:  # layers that ask for more than can be replayed
            self._exact = False
        if not self._exact:
            log.warning("frozen layers of %s cannot be replayed: computed every time", type(self._module).__name__)

    def _is_exact(self) -> bool:
        ids = made_up_ids(self._module, 3, 11)
        mask = (torch.arange(11)[None] < torch.tensor([[11], [5], [8]])).long().to(ids.device)
        direct = self._module(input_ids=ids, attention_mask=mask)[0]
        far = max(EXACT, 8 * torch.finfo(direct.dtype).eps) * float(direct.abs().max())
        plain: dict[int, Tensor] = {}
        self.run(ids[1:, :8], mask[1:, :8], plain, [1, 2])  # narrower, as in a batch of shorter texts
        stores = [(plain, False), (plain, False), (fixed := {}, True), (fixed, True)]  # type: ignore[var-annotated]
        passes = [self.run(ids, mask, store, [0, 1, 2], fixed=as_fixed)[0] for store, as_fixed in stores]
        text = mask.bool()
        return all(float((one[text] - direct[text]).abs().max()) <= far for one in passes)

    def run(
        self, ids: Tensor, mask: Tensor, store: dict[int, Tensor], index: Sequence[int], *, fixed: bool = False
    ) -> Any:
        """Forward pass of texts ``index`` (rows of ``ids``); ``store`` maps text -> hidden states [its tokens, H].

        ``fixed``: all passes have the shape of ``ids``, also that over the texts whose outputs are not kept yet.
        """
        fresh = self._outputs(ids, mask, {text: row for row, text in enumerate(index) if text not in store}, fixed)
        for text, value in fresh.items():
            if self.used + value.nbytes <= self._limit:
                store[text] = value
                self._memory.hold(value)
        rows = [store[text] if text in store else fresh[text] for text in index]
        self._hand_over(_pad(rows, ids.shape[1]))
        setattr(self._parent, self._attribute, self._short)
        try:
            return self._module(input_ids=ids, attention_mask=mask)
        finally:
            setattr(self._parent, self._attribute, self._stack)
            self._hand_over(None)

    def _hand_over(self, hidden: Tensor | None) -> None:
        for replay in self._replays:
            replay.hidden = hidden

    def _outputs(self, ids: Tensor, mask: Tensor, wanted: dict[int, int], fixed: bool) -> dict[int, Tensor]:
        """Of the frozen layers, for each text of ``wanted`` (text -> its row); what is remembered is not computed."""
        lengths, length = mask.sum(dim=1).tolist(), ids.shape[1] * fixed
        remembered, missing = {}, wanted
        if self._remembered.limit_mb:
            tokens = {text: ids[row, : int(lengths[row])].cpu().numpy().tobytes() for text, row in wanted.items()}
            known = {
                text: self._remembered.get((self.first, length, key)) for text, key in tokens.items() if self._seen
            }
            remembered = {text: output for text, output in known.items() if output is not None}
            missing = {text: row for text, row in wanted.items() if text not in remembered}
        if not missing:
            return remembered
        rows = list(missing.values())
        rows += rows[:1] * (len(ids) - len(rows)) * fixed
        outputs = self._compute(ids[rows], mask[rows])
        computed = {
            text: outputs[place, : int(lengths[row])].clone() for place, (text, row) in enumerate(missing.items())
        }
        if self._remembered.limit_mb:
            for text, value in computed.items():
                self._remembered.put((self.first, length, tokens[text]), value)
        return remembered | computed

    def _compute(self, ids: Tensor, mask: Tensor) -> Tensor:
        caught: list[Tensor] = []

        def catch(_module: nn.Module, _inputs: Any, output: Any) -> None:
            caught.append(output if isinstance(output, Tensor) else output[0])
            self._seen = True
            for replay in self._replays:
                replay.beside = None if isinstance(output, Tensor) else (None,) * (len(output) - 1)

        hook = self._lower[-1].register_forward_hook(catch)
        setattr(self._parent, self._attribute, self._lower)
        try:
            with torch.no_grad():
                self._module(input_ids=ids, attention_mask=mask)
        finally:
            setattr(self._parent, self._attribute, self._stack)
            hook.remove()
        return caught[0]


def _pad(rows: Sequence[Tensor], length: int) -> Tensor:
    out = rows[0].new_zeros(len(rows), length, rows[0].shape[-1])
    for row, value in enumerate(rows):
        out[row, : value.shape[0]] = value
    return out
