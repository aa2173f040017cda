"""Text classification by what a decoder would say next: one token for each label of a public list, no head.

    z_l = logit of t_l behind the prompt, less b_l;   b_l = log of the mean over c of softmax_l(the same of c alone),
    c: "N/A", "[MASK]", "" in the frozen base

t_l is the first token of the label's text that tells it apart. b is contextual calibration (Zhao et al. 2021,
"Calibrate Before Use", section 5, arXiv 2102.09690, which divides by the chances that texts without content have): a
function of public constants, computed once. The prompt is a conversation of one turn (``chat.py``): the instruction, a
line break, the text. The loss is the cross entropy over labels. One row a record and one forward pass; the whole texts
of labels would take a pass for each label, whose rows together are one record.

| case | result |
|---|---|
| all labels begin with the same tokens | these stand behind every prompt; the token behind them is compared |
| only some of them do, or one is the beginning of another and the template has no end of a reply | ModelError |
| a text that does not fit into a row | it loses its beginning; the question and the opening of the reply stay |
| a question that leaves no room for a text | ModelError |
| an empty text | the question alone |
| one label | it is always the answer |
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from llmchain_fl.core.adapter.resident import Resident
from llmchain_fl.core.errors import ModelError
from llmchain_fl.core.tasks.base import Examples, Numbers, Output, Task
from llmchain_fl.core.tasks.by_token import words_at
from llmchain_fl.core.tasks.chat import ASSISTANT, USER, Chat
from llmchain_fl.core.tasks.classification import Classification
from llmchain_fl.core.tasks.spec import TaskSpec

USUAL = "Which label fits this text?"
"""The instruction where a run gives none."""
FREE = ("N/A", "[MASK]", "")
"""Texts without content."""


class LabelWords(Classification):
    """A classifier whose logits are those of the next token.

    Raises:
        ModelError: see the table of the module.
    """

    def __init__(self, resident: Resident, spec: TaskSpec) -> None:
        self.start(resident, dict(spec.labels), spec.scale, spec.max_tokens)
        base = resident.base
        self._instruction = spec.instruction or USUAL
        self._chat = Chat(base.tokenizer, spec.template == "plain", base.public_name)
        said = [self._said(text) for _, text in spec.labels]
        self._shared = np.array(said[0][: _common(said)] if len(said) > 1 else [], dtype=np.int64)
        self.tokens = torch.tensor(self._apart(said), device=base.device)
        self._front = self._before()
        self.calibration = torch.zeros(len(said), device=base.device)
        self.calibration = self._of_no_content()

    def _said(self, text: str) -> list[int]:
        """Tokens of a reply that is this label, with the mark that ends it."""
        ids, own, _ = self._chat.encoded([*self._asked("-"), {"role": ASSISTANT, "content": text}])
        return [int(token) for token in ids[own == 1]]

    def _asked(self, text: str) -> list[dict[str, str]]:
        return [{"role": USER, "content": f"{self._instruction}\n{text}"}]

    def _apart(self, said: Sequence[Sequence[int]]) -> list[int]:
        """The token of each label behind what all have in common."""
        first, place = dict[int, str](), len(self._shared)
        for label, tokens in zip(self.labels, said, strict=True):
            token = tokens[place] if len(tokens) > place else -1
            if token < 0 or token in first:
                both = f"{label} and {first.get(token, 'another one')}"
                raise ModelError(
                    f"to {self.resident.base.public_name} the labels {both} begin with the same token",
                    remedy="give each label a text with a first word of its own (task.labels = {NAME = 'text'}), or a "
                    "letter that task.instruction explains; or classify with an encoder",
                )
            first[token] = label
        return list(first)

    def _before(self) -> int:
        """How many tokens of the template stand before a text."""
        one, other = (self._chat.rendered(self._asked(text), reply=True) for text in "ab")
        before, behind = _common([one, other]), len(one) - _common([one[::-1], other[::-1]])
        tokenizer = self.resident.base.tokenizer
        places = tokenizer(one, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        front = sum(int(end <= before) for _, end in places)
        question = front + sum(int(start >= behind) for start, _ in places) + len(self._shared)
        if question >= self._max_tokens:
            raise ModelError(
                f"the question takes {question} tokens of {self._max_tokens}: no text is read",
                remedy="raise model.max_tokens, or shorten task.instruction",
            )
        return front

    def _of_no_content(self) -> Tensor:
        """b: log of the mean chance that each label has for texts without content in the frozen base, [L]."""
        free = self.encode([{"text": text} for text in FREE])
        with torch.no_grad(), self.resident.swapped(self.resident.bare):
            logs = F.log_softmax(self.forward(free, range(len(FREE))).logits, dim=-1)
        return logs.logsumexp(dim=0) - math.log(len(FREE))

    def encode(self, rows: Sequence[Mapping[str, str]]) -> Examples:
        """Rows with ``text`` (and ``label``): the prompt of each, up to where the label would be said."""
        whole = [np.concatenate([self._chat.opened(self._asked(row["text"])), self._shared]) for row in rows]
        targets = np.array([self._position.get(row.get("label", ""), -1) for row in rows], dtype=np.int64)
        cut = sum(len(ids) > self._max_tokens for ids in whole)
        return Examples([self._fitting(ids) for ids in whole], targets, cut=cut)

    def _fitting(self, ids: Numbers) -> Numbers:
        over = max(0, len(ids) - self._max_tokens)
        return np.delete(ids, slice(self._front, self._front + over))

    def forward(self, examples: Examples, index: Sequence[int]) -> Output:
        """Logits [n, L] over the whole public label list, of each prompt's last token alone."""
        ids, mask = examples.batch(index, self.resident.base.tokenizer.pad_token_id or 0, self.resident.base.device)
        with words_at(self.resident, mask.sum(dim=1, keepdim=True) - 1):
            fixed = examples.shape is not None
            here = self.resident.forward(ids, mask, examples.frozen_outputs, index, fixed=fixed).logits[:, 0]
        logits = here[:, self.tokens].float() - self.calibration
        return Output(logits, torch.from_numpy(examples.targets[list(index)]).to(logits.device))


def _common(rows: Sequence[Sequence[Any]]) -> int:
    """How many first items all have in common."""
    return sum(1 for _ in takewhile(lambda items: len(set(items)) == 1, zip(*rows, strict=False)))


def build(spec: TaskSpec, resident: Resident) -> Task:
    """The working task for ``spec``."""
    return LabelWords(resident, spec)
