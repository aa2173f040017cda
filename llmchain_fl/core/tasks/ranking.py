"""Which of the candidates of a record come first for its query (answers, articles, passages), by an encoder.

A row is the query and as many whole candidates as fit behind it, so a candidate is read beside those that it is
compared with, and the loss is of one record alone: no other record's candidates are its negatives.

    s_k = W [c_k ; q * c_k] + b,   c_k = scale x v_k / |v_k|, v_k the mean over the candidate's tokens; q: the same of
                                   the query, without scale; W begins as [0 ; 1], b = 0: s_k = scale x cos(q, c_k)
    L = - sum_k g_k / (sum g) log softmax([0 ; s])_k                   (ListNet, Cao et al. 2007, top-one chances)

g_k: the grade of candidate k. The first entry, 0, is "none of these": a row without a graded candidate has it for its
target, so that scores of different rows compare. Loss of a record: the mean over its rows.

| case | result |
|---|---|
| the order in which candidates are written | none: they are read in the order of a public hash of their texts |
| a query or a candidate longer than a quarter of a row | its end is cut; the record counts as cut |
| candidates beyond the rows that a record may have | cut; they are ranked last, all alike |
| two candidates of the same text, fewer than two, no grade above 0 | no record of this kind (``fault``) |
"""

from __future__ import annotations

import hashlib
from collections.abc import Container, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from llmchain_fl.core.adapter.resident import Resident
from llmchain_fl.core.data.lists import items_of, words_of
from llmchain_fl.core.errors import ConfigError
from llmchain_fl.core.tasks.base import Examples, Numbers, Output, Task
from llmchain_fl.core.tasks.each_row import Floats, each_row
from llmchain_fl.core.tasks.metric import Metric
from llmchain_fl.core.tasks.numbers import ranked
from llmchain_fl.core.tasks.relation import ends_of
from llmchain_fl.core.tasks.spec import TaskSpec
from llmchain_fl.core.tasks.text import token_ids
from llmchain_fl.core.tasks.windows import of_records

GRADES, MOST, QUARTER = 32, 64, 4
"""Grades are below GRADES; a row has at most MOST candidates; no text takes more than a quarter of a row."""


def fault(row: Mapping[str, str], names: Container[str]) -> str:
    """Why ``row`` is no query with graded candidates; "": it is one (or one that is only asked)."""
    candidates = items_of(row["candidates"])
    if not all(isinstance(one, str) and one.strip() for one in candidates):
        return "a candidate that is empty or no text"
    if len(set(candidates)) < max(2, len(candidates)):
        return "fewer than two candidates, or one that stands there twice"
    if "grades" not in row:
        return ""
    grades = items_of(row["grades"])
    if len(grades) != len(candidates):
        return "another number of 'grades' than of candidates"
    if not all(isinstance(grade, int) and 0 <= grade < GRADES for grade in grades):
        return f"a grade that is no whole number from 0 to {GRADES - 1}"
    return "" if any(grades) else "no candidate with a grade above 0"


class RankedExamples(Examples):
    """With what scores need: the grades of each record, and which candidate each place of a row holds."""

    grades: list[Numbers]
    holds: list[list[int]]


class Ranking:
    """Scores are nDCG@10, mean reciprocal rank and hit at 1, and the mean loss.

    A note: of each token GRADES x place + grade, the place of its candidate in the row from 1 on; a token of the query
    -1, any other 0.
    """

    metrics: tuple[Metric, ...]
    counts: float = 0.0

    def __init__(self, resident: Resident, spec: TaskSpec) -> None:
        self.resident, self._scale = resident, spec.scale
        self._max_tokens, self._windows = spec.max_tokens, spec.windows
        self._before, self._behind = ends_of(resident)
        width = resident.base.hidden_size
        start = np.concatenate([np.zeros((1, width)), np.ones((1, width))], axis=1)
        resident.head_start = {"head.weight": start.astype(np.float32)}
        if spec.max_tokens < 2 * QUARTER:
            raise ConfigError([f"model.max_tokens is {spec.max_tokens}: a query and candidates need {2 * QUARTER}"])

    def encode(self, rows: Sequence[Mapping[str, str]]) -> RankedExamples:
        """Rows with ``query`` and ``candidates`` (and ``grades``)."""
        told = [self._read(row) for row in rows]
        made = of_records([[ids for ids, _, _ in one] for one, _ in told], sum(cut for _, cut in told))
        notes = [note for one, _ in told for _, note, _ in one]
        found = RankedExamples(
            made.ids, made.targets, owner=made.owner, weights=made.weights, notes=notes, cut=made.cut
        )
        found.holds = [which for one, _ in told for _, _, which in one]
        found.grades = [_grades(row) for row in rows]
        return found

    def _read(self, row: Mapping[str, str]) -> tuple[list[tuple[Numbers, Numbers, list[int]]], bool]:
        """(ids, note, candidates) of each row of a record, and whether something was cut."""
        most = max(1, self._max_tokens // QUARTER - len(self._behind))
        texts, grades = words_of(row["candidates"]), _grades(row)
        whole = token_ids(self.resident.base.tokenizer, [row["query"], *texts], self._max_tokens, special=False)
        query, *pieces = (ids[:most] for ids in whole)
        head = np.concatenate([self._before, query, self._behind])
        side = np.zeros(len(self._before), dtype=np.int64), -np.ones(len(query), dtype=np.int64)
        empty = np.zeros(len(self._behind), dtype=np.int64)
        groups = _groups([len(piece) + len(empty) for piece in pieces], _order(texts), self._max_tokens - len(head))
        found = []
        for group in groups[: self._windows]:
            ids = [head, *(part for k in group for part in (pieces[k], self._behind))]
            marks = [np.full(len(pieces[k]), GRADES * (place + 1) + grades[k]) for place, k in enumerate(group)]
            note = [*side, empty, *(part for mark in marks for part in (mark, empty))]
            found.append((np.concatenate(ids), np.concatenate(note).astype(np.int64), list(group)))
        return found, len(groups) > self._windows or any(len(ids) > most for ids in whole)

    def forward(self, examples: Examples, index: Sequence[int]) -> Output:
        """Logits [n, 1 + MOST], first "none of these"; targets the same: shares, of sum 1; weight 1 on candidates."""
        ids, mask = examples.batch(index, self.resident.base.tokenizer.pad_token_id or 0, self.resident.base.device)
        fixed = examples.shape is not None
        hidden = self.resident.forward(ids, mask, examples.frozen_outputs, index, fixed=fixed).last_hidden_state.float()
        note = torch.from_numpy(examples.noted(index, ids.shape[1], 0)).to(ids.device)
        if not examples.notes:  # made-up tokens: a query of one, and two candidates in turn, the second one right
            turn = torch.arange(ids.shape[1], device=ids.device) % 2
            note = torch.where(mask == 1, GRADES * (1 + turn) + turn, 0)
            note[:, 0] = -1
        place = torch.div(note, GRADES, rounding_mode="floor").clamp(0, MOST)
        query = F.normalize((hidden * (note < 0)[:, :, None]).sum(dim=1), dim=-1)
        held = F.one_hot(place, MOST + 1).to(hidden.dtype)
        vectors = F.normalize(torch.einsum("ntk,nth->nkh", held, hidden), dim=-1) * self._scale
        both = torch.cat([vectors, vectors * query[:, None, :]], dim=-1)
        real = held.sum(dim=1) > 0
        real[:, 0] = True
        scores = self.resident.module["head"](both)[:, :, 0].clone()
        scores[:, 0] = 0.0
        grades = torch.zeros_like(scores).scatter_reduce(1, place, (note.clamp_min(0) % GRADES).to(scores), "amax")
        grades[:, 0] = (grades[:, 1:].sum(dim=1) == 0).to(grades)
        return Output(torch.where(real, scores, -1e4), grades / grades.sum(dim=1, keepdim=True), real.float())

    def losses(self, output: Output) -> Tensor:
        """Cross entropy of the shares of the grades and the chances, [n]."""
        return -(output.targets * F.log_softmax(output.logits, dim=-1)).sum(dim=-1)

    def divergence(self, output: Output, teacher: Output, temperature: float) -> Tensor:
        """T^2 KL(teacher || student), [n]."""
        student = F.log_softmax(output.logits / temperature, dim=-1)
        target = F.log_softmax(teacher.logits / temperature, dim=-1)
        return temperature**2 * F.kl_div(student, target, log_target=True, reduction="none").sum(dim=-1)

    def scores_of(self, examples: RankedExamples, batch: int = 64) -> list[Floats | None]:
        """s of every candidate of each record, minus infinity where it was cut; None: some row was not computed."""
        logits = each_row(examples, batch, lambda index: list(self._plain(self.forward(examples, index).logits)))
        found: list[Floats | None] = []
        for record, grades in enumerate(examples.grades):
            scores, rows = np.full(len(grades), -np.inf), [int(row) for row in examples.rows_of([record])]
            for row in rows:
                if (told := logits[row]) is not None:
                    scores[examples.holds[row]] = told[1 : 1 + len(examples.holds[row])]
            found.append(scores if all(logits[row] is not None for row in rows) else None)
        return found

    @staticmethod
    def _plain(values: Tensor) -> npt.NDArray[np.float64]:
        return np.asarray(values.double().cpu().numpy())

    def _measured(self, examples: Examples, batch: int) -> npt.NDArray[np.float64]:
        """(nDCG, reciprocal rank, hit) of each record, [records, 3]; NaN where it was not computed."""
        assert isinstance(examples, RankedExamples)
        pairs = zip(self.scores_of(examples, batch), examples.grades, strict=True)
        told = [(np.nan,) * 3 if one is None else ranked(one, grades.astype(np.float64)) for one, grades in pairs]
        return np.array(told, dtype=np.float64).reshape(-1, 3)

    def record_scores(self, examples: Examples, batch: int = 64) -> npt.NDArray[np.float64]:
        """nDCG@10 of each record."""
        return self._measured(examples, batch)[:, 0]

    def score(self, examples: Examples, batch: int = 64) -> dict[str, float]:
        """Means over all records."""
        losses = each_row(examples, batch, lambda index: list(self._plain(self.losses(self.forward(examples, index)))))
        mean = examples.by_record(np.array([np.nan if one is None else float(one) for one in losses])).mean()
        names = ("ndcg_at_10", "mrr", "hit_at_1")
        means = np.nanmean(self._measured(examples, batch), axis=0)
        return dict(zip(names, map(float, means), strict=True)) | {"loss": float(mean)}

    def predict(self, texts: Sequence[str], top: int = 3) -> list[list[tuple[str, float]]]:
        """A query alone has nothing to rank.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(["a query needs candidates to rank: give a file with query and candidates"])

    def answer(self, rows: Sequence[Mapping[str, str]], top: int = 3) -> list[list[tuple[str, float]]]:
        """The ``top`` candidates for each row, with their chance among all of its candidates."""
        answers = []
        for row, scores in zip(rows, self.scores_of(self.encode(rows)) if rows else [], strict=True):
            texts = words_of(row["candidates"])
            told = np.zeros(len(texts)) if scores is None else scores
            chances = np.exp(told - np.logaddexp.reduce(told))
            order = np.argsort(-told, kind="stable")[:top]
            answers.append([(texts[int(k)], float(chances[k])) for k in order])
        return answers


def _grades(row: Mapping[str, str]) -> Numbers:
    count = len(items_of(row["candidates"]))
    return np.array([int(grade) for grade in items_of(row["grades"])] if "grades" in row else [0] * count, np.int64)


def _order(texts: Sequence[str]) -> list[int]:
    """The places of ``texts`` in the order of the SHA-256 of each."""
    return sorted(range(len(texts)), key=lambda k: hashlib.sha256(texts[k].encode()).digest())


def _groups(sizes: Sequence[int], order: Sequence[int], room: int) -> list[list[int]]:
    """``order`` in pieces: as many as fit into ``room`` tokens, at most MOST, at least one."""
    groups: list[list[int]] = []
    used = room
    for k in order:
        if not groups or used + sizes[k] > room or len(groups[-1]) == MOST:
            groups.append([])
            used = 0
        groups[-1].append(k)
        used += sizes[k]
    return groups


def build(spec: TaskSpec, resident: Resident) -> Task:
    """The working task for ``spec``."""
    return Ranking(resident, spec)
