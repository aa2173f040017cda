"""Tags of words: spans as seqeval reads them, in every scheme; decoding that fits together; counts that make F1."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from seqeval.metrics import f1_score
from seqeval.scheme import IOB2

from llmchain_fl.core.privacy.counts import f1_of
from llmchain_fl.core.tasks.tags import best_path, counts_of, fault, numbered, parts_of, spans_at, spans_of

NAMES = ("PER", "ORG")
TAGS = ["O", *[f"{prefix}-{name}" for name in NAMES for prefix in "BI"]]
SPANS = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 4), st.sampled_from(NAMES)), max_size=5)


def laid_out(told: list[tuple[int, int, str]]) -> tuple[list[tuple[int, int, str]], int]:
    """(gap before, length, name) -> spans that do not overlap, and the number of words."""
    spans, at = [], 0
    for gap, length, name in told:
        spans.append((at + gap, at + gap + length - 1, name))
        at += gap + length
    return spans, at + 1


def written(spans: list[tuple[int, int, str]], count: int, scheme: str) -> list[str]:
    tags = ["O"] * count
    for first, last, name in spans:
        one, begin, inside, end = {"IOB2": "BBII", "IOBES": "SBIE", "BILOU": "UBIL"}[scheme]
        letters = [begin, *[inside] * (last - first - 1), end] if last > first else [one]
        tags[first : last + 1] = [f"{letter}-{name}" for letter in letters]
    return tags


@pytest.mark.parametrize("scheme", ["IOB2", "IOBES", "BILOU"])
@given(told=SPANS)
def test_spans_come_back_from_each_scheme_that_tells_them_apart(scheme: str, told: list[tuple[int, int, str]]) -> None:
    spans, count = laid_out(told)
    assert spans_of(written(spans, count, scheme), NAMES) == spans


@given(SPANS)
def test_io_tags_give_the_same_spans_where_none_of_one_name_touch(told: list[tuple[int, int, str]]) -> None:
    spans, count = laid_out([(gap + 1, length, name) for gap, length, name in told])
    tags = [tag.replace("B-", "I-") for tag in written(spans, count, "IOB2")]
    assert spans_of(tags, NAMES) == spans
    assert spans_of([tag.removeprefix("I-") for tag in tags], NAMES) == spans  # a bare name is IO too


@given(SPANS)
def test_positions_are_iob2_and_come_back(told: list[tuple[int, int, str]]) -> None:
    spans, count = laid_out(told)
    tags = numbered(spans, count, NAMES)
    assert spans_at(tags, NAMES) == spans
    assert [TAGS[t] for t in tags] == written(spans, count, "IOB2")


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        (["O", "I-ORG", "I-ORG"], [(1, 2, "ORG")]),
        (["B-ORG", "I-PER"], [(0, 0, "ORG"), (1, 1, "PER")]),
        (["I-PER", "B-PER", "I-PER"], [(0, 0, "PER"), (1, 2, "PER")]),
        (["B-PER", "O", "I-PER"], [(0, 0, "PER"), (2, 2, "PER")]),
        (["E-PER", "I-PER"], [(0, 0, "PER"), (1, 1, "PER")]),
        (["B-DATE", "I-PER"], [(1, 1, "PER")]),  # a name that is not in the list is no span
        ([], []),
    ],
)
def test_each_trap_by_hand(tags: list[str], expected: list[tuple[int, int, str]]) -> None:
    assert spans_of(tags, NAMES) == expected


@given(st.lists(st.lists(st.sampled_from([*TAGS, "E-PER", "S-ORG"]), min_size=1, max_size=9), min_size=1, max_size=6))
def test_f1_over_all_records_is_seqevals(gold: list[list[str]]) -> None:
    draw = random.Random(str(gold))
    found = [[tag if draw.random() < 0.7 else draw.choice(TAGS) for tag in tags] for tags in gold]
    pairs = zip(gold, found, strict=True)
    counts = np.sum([counts_of(spans_of(a, NAMES), spans_of(b, NAMES)) for a, b in pairs], axis=0)
    assert f1_of(*counts) == pytest.approx(f1_score(gold, found, zero_division=0))


@given(st.integers(1, 5), st.integers(0, 10**6))
def test_the_decoded_tags_are_the_likeliest_that_fit_together(words: int, seed: int) -> None:
    """By trying all of them."""
    logs = np.log(np.random.default_rng(seed).dirichlet(np.ones(5), size=words))
    fits = [
        path
        for path in itertools.product(range(5), repeat=words)
        if all(t % 2 or t == 0 or b in (t, t - 1) for b, t in zip((0, *path), path, strict=False))
    ]
    best = max(fits, key=lambda path: sum(logs[i, t] for i, t in enumerate(path)))
    assert best_path(logs).tolist() == list(best)


def test_after_decoding_the_lenient_and_the_strict_reading_are_the_same() -> None:
    draw = np.random.default_rng(1)
    gold, found = [], []
    for _ in range(30):
        for where in (gold, found):
            where.append([TAGS[t] for t in best_path(np.log(draw.dirichlet(np.ones(5), size=8)))])
    lenient = f1_score(gold, found)
    assert 0 < lenient < 1
    assert f1_score(gold, found, mode="strict", scheme=IOB2) == pytest.approx(lenient)


def test_no_word_has_no_path() -> None:
    assert best_path(np.zeros((0, 5))).tolist() == []


@pytest.mark.parametrize(
    ("row", "part"),
    [
        ({"tokens": "[]", "tags": "[]"}, "no word"),
        ({"tokens": '["a", "b"]', "tags": '["O"]'}, "another number"),
        ({"tokens": '["a"]', "tags": '["O", "O"]'}, "another number"),
        ({"tokens": '["a"]', "tags": '["B-DATE"]'}, "public list"),
        ({"tokens": '["a"]', "tags": '["Q-PER"]'}, "prefix"),
        ({"tokens": '["a"]', "tags": '["b-PER"]'}, "prefix"),
        ({"tokens": '["a"]', "tags": "[1]"}, "public list"),
        ({"tokens": '["a"]', "tags": '[""]'}, "public list"),
        ({"tokens": '["a"]', "tags": '["I-"]'}, "public list"),
        ({"tokens": '["a", "b"]', "tags": '["O", "I-PER"]'}, ""),
        ({"tokens": '["a"]'}, ""),
    ],
)
def test_what_is_no_record_says_why_and_quotes_nothing(row: dict[str, str], part: str) -> None:
    found = fault(row, NAMES)
    assert part in found
    assert bool(found) is bool(part)
    assert "DATE" not in found


def test_a_tag_is_a_prefix_and_a_name_of_the_list() -> None:
    assert parts_of("B-PER", NAMES) == ("B", "PER")
    assert parts_of("PER", NAMES) == ("I", "PER")
    assert parts_of("O", NAMES) == ("", "")
    assert parts_of("PERSON", NAMES) is None
