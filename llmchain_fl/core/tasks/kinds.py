"""The kinds of task of this project, declared: columns, base, scores, head, what a record must be. Needs no torch."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial

from llmchain_fl.core.data.lists import Listed
from llmchain_fl.core.data.turns import Turns
from llmchain_fl.core.tasks.kind import TaskKind
from llmchain_fl.core.tasks.metric import SHARE, Metric

DOCUMENT = 64
"""Rows of a document that is read to learn the language: what a site allows where its file says nothing."""
_LOSS, _PERPLEXITY = Metric("loss", "lower", "nats"), Metric("perplexity", "lower")
_ANSWER_LOSS = Metric("loss", "lower", "nats", 10.0)
_HIGH, _json = partial(Metric, better="higher"), partial(json.dumps, ensure_ascii=False)


def _ranked(candidates: list[str], query: str) -> dict[str, str]:
    return {"query": query, "candidates": _json(candidates), "grades": _json([1] + [0] * (len(candidates) - 1))}


_LANGUAGE = "llmchain_fl.core.tasks.causal_lm:build"
CLASSIFICATION = TaskKind(
    ("text", "label"),
    "encoder",
    (Metric("accuracy", "higher", SHARE, 1.0), _LOSS),
    "llmchain_fl.core.tasks.classification:build",
    head=lambda spec: len(spec.labels) if spec.head == "trained" else 0,
    pooled=True,
)
LABEL_WORDS = TaskKind(
    CLASSIFICATION.columns, "causal-lm", CLASSIFICATION.metrics, "llmchain_fl.core.tasks.label_words:build"
)
CAUSAL_LM = TaskKind(("prompt", "answer"), "causal-lm", (_ANSWER_LOSS, _PERPLEXITY), _LANGUAGE, answers=("answer",))
TOKEN_CLASSIFICATION = TaskKind(
    (Listed("tokens"), Listed("tags")),
    "encoder",
    (Metric("entity_f1", "higher", "", 1.0), _HIGH("precision"), _HIGH("recall"), _LOSS),
    "llmchain_fl.core.tasks.token_classification:build",
    head=lambda spec: 1 + 2 * len(spec.labels),
    hub="token-classification",
    names=True,
    answers=("tags",),
    windows=8,
    counts=20.0,
    fault="llmchain_fl.core.tasks.tags:fault",
    made_up=lambda words: {"tokens": _json(words.split()), "tags": _json(["O"] * len(words.split()))},
)
RELATION = TaskKind(
    ("text", "label"),
    "encoder",
    (Metric("accuracy", "higher", SHARE, 1.0), _HIGH("relation_f1"), _LOSS),
    "llmchain_fl.core.tasks.relation:build",
    head=lambda spec: len(spec.labels),
    vectors=2,
    fault="llmchain_fl.core.tasks.marked:fault",
    made_up=lambda words: {"text": f"<e1>{words or '-'}</e1> <e2>{words or '-'}</e2>"},
)
PAIR_CLASSIFICATION = TaskKind(
    ("text", "text2", "label"),
    "encoder",
    (Metric("accuracy", "higher", SHARE, 1.0), _LOSS),
    "llmchain_fl.core.tasks.pair:build",
    head=lambda spec: len(spec.labels) if spec.head == "trained" else 0,
)
MULTI_LABEL = TaskKind(
    ("text", Listed("labels")),
    "encoder",
    (Metric("micro_f1", "higher", "", 1.0), _HIGH("precision"), _HIGH("recall"), _LOSS),
    "llmchain_fl.core.tasks.multi_label:build",
    head=lambda spec: len(spec.labels),
    names=True,
    answers=("labels",),
    counts=5.0,
    fault="llmchain_fl.core.tasks.multi_label:fault",
    made_up=lambda words: {"text": words, "labels": "[]"},
)
REGRESSION = TaskKind(
    ("text", "value"),
    "encoder",
    (Metric("mae", "lower", SHARE, 1.0), Metric("rmse", "lower", "", 1.0), _HIGH("pearson"), _HIGH("spearman"), _LOSS),
    "llmchain_fl.core.tasks.regression:build",
    head=lambda spec: 1,
    answers=("value",),
    fault="llmchain_fl.core.tasks.regression:fault",
    optional=("text2",),
    made_up=lambda words: {"text": words, "value": "0.25"},
)
RANKING = TaskKind(
    ("query", Listed("candidates"), Listed("grades")),
    "encoder",
    (*(Metric(name, "higher", SHARE, 1.0) for name in ("ndcg_at_10", "mrr", "hit_at_1")), _LOSS),
    "llmchain_fl.core.tasks.ranking:build",
    head=lambda spec: 1,
    vectors=2,
    hub="text-ranking",
    answers=("grades",),
    windows=16,
    fault="llmchain_fl.core.tasks.ranking:fault",
    made_up=lambda words: _ranked(list(dict.fromkeys(["-", *words.split(), "none"])), words),
)
SPAN_QA = TaskKind(
    ("question", "context", Listed("answers"), Listed("answer_start")),
    "encoder",
    (Metric("token_f1", "higher", SHARE, 1.0), Metric("exact_match", "higher", SHARE, 1.0), _LOSS),
    "llmchain_fl.core.tasks.span_qa:build",
    head=lambda spec: 2,
    hub="question-answering",
    answers=("answers", "answer_start"),
    windows=16,
    fault="llmchain_fl.core.tasks.answers:fault",
    made_up=lambda words: {"question": words, "context": words, "answers": _json([words]), "answer_start": "[0]"},
)
SPAN_QA_OR_NONE = replace(
    SPAN_QA, build="llmchain_fl.core.tasks.span_qa:build_or_none", fault="llmchain_fl.core.tasks.answers:fault_or_none"
)
PLAIN_TEXT = TaskKind(
    ("text",),
    "causal-lm",
    (_ANSWER_LOSS, _PERPLEXITY, Metric("bits_per_byte", "lower", "bits")),
    "llmchain_fl.core.tasks.plain_text:build",
    generates=True,
    windows=DOCUMENT,
)
MASKED_LM = TaskKind(
    ("text",),
    "encoder",
    (Metric("loss", "lower", "nats", 12.0), _PERPLEXITY, _HIGH("masked_accuracy")),
    "llmchain_fl.core.tasks.masked_lm:build",
    hub="fill-mask",
    answers=(),
    windows=DOCUMENT,
)
DIALOGUE = TaskKind(
    (Turns("messages"),),
    "causal-lm",
    (_ANSWER_LOSS, _PERPLEXITY, Metric("bits_per_byte", "lower", "bits")),
    "llmchain_fl.core.tasks.dialogue:build",
    answers=(),
    windows=4,
    fault="llmchain_fl.core.tasks.chat:fault",
    asked_fault="llmchain_fl.core.tasks.chat:asked_fault",
    made_up=lambda words: {
        "messages": _json([{"role": role, "content": words or "-"} for role in ("user", "assistant") * 2])
    },
)
SUMMARISATION = TaskKind(
    ("document", "summary"),
    "generator",
    (Metric("rouge_l", "higher", SHARE, 1.0), _LOSS),
    "llmchain_fl.core.tasks.rewriting:summaries",
    answers=("summary",),
    hub="summarization",
)
TRANSLATION = TaskKind(
    ("source", "target"),
    "generator",
    (Metric("chrf", "higher", SHARE, 1.0), _HIGH("bleu"), _LOSS),
    "llmchain_fl.core.tasks.rewriting:translations",
    answers=("target",),
    hub="translation",
)
