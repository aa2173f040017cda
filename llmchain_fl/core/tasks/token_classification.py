"""Names in a text (entities, slots, personal data): a tag for each word, by an encoder and a trained head.

logits = W h_t + b on the first token of a word, h_t = scale x (token vector) / |token vector|, W and b start at 0. A
word's other tokens have no tag: a tag on each would count a long word several times (docs/tasks.md).

The loss of a record is the mean over its words of the cross entropy of their tags. A long record is windows of tokens
that overlap by a quarter; each word belongs to the one in which its first token stands farthest from an end, and is
read there alone. Which words are where follows from the record and public constants.

| case | result |
|---|---|
| a word that is no token (control characters) | no loss; its tag is ``O`` in an answer |
| a word beyond the windows | the same; the record counts as cut |
| a window without a word of its own | left out, unless the record has no other |
| tags in another scheme | see ``tags.py``: read alike, scored as spans |
| no tag fits at all (an entity inside is impossible) | never: the path of ``O`` is always there |
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from llmchain_fl.core.adapter.resident import Resident
from llmchain_fl.core.data.lists import words_of
from llmchain_fl.core.errors import ModelError
from llmchain_fl.core.privacy.counts import f1_of
from llmchain_fl.core.tasks.base import Examples, Numbers, Output, Task
from llmchain_fl.core.tasks.by_token import TokenLosses
from llmchain_fl.core.tasks.each_row import Floats, each_row
from llmchain_fl.core.tasks.metric import Metric
from llmchain_fl.core.tasks.spec import TaskSpec
from llmchain_fl.core.tasks.tags import Span, best_path, counts_of, numbered, spans_at, spans_of
from llmchain_fl.core.tasks.windows import rows_with

WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|[^\W\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+|[^\w\s]")
"""A word of a plain text: letters and digits together, a Chinese or Japanese sign alone, a mark alone."""
OVERLAP = 4
"""Windows overlap by a quarter."""


class TaggedExamples(Examples):
    """With the words' tags of each record, -1 where they are not told. A note: word x number of tags + tag, or -1."""

    right: list[Numbers]


class TokenClassification(TokenLosses):
    """Tags over ``names``; scores are entity F1, precision and recall over all records, and the loss."""

    metrics: tuple[Metric, ...]
    counts: float = 0.0

    def __init__(self, resident: Resident, names: Sequence[str], scale: float, max_tokens: int, windows: int) -> None:
        self.resident, self.names, self._scale = resident, list(names), scale
        self._max_tokens, self._windows, self._tags = max_tokens, windows, 1 + 2 * len(names)
        try:
            self._read([["a"]])
        except Exception as error:
            raise ModelError(
                "the base's tokenizer does not read words one by one",
                remedy='use a base with a fast tokenizer; of RoBERTa and GPT-2 set "add_prefix_space": true in its '
                "tokenizer_config.json",
            ) from error

    def _read(self, words: Sequence[Sequence[str]]) -> list[list[tuple[list[int], list[int | None]]]]:
        """(token ids, word of each token) of each window of each record."""
        found: list[list[tuple[list[int], list[int | None]]]] = [[] for _ in words]
        told = self.resident.base.tokenizer(
            [list(one) for one in words],
            is_split_into_words=True,
            truncation=True,
            max_length=self._max_tokens,
            return_overflowing_tokens=True,
            stride=self._max_tokens // OVERLAP,
        )
        for row, (ids, record) in enumerate(zip(told["input_ids"], told["overflow_to_sample_mapping"], strict=True)):
            found[record].append(
                (ids or [self.resident.base.tokenizer.pad_token_id or 0], told.word_ids(row) or [None])
            )
        return found

    def encode(self, rows: Sequence[Mapping[str, str]]) -> TaggedExamples:
        """Rows with ``tokens`` (and ``tags``)."""
        words = [words_of(row["tokens"]) for row in rows]
        right = [self._right(row, len(one)) for row, one in zip(rows, words, strict=True)]
        ids, notes, weights, counts, cut = list[Numbers](), list[Numbers](), list[float](), list[int](), 0
        for windows, tags in zip(self._read(words) if rows else [], right, strict=True):
            own = owned(windows[: self._windows])
            total = sum(map(len, own))
            kept = [k for k, places in enumerate(own) if places] or [0]
            cut += len(windows) > self._windows
            counts.append(len(kept))
            for k in kept:
                note = np.full(len(windows[k][0]), -1, dtype=np.int64)
                for word, place in own[k].items():
                    note[place] = word * self._tags + max(0, int(tags[word]))
                ids.append(np.asarray(windows[k][0], dtype=np.int64))
                notes.append(note)
                weights.append(len(own[k]) / total if total else 1.0)
        made = rows_with(ids, weights, np.array(counts, dtype=np.int64), cut)
        found = TaggedExamples(made.ids, made.targets, owner=made.owner, weights=made.weights, notes=notes, cut=cut)
        found.right = right
        return found

    def _right(self, row: Mapping[str, str], count: int) -> Numbers:
        if "tags" not in row:
            return np.full(count, -1, dtype=np.int64)
        return numbered(spans_of(words_of(row["tags"]), set(self.names)), count, self.names)

    def forward(self, examples: Examples, index: Sequence[int]) -> Output:
        """Logits [n, T, L]; weight 1 where a word of the row's own begins."""
        ids, mask = examples.batch(index, self.resident.base.tokenizer.pad_token_id or 0, self.resident.base.device)
        fixed = examples.shape is not None
        hidden = self.resident.forward(ids, mask, examples.frozen_outputs, index, fixed=fixed).last_hidden_state
        logits = self.resident.module["head"](self._scale * F.normalize(hidden.float(), dim=-1))
        note = torch.from_numpy(examples.noted(index, ids.shape[1], -1)).to(ids.device)
        return Output(logits, note.clamp_min(0) % self._tags, (note >= 0).float() * mask)

    def _logs(self, examples: Examples, batch: int) -> list[Floats | None]:
        """Of each row: (word, log p of each tag) for its own words, float64 [words, 1 + L]."""

        def compute(index: Sequence[int]) -> list[Floats]:
            logs = F.log_softmax(self.forward(examples, index).logits, dim=-1).double().cpu().numpy()
            found = []
            for row, one in zip(index, logs, strict=True):
                note = examples.notes[row]
                places = np.flatnonzero(note >= 0)
                found.append(np.column_stack([note[places] // self._tags, one[places]]))
            return found

        return each_row(examples, batch, compute)

    def tagged(self, examples: TaggedExamples, batch: int = 64) -> list[tuple[Numbers, Floats] | None]:
        """(tag, its log-probability) of each word of each record, as fits together best; None: not computed."""
        logs, found = self._logs(examples, batch), list[tuple[Numbers, Floats] | None]()
        for record, right in enumerate(examples.right):
            parts = [logs[row] for row in examples.rows_of([record])]
            known = [part for part in parts if part is not None]
            if len(known) < len(parts):
                found.append(None)
                continue
            table = np.full((len(right), self._tags), -np.inf)
            table[:, 0] = 0.0
            for part in known:
                table[part[:, 0].astype(np.int64)] = part[:, 1:]
            path = best_path(table)
            found.append((path, table[np.arange(len(right)), path]))
        return found

    def record_counts(self, examples: Examples, batch: int = 64) -> npt.NDArray[np.float64]:
        """(entities right, wrong, missed) of each record, float64 [records, 3]; NaN where it cannot be computed."""
        assert isinstance(examples, TaggedExamples)
        counts = np.full((examples.records, 3), np.nan)
        for record, told in enumerate(self.tagged(examples, batch)):
            if told is not None:
                right = spans_at(np.maximum(examples.right[record], 0), self.names)
                counts[record] = counts_of(right, spans_at(told[0], self.names))
        return counts

    def record_scores(self, examples: Examples, batch: int = 64) -> npt.NDArray[np.float64]:
        """F1 of each record by itself; 1 where there is no entity and none is found."""
        counts = self.record_counts(examples, batch)
        found = [1.0 if not told.any() else f1_of(*told) for told in counts]
        return np.where(np.isfinite(counts).all(axis=1), np.array(found, dtype=np.float64), np.nan)

    def score(self, examples: Examples, batch: int = 64) -> dict[str, float]:
        """Over all entities of all records (conlleval's micro average), and the mean loss of a record."""
        both, wrong, missed = np.nansum(self.record_counts(examples, batch), axis=0)
        losses = each_row(examples, batch, lambda index: list(self._row_losses(examples, index)))
        mean = examples.by_record(np.array([np.nan if one is None else float(one) for one in losses])).mean()
        return {
            "entity_f1": f1_of(both, wrong, missed),
            "precision": float(both / max(1.0, both + wrong)),
            "recall": float(both / max(1.0, both + missed)),
            "loss": float(mean),
        }

    def _row_losses(self, examples: Examples, index: Sequence[int]) -> Floats:
        return np.asarray(self.losses(self.forward(examples, index)).double().cpu().numpy())

    def predict(self, texts: Sequence[str], top: int = 1) -> list[list[tuple[str, float]]]:
        """The entities of each plain text: one answer, a JSON list with name, text and the characters it spans."""
        places = [[found.span() for found in WORD.finditer(text)] for text in texts]
        words = [[text[a:b] for a, b in spans] for text, spans in zip(texts, places, strict=True)]
        answers = []
        for text, spans, (found, chance) in zip(texts, places, self._entities(words), strict=True):
            told = [(name, spans[first][0], spans[last][1]) for first, last, name in found]
            shown = [{"name": name, "text": text[a:b], "start": a, "end": b} for name, a, b in told]
            answers.append([(json.dumps(shown, ensure_ascii=False), chance)])
        return answers

    def answer(self, rows: Sequence[Mapping[str, str]], top: int = 1) -> list[list[tuple[str, float]]]:
        """Tags for rows with ``tokens``: one answer each, a JSON list of IOB2 tags, one a word."""
        words, answers = [words_of(row["tokens"]) for row in rows], []
        for one, (found, chance) in zip(words, self._entities(words), strict=True):
            tags = ["O"] * len(one)
            for first, last, name in found:
                tags[first : last + 1] = [f"B-{name}", *[f"I-{name}"] * (last - first)]
            answers.append([(json.dumps(tags, ensure_ascii=False), chance)])
        return answers

    def _entities(self, words: Sequence[Sequence[str]]) -> list[tuple[list[Span], float]]:
        """The spans of each list of words, and the chance of the least sure tag."""
        examples = self.encode([{"tokens": json.dumps(list(one))} for one in words])
        found: list[tuple[list[Span], float]] = []
        for told in self.tagged(examples):
            path, logs = (np.zeros(0, dtype=np.int64), np.zeros(0)) if told is None else told
            found.append((spans_at(path, self.names), float(np.exp(logs.min())) if len(logs) else 1.0))
        return found


def owned(windows: Sequence[tuple[Sequence[int], Sequence[int | None]]]) -> list[dict[int, int]]:
    """For each window: word -> place of its first token, of the words that are read in it.

    A word is read where its first token stands farthest from both ends; of equals in the earlier window.
    """
    best: dict[int, tuple[int, int, int]] = {}
    seen: set[int] = set()
    for k, (_, words) in enumerate(windows):
        here: dict[int, int] = {}
        for place, word in enumerate(words):
            if word is not None and word not in here:
                here[word] = place
        for word, place in here.items():
            if word in seen and words.index(word) <= _first(words):
                continue  # its first token may stand in the window before
            room = min(place, len(words) - 1 - place)
            if word not in best or room > best[word][0]:
                best[word] = (room, k, place)
        seen |= set(here)
    found: list[dict[int, int]] = [{} for _ in windows]
    for word, (_, k, place) in best.items():
        found[k][word] = place
    return found


def _first(words: Sequence[int | None]) -> int:
    return next((place for place, word in enumerate(words) if word is not None), 0)


def build(spec: TaskSpec, resident: Resident) -> Task:
    """The working task for ``spec``."""
    names = [name for name, _ in spec.labels]
    return TokenClassification(resident, names, spec.scale, spec.max_tokens, spec.windows)
