"""Sums of sites and the ridge head that they decide, against all records in one place and against the definitions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from llmchain_fl.aggregation.admission import reason_of
from llmchain_fl.aggregation.closed_form import Sums, parts, solved
from llmchain_fl.aggregation.ridge import LAMBDAS, Head, Moments, fitted, from_records, sharpness
from llmchain_fl.core.errors import AdmissionError, RunError
from llmchain_fl.core.tasks.random_features import COUNTS, CROSS, GRAM, RandomFeatures, lifted

Matrix = NDArray[np.float64]
FEATURES = RandomFeatures(5, 7, 3)


def drawn(n: int, count: int = 4, seed: int = 3, width: int = 5) -> tuple[Matrix, NDArray[np.int64]]:
    draw = np.random.default_rng(seed)
    labels = np.arange(n) % count
    x = draw.normal(size=(count, width))[labels] + draw.normal(size=(n, width))
    return x / np.linalg.norm(x, axis=1, keepdims=True), labels


def texts_of(count: int, seed: int = 8, width: int = 5) -> Matrix:
    found = np.random.default_rng(seed).normal(size=(count, width))
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def sums_of(x: Matrix, labels: NDArray[np.int64], count: int, features: RandomFeatures = FEATURES) -> dict[str, Matrix]:
    """Record by record, entry by entry."""
    f, size = lifted(x, features.projection()), features.size
    gram = [sum(f[k, i] * f[k, j] for k in range(len(f))) for i in range(size) for j in range(i, size)]
    cross = [[f[labels == label, i].sum() for label in range(count)] for i in range(size)]
    return {
        GRAM: np.array(gram, dtype=np.float64).reshape(-1),
        CROSS: np.array(cross),
        COUNTS: np.array([(labels == label).sum() for label in range(count)], dtype=np.float64),
    }


def head_of(*sites: dict[str, Matrix], count: int = 4, texts: Matrix | None = None) -> Head:
    total = Sums(FEATURES, count, "v")
    for site in sites:
        total.add(site, "v")
    return solved(total, texts)


def by_hand(f: Matrix, y: Matrix, penalty: float, start: Matrix) -> tuple[Matrix, Matrix]:
    """The normal equations with a column of ones that is not penalised, of what ``start`` [D, L] leaves."""
    wide = np.hstack([f, np.ones((len(f), 1))])
    cost = penalty * np.diag([*np.ones(f.shape[1]), 0.0])
    found = np.linalg.solve(wide.T @ wide + cost, wide.T @ (y - f @ start))
    return found[:-1] + start, found[-1]


def start_of(head: Head, texts: Matrix | None) -> Matrix:
    start = np.zeros((FEATURES.size, len(head.bias)))
    if texts is not None and head.chosen is not None:
        start[: FEATURES.width] = head.chosen.pull * texts.T
    return start


@pytest.mark.parametrize("texts", [None, texts_of(4)], ids=["no texts", "texts"])
@pytest.mark.parametrize("n", [60, 9])
def test_the_head_solves_the_normal_equations_of_all_records(n: int, texts: Matrix | None) -> None:
    x, labels = drawn(n)
    head = head_of(sums_of(x, labels, 4), texts=texts)
    assert head.chosen is not None
    f, start = lifted(x, FEATURES.projection()), start_of(head, texts)
    part = parts(FEATURES)[head.chosen.features]
    weights, bias = by_hand(f[:, part], np.eye(4)[labels], head.chosen.penalty, start[part])
    np.testing.assert_allclose(head.weights[:, part].T, weights, atol=1e-8)
    np.testing.assert_allclose(head.bias, bias, atol=1e-8)
    assert not np.delete(head.weights, np.arange(FEATURES.size)[part], axis=1).any()


@pytest.mark.parametrize("n", [40, 10])
def test_every_row_of_the_table_is_the_least_of_its_criterion_by_definition(n: int) -> None:
    """GCV from the hat matrix itself: what each record's fit owes to its own label, found by fitting unit vectors."""
    (x, labels), texts = drawn(n), texts_of(4)
    f, y = lifted(x, FEATURES.projection()), np.eye(4)[labels]
    head = head_of(sums_of(x, labels, 4), texts=texts)
    assert {row.features for row in head.table} == {"x", "x and random"}
    for row in head.table:
        part = parts(FEATURES)[row.features]
        start = np.zeros((FEATURES.size, 4))
        start[:5] = row.pull * texts.T
        found = {}
        for penalty in LAMBDAS:
            weights, bias = by_hand(f[:, part], y, penalty, start[part])
            left = np.square(y - f[:, part] @ weights - bias).sum()
            hats = by_hand(f[:, part], np.eye(n), penalty, np.zeros((f[:, part].shape[1], n)))
            freedom = np.trace(f[:, part] @ hats[0] + hats[1])
            found[penalty] = (left / n / (1 - freedom / n) ** 2, freedom)
        best = min(found, key=lambda penalty: found[penalty][0])
        assert row.penalty == best
        assert (row.gcv, row.freedom) == pytest.approx(found[best], rel=1e-6)
    assert head.chosen == min(head.table, key=lambda row: row.gcv)


@settings(max_examples=25)
@given(st.integers(1, 30), st.integers(1, 5), st.integers(0, 2**31), st.booleans())
def test_any_split_over_sites_and_any_order_of_stages_gives_the_head_of_all_records(
    n: int, sites: int, seed: int, with_texts: bool
) -> None:
    draw = np.random.default_rng(seed)
    x, labels = drawn(n, seed=seed)
    owner, stage = draw.integers(sites, size=n), labels % 2
    texts = texts_of(4) if with_texts else None
    shares = [
        sums_of(x[mine], labels[mine], 4)
        for s in draw.permutation(2)
        for k in draw.permutation(sites)
        for mine in [(owner == k) & (stage == s)]
    ]
    apart, joint = head_of(*shares, texts=texts), head_of(sums_of(x, labels, 4), texts=texts)
    rows = [sorted((row.features, row.pull, row.gcv) for row in head.table) for head in (apart, joint)]
    np.testing.assert_allclose([row[2] for row in rows[0]], [row[2] for row in rows[1]], rtol=1e-5, atol=1e-9)
    if apart.chosen is not None and joint.chosen is not None and joint.chosen.gcv > 1e-9:  # else all fit: ties
        assert (apart.chosen.features, apart.chosen.pull) == (joint.chosen.features, joint.chosen.pull)
        np.testing.assert_allclose(apart.weights, joint.weights, atol=1e-5)
        np.testing.assert_allclose(apart.bias, joint.bias, atol=1e-5)


def test_labels_without_a_record_change_nothing_for_the_others_and_are_scored_by_their_text() -> None:
    (x, labels), texts = drawn(40), texts_of(6)
    few, many = head_of(sums_of(x, labels, 4), texts=texts[:4]), head_of(sums_of(x, labels, 6), count=6, texts=texts)
    np.testing.assert_allclose(many.weights[:4], few.weights, atol=1e-9)
    np.testing.assert_allclose(many.bias[:4], few.bias, atol=1e-9)
    new = np.random.default_rng(4).normal(size=(3, 5))
    scores = many.scores(lifted(new, FEATURES.projection()))
    np.testing.assert_allclose(scores[:, 4:], (new - x.mean(axis=0)) @ texts[4:].T, atol=1e-12)
    without = head_of(sums_of(x, labels, 6), count=6)
    assert not without.scores(lifted(new, FEATURES.projection()))[:, 4:].any()


def test_a_longer_label_list_goes_on_with_the_sums_so_far() -> None:
    (x, labels), texts = drawn(40), texts_of(6)
    total = Sums(FEATURES, 4, "v")
    total.add(sums_of(x, labels, 4), "v")
    wide = total.widened(6)
    later = (x[:9], np.arange(9) % 6)
    wide.add(sums_of(*later, 6), "v")
    joint = head_of(sums_of(np.vstack([x, later[0]]), np.concatenate([labels, later[1]]), 6), count=6, texts=texts)
    np.testing.assert_allclose(solved(wide, texts).weights, joint.weights, atol=1e-8)


@pytest.mark.parametrize("n", [1, 6])
def test_records_of_one_label_give_that_label_among_those_seen(n: int) -> None:
    x, _ = drawn(n)
    head = head_of(sums_of(x, np.full(n, 2), 4))
    assert (head.scores(lifted(texts_of(9), FEATURES.projection())).argmax(axis=1) == 2).all()


def test_without_a_record_the_head_is_that_of_the_label_texts() -> None:
    texts = texts_of(4)
    arrays = head_of(texts=texts).arrays(20.0)
    np.testing.assert_allclose(arrays["head.weight"][:, :5], texts, atol=1e-7)
    assert not arrays["head.weight"][:, 5:].any()
    assert not arrays["head.bias"].any()
    assert not head_of().weights.any()


def test_few_records_are_pulled_to_the_label_texts_and_many_are_not() -> None:
    texts = texts_of(20, width=24)
    features = RandomFeatures(24)
    draw = np.random.default_rng(5)

    def right(n: int, given: Matrix | None) -> tuple[float, float]:
        def records(many: int) -> tuple[Matrix, NDArray[np.int64]]:
            labels = np.arange(many) % 20
            x = texts[labels] + 0.25 * draw.normal(size=(many, 24))
            return x / np.linalg.norm(x, axis=1, keepdims=True), labels

        total = Sums(features, 20, "v")
        total.add(sums_of(*records(n), 20, features), "v")
        head, (x, labels) = solved(total, given), records(400)
        assert head.chosen is not None
        return float((head.scores(x).argmax(axis=1) == labels).mean()), head.chosen.pull

    assert right(20, texts)[1] > 0
    assert right(20, texts)[0] > right(20, None)[0] + 0.1
    assert right(2000, texts)[0] == pytest.approx(right(2000, None)[0], abs=0.05)


def test_noise_in_the_sums_is_not_taken_for_what_records_say() -> None:
    features, draw = RandomFeatures(24, 40), np.random.default_rng(6)
    x, labels = drawn(1200, 6, width=24)
    sums = sums_of(x[:600], labels[:600], 6, features)
    right = {}
    for size in (0.0, 0.5, 5.0):
        total = Sums(features, 6, "v")
        noise = {name: draw.normal(scale=size, size=value.shape) * (name != COUNTS) for name, value in sums.items()}
        total.add({name: value + noise[name] for name, value in sums.items()}, "v")
        head = solved(total)
        assert head.chosen is not None
        lowest = {view.name: view.noise for view in total.moments().views}[head.chosen.features]
        assert head.chosen.penalty >= lowest >= 0
        scores = head.scores(lifted(x[600:], features.projection()))
        right[size] = float((scores.argmax(axis=1) == labels[600:]).mean())
    assert right[0.0] > 0.8
    assert right[0.5] > right[0.0] - 0.05
    assert right[5.0] > right[0.0] - 0.25


@given(st.integers(0, 2**31), st.sampled_from([1e-30, 1.0, 1e38]))
def test_whatever_finite_sums_come_the_head_is_finite(seed: int, size: float) -> None:
    draw = np.random.default_rng(seed)
    total = Sums(FEATURES, 4, "v")
    total.add({name: draw.normal(scale=size, size=shape) for name, shape in FEATURES.shapes(4).items()}, "v")
    head = solved(total, texts_of(4))
    assert np.isfinite(head.weights).all()
    assert np.isfinite(head.bias).all()


def test_from_few_records_the_smaller_matrix_gives_the_same_head() -> None:
    for n in (8, 30):
        (x, labels), texts = drawn(n), texts_of(4)
        f, y = lifted(x, FEATURES.projection()), np.eye(4)[labels]
        centred = f - f.mean(axis=0), y - y.mean(axis=0)
        views = [from_records(name, part, *centred) for name, part in parts(FEATURES).items()]
        head = fitted(Moments(views, y.sum(axis=0), f.mean(axis=0), 5), texts)
        other = head_of(sums_of(x, labels, 4), texts=texts)
        np.testing.assert_allclose(head.weights, other.weights, atol=1e-7)
        np.testing.assert_allclose(head.bias, other.bias, atol=1e-7)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (lambda sums: {**sums, GRAM: np.zeros(4)}, "wrong-shape"),
        (lambda sums: {name: value for name, value in sums.items() if name != COUNTS}, "missing-name"),
        (lambda sums: {**sums, "more": np.zeros(4)}, "extra-name"),
        (lambda sums: {**sums, COUNTS: np.array([1.0, np.nan, 0.0, 0.0])}, "not-finite"),
        (lambda sums: {**sums, CROSS: sums[CROSS] + np.inf}, "not-finite"),
    ],
)
def test_sums_that_are_not_what_was_asked_for_are_refused_and_nothing_is_counted(wrong: Any, reason: str) -> None:
    right, total = sums_of(*drawn(6), 4), Sums(FEATURES, 4, "v")
    total.add(right, "v")
    with pytest.raises(AdmissionError) as refused:
        total.add(wrong(right), "v")
    assert reason_of(refused.value) == reason
    np.testing.assert_equal(total.state(), {"version": "v", **right})


def test_sums_of_another_version_of_the_features_are_refused() -> None:
    total = Sums(FEATURES, 4, "v")
    with pytest.raises(AdmissionError, match="another version of the features") as refused:
        total.add(sums_of(*drawn(6), 4), "w")
    assert reason_of(refused.value) == "foreign-factor"
    assert total.records == 0


def test_sums_survive_a_restart_and_only_with_the_features_they_were_made_with() -> None:
    total = Sums(FEATURES, 4, "v")
    total.add(sums_of(*drawn(30), 4), "v")
    again = Sums(FEATURES, 4, "v")
    again.load_state(total.state())
    again.add(sums_of(*drawn(8, seed=9), 4), "v")
    total.add(sums_of(*drawn(8, seed=9), 4), "v")
    np.testing.assert_equal(again.state(), total.state())
    for other in (Sums(FEATURES, 4, "w"), Sums(FEATURES, 5, "v"), Sums(RandomFeatures(5, 6, 3), 4, "v")):
        with pytest.raises(RunError, match="another version of the features"):
            other.load_state(total.state())


def test_the_arrays_give_the_same_order_of_labels_and_chances_that_fit() -> None:
    x, labels = drawn(600)
    head = head_of(sums_of(x[:200], labels[:200], 4), texts=texts_of(4))
    test_labels = labels[200:]
    f = lifted(x[200:], FEATURES.projection())
    arrays = head.arrays(20.0)
    logits = 20.0 * f @ arrays["head.weight"].T + arrays["head.bias"]
    np.testing.assert_allclose(logits, sharpness(4) * head.scores(f), atol=1e-4)

    def loss(scores: Matrix) -> float:
        shifted = scores - scores.max(axis=1, keepdims=True)
        chances = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        return float(-chances[np.arange(len(test_labels)), test_labels].mean())

    assert loss(logits) < min(loss(head.scores(f)), loss(5 * logits))
