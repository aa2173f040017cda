"""Continued pre-training of a decoder on documents: every token is learned from, and scored in bits a byte.

    bits per byte = sum over all records of -log2 p(text, end) / sum of (bytes of the text as UTF-8 + 1 for its end)

which compares bases of different tokenizers, as the loss a token does not (Gao et al. 2020, section 3.1). Of a document
that is cut the bytes of what is read count. Rows of a document: ``causal_lm.py``. Records are never packed into a row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from llmchain_fl.core.adapter.resident import Resident
from llmchain_fl.core.tasks.base import Examples, Task
from llmchain_fl.core.tasks.causal_lm import LONGEST, CausalLM
from llmchain_fl.core.tasks.passes import each_record
from llmchain_fl.core.tasks.spec import TaskSpec
from llmchain_fl.core.tasks.text import token_ids


class PlainText(CausalLM):
    """Next-token prediction on texts. A note: the bytes of a record, in its first row; 0 in the others."""

    def encode(self, rows: Sequence[Mapping[str, str]]) -> Examples:
        """Rows with ``text``."""
        examples, tokenizer = super().encode(rows), self.resident.base.tokenizer
        whole = [len(ids) for ids in token_ids(tokenizer, [row["text"] for row in rows], LONGEST, special=False)]
        end = int(tokenizer.eos_token_id is not None)
        examples.notes = []
        for record, row in enumerate(rows):
            places = examples.rows_of([record])
            own = [examples.ids[place][int(examples.targets[place]) :] for place in places]
            read = row["text"]
            if sum(map(len, own)) < whole[record] + end:
                read = tokenizer.decode(np.concatenate(own), skip_special_tokens=True)
            sizes = [len(read.encode()) + 1, *[0] * (len(places) - 1)]
            examples.notes += [np.array([size], dtype=np.int64) for size in sizes]
        return examples

    def score(self, examples: Examples, batch: int = 32) -> dict[str, float]:
        """``loss`` and ``perplexity`` over all tokens, ``bits_per_byte`` over all bytes."""
        losses, tokens = each_record(examples, batch, lambda index: self._both(examples, index), 2)
        nats, size = float((losses * tokens).sum()), float(sum(int(note.sum()) for note in examples.notes))
        loss = nats / max(float(tokens.sum()), 1.0)
        return {
            "loss": loss,
            "perplexity": float(np.exp(min(loss, 50.0))),
            "bits_per_byte": nats / np.log(2) / max(size, 1.0),
        }


def build(spec: TaskSpec, resident: Resident) -> Task:
    """The working task for ``spec``."""
    return PlainText(resident, spec.max_tokens, spec.windows)
