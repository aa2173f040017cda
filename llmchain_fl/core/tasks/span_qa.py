"""Questions whose answer is a piece of a given text, by an encoder and a trained head.

(s_t, e_t) = W h_t + b for every token t, h_t = scale x (token vector) / |token vector|, W and b start at 0. The answer
of a row is the piece i .. j of its text with the largest s_i + e_j, i <= j < i + 30 tokens (Devlin et al. 2019, section
4.2); that of a record the largest over its rows: numbers as they are, for a softmax in each row would not compare.

A long text is read in windows, each behind the whole question, that overlap by a quarter of ``max_tokens``. The loss of
a record is the mean over its rows of (CE(s) + CE(e)) / 2; a row without the whole answer points at its first token.
With ``none`` a question may have no answer: the empty piece, with the smallest s_0 + e_0 of the record's rows for its
number (section 4.3), stands among the others and is the answer where it is larger; it alone is right where none is.

| case | result |
|---|---|
| a question longer than a quarter of a row | its end is cut; the record counts as cut |
| the answer lies beyond the rows that a record may have; there is none | all its rows point at their first token |
| several right answers | the first is trained on, all are right in scores |
| ``none``: as large as the best piece | the piece |
| a row without any token of the text | never an answer |
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from llmchain_fl.core.adapter.resident import Resident
from llmchain_fl.core.data.lists import items_of, words_of
from llmchain_fl.core.errors import ConfigError, ModelError
from llmchain_fl.core.tasks.answers import exact, token_f1, units
from llmchain_fl.core.tasks.base import Examples, Numbers, Output, Task
from llmchain_fl.core.tasks.each_row import Floats, each_row
from llmchain_fl.core.tasks.metric import Metric
from llmchain_fl.core.tasks.spec import TaskSpec
from llmchain_fl.core.tasks.windows import of_records

LONGEST = 30
"""Tokens of an answer at most."""
QUARTER = 4
LEAST = 16
"""Tokens of a row at least: a quarter for the question, a quarter that windows have in common."""
BARRED = -1e4
"""At padding: its share is 0, and no product with it is undefined."""
Place = tuple[float, int, int, int, float]
"""(s + e, row, first token, last token, chance within the row)."""


class AskedExamples(Examples):
    """With what scores need: the texts and right answers of records, and where tokens of rows stand in their text."""

    contexts: list[str]
    right: list[list[str]]
    offsets: list[Numbers]
    """int64 [T, 2] of each row; -1 for tokens that are none of the text."""


class SpanQA:
    """Scores are token F1 and exact match, means over records, and the mean loss."""

    metrics: tuple[Metric, ...]
    counts: float = 0.0

    def __init__(self, resident: Resident, scale: float, max_tokens: int, windows: int, none: bool = False) -> None:
        self.resident, self._scale, self._none = resident, scale, none
        self._max_tokens, self._windows = max_tokens, windows
        if not getattr(resident.base.tokenizer, "is_fast", False):
            raise ModelError(
                "the base's tokenizer does not say where its tokens stand", remedy="use a base with a fast tokenizer"
            )
        if max_tokens < LEAST:
            raise ConfigError([f"model.max_tokens is {max_tokens}: a question and its text need {LEAST} or more"])

    def encode(self, rows: Sequence[Mapping[str, str]]) -> AskedExamples:
        """Rows with ``question``, ``context`` (and ``answers``, ``answer_start``)."""
        parts, notes, offsets, cut = list[list[Numbers]](), list[Numbers](), list[Numbers](), 0
        for row in rows:
            question = self._asked(row["question"])
            windows = list(self._read(question, row["context"]))
            cut += len(windows) > self._windows or len(question) < len(row["question"])
            kept = windows[: self._windows]
            parts.append([ids for ids, _ in kept])
            offsets += [places for _, places in kept]
            notes += [_note(row, places) for _, places in kept]
        made = of_records(parts, cut)
        found = AskedExamples(made.ids, made.targets, owner=made.owner, weights=made.weights, notes=notes, cut=cut)
        found.contexts, found.offsets = [row["context"] for row in rows], offsets
        right = [words_of(row.get("answers", "[]")) for row in rows]
        found.right = [[text for text in one if units(text)] or [""] for one in right] if self._none else right
        return found

    def _asked(self, question: str) -> str:
        most = self._max_tokens // QUARTER
        told = self.resident.base.tokenizer(question, add_special_tokens=False, return_offsets_mapping=True)
        places = told["offset_mapping"]
        return question if len(places) <= most else question[: places[most - 1][1]]

    def _read(self, question: str, context: str) -> Iterator[tuple[Numbers, Numbers]]:
        """(token ids, where each token stands in the context) of every window."""
        told = self.resident.base.tokenizer(
            question,
            context,
            truncation="only_second",
            max_length=self._max_tokens,
            stride=self._max_tokens // QUARTER,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )
        for row, ids in enumerate(told["input_ids"]):
            of_context = np.array([part == 1 for part in told.sequence_ids(row)], dtype=bool)[:, None]
            places = np.array(told["offset_mapping"][row], dtype=np.int64).reshape(-1, 2)
            yield np.asarray(ids, dtype=np.int64), np.where(of_context & (places[:, 1:] > places[:, :1]), places, -1)

    def forward(self, examples: Examples, index: Sequence[int]) -> Output:
        """Logits [n, 2, T] of first and last token; targets [n, 2]."""
        ids, mask = examples.batch(index, self.resident.base.tokenizer.pad_token_id or 0, self.resident.base.device)
        fixed = examples.shape is not None
        hidden = self.resident.forward(ids, mask, examples.frozen_outputs, index, fixed=fixed).last_hidden_state
        logits = self.resident.module["head"](self._scale * F.normalize(hidden.float(), dim=-1))
        logits = torch.where(mask[:, None, :] == 1, logits.transpose(1, 2), BARRED)
        return Output(logits, torch.from_numpy(examples.noted(index, 2, 0)).to(ids.device))

    def losses(self, output: Output) -> Tensor:
        """(CE of the first token + CE of the last) / 2, [n]."""
        each = F.cross_entropy(output.logits.flatten(0, 1), output.targets.flatten(), reduction="none")
        return each.view(-1, 2).mean(dim=1)

    def divergence(self, output: Output, teacher: Output, temperature: float) -> Tensor:
        """T^2 KL(teacher || student), mean over first and last, [n]."""
        student = F.log_softmax(output.logits / temperature, dim=-1)
        target = F.log_softmax(teacher.logits / temperature, dim=-1)
        return temperature**2 * F.kl_div(student, target, log_target=True, reduction="none").sum(dim=-1).mean(dim=1)

    def places(self, examples: AskedExamples, batch: int = 32, top: int = 1) -> list[list[Place] | None]:
        """The best pieces of each record, the best first, (0, 0) for none; None: some row of it was not computed."""

        def compute(index: Sequence[int]) -> list[Floats]:
            logits = self.forward(examples, index).logits.double().cpu().numpy()
            return [one[:, : examples.length(row)] for row, one in zip(index, logits, strict=True)]

        logits = each_row(examples, batch, compute)
        found: list[list[Place] | None] = []
        for record in range(examples.records):
            rows = [int(row) for row in examples.rows_of([record])]
            known = [(row, told) for row in rows if (told := logits[row]) is not None]
            pieces = [piece for row, told in known for piece in best_pieces(told, examples.offsets[row], row, top)]
            if self._none:
                first = np.where(np.arange(self._max_tokens)[:, None], -1, 0)
                pieces += sorted(best_pieces(one, first[: one.shape[1]], row, 1)[0] for row, one in known)[:1]
            pieces.sort(key=lambda piece: -piece[0])
            found.append(pieces if len(known) == len(rows) else None)
        return found

    def _text(self, examples: AskedExamples, record: int, piece: Place) -> str:
        places = examples.offsets[piece[1]]
        return examples.contexts[record][int(places[piece[2], 0]) : int(places[piece[3], 1])].strip()

    def found(self, examples: Examples, batch: int = 32) -> list[str | None]:
        """The answer to each record, "" where there is none; None: it was not computed."""
        assert isinstance(examples, AskedExamples)
        told = enumerate(self.places(examples, batch))
        return [None if one is None else self._text(examples, record, one[0]) if one else "" for record, one in told]

    def record_scores(self, examples: Examples, batch: int = 32) -> npt.NDArray[np.float64]:
        """Token F1 of each record."""
        assert isinstance(examples, AskedExamples)
        pairs = zip(self.found(examples, batch), examples.right, strict=True)
        return np.array([np.nan if text is None else token_f1(text, right) for text, right in pairs])

    def score(self, examples: Examples, batch: int = 32) -> dict[str, float]:
        """Means over all records."""
        assert isinstance(examples, AskedExamples)
        said = zip(self.found(examples, batch), examples.right, strict=True)
        pairs = [(text, right) for text, right in said if text is not None]
        losses = each_row(examples, batch, lambda index: list(self.losses(self.forward(examples, index)).cpu().numpy()))
        mean = examples.by_record(np.array([np.nan if one is None else float(one) for one in losses])).mean()
        count = max(1, examples.records)
        return {
            "token_f1": sum(token_f1(text, right) for text, right in pairs) / count,
            "exact_match": sum(exact(text, right) for text, right in pairs) / count,
            "loss": float(mean),
        }

    def predict(self, texts: Sequence[str], top: int = 1) -> list[list[tuple[str, float]]]:
        """A question alone has no answer here.

        Raises:
            ConfigError: always: it needs the text that holds the answer.
        """
        raise ConfigError(["a question needs the text that holds its answer: give a file with question and context"])

    def answer(self, rows: Sequence[Mapping[str, str]], top: int = 1) -> list[list[tuple[str, float]]]:
        """The ``top`` different answers to rows with ``question`` and ``context``, with their chance in their row."""
        examples, answers = self.encode(rows), []
        for record, pieces in enumerate(self.places(examples, top=top)):
            chances: dict[str, float] = {}
            for piece in pieces or []:
                chances.setdefault(self._text(examples, record, piece), piece[4])
            answers.append(list(chances.items())[:top] or [("", 0.0)])
        return answers


def _note(row: Mapping[str, str], places: Numbers) -> Numbers:
    """(first, last) token of the answer in a window; (0, 0) where it does not hold all of it."""
    nothing = np.zeros(2, dtype=np.int64)
    if not items_of(row.get("answers", "[]")):
        return nothing
    start = int(items_of(row["answer_start"])[0])
    end = start + len(words_of(row["answers"])[0])
    inside = np.flatnonzero((places[:, 1] > start) & (places[:, 0] < end) & (places[:, 1] >= 0))
    if not len(inside) or places[inside[0], 0] > start or places[inside[-1], 1] < end:
        return nothing
    return np.array([inside[0], inside[-1]], dtype=np.int64)


def best_pieces(logits: Floats, places: Numbers, row: int, top: int) -> list[Place]:
    """The ``top`` pieces of a row with the largest s_i + e_j, i <= j < i + 30, both tokens of the text.

    Args:
        logits: float64 [2, T].
        places: int64 [T, 2], -1 where a token is none of the text.
        row: which it is.
        top: how many.
    """
    text = places[:, 0] >= 0
    if not text.any():
        return []
    first, last = (np.where(text, one, -np.inf) for one in logits)
    sums = first[:, None] + last[None, :]
    sums = np.where(np.triu(np.ones_like(sums)) - np.triu(np.ones_like(sums), LONGEST) > 0, sums, -np.inf)
    logs = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    order = np.argsort(-sums, axis=None, kind="stable")[:top]
    pieces = [(int(k) // len(text), int(k) % len(text)) for k in order if np.isfinite(sums.flat[k])]
    return [(float(sums[i, j]), row, i, j, float(np.exp(logs[0, i] + logs[1, j]))) for i, j in pieces]


def build(spec: TaskSpec, resident: Resident, none: bool = False) -> Task:
    """The working task for ``spec``; ``none``: a question may have no answer."""
    return SpanQA(resident, spec.scale, spec.max_tokens, spec.windows, none)


build_or_none = partial(build, none=True)
