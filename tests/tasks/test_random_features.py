from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchain_fl.core.tasks.random_features import RandomFeatures, features_version, lifted
from llmchain_fl.core.tasks.spec import MOST_FEATURES, TaskSpec


def test_the_projection_is_the_same_bits_on_every_machine() -> None:
    """Eight bytes a number, from the raw stream of PCG64: by hand, in integers, up to the last division."""
    key = hashlib.sha256(b"7/random features/3/4").digest()
    raw = np.random.PCG64(int.from_bytes(key[:16], "little")).random_raw(12)
    sums = [sum(int(number).to_bytes(8, "little")) - 1020 for number in raw]
    expected = np.array(sums).reshape(3, 4) / (8 * 65535 / 12 * 2) ** 0.5
    np.testing.assert_array_equal(RandomFeatures(3, 4, 7).projection(), expected.astype(np.float32))
    known = hashlib.sha256(RandomFeatures(384, 100, 1).projection().astype("<f4").tobytes()).hexdigest()
    assert known.startswith("070a6bb802983628")


def test_its_entries_are_as_those_of_a_normal_distribution() -> None:
    drawn = RandomFeatures(384, 1000).projection().astype(np.float64) * np.sqrt(1000 / 2)
    assert abs(drawn.mean()) < 0.01
    assert drawn.std() == pytest.approx(1.0, abs=0.01)
    assert (drawn**4).mean() == pytest.approx(2.85, abs=0.05)
    across = np.random.default_rng(1).normal(size=384)
    along = (across / np.linalg.norm(across)) @ drawn
    assert ((along**2).mean(), (along**4).mean()) == pytest.approx((1.0, 3.0), rel=0.25)


@pytest.mark.parametrize("other", [{"seed": 2}, {"width": 9}, {"count": 6}])
def test_another_seed_or_shape_gives_another_projection(other: dict[str, int]) -> None:
    one = RandomFeatures(8, 5, 1)
    a, b = one.projection(), replace(one, **other).projection()
    assert not np.isin(a, b[: a.shape[0], : a.shape[1]]).all()


def test_without_random_features_there_is_x_alone() -> None:
    none = RandomFeatures(4)
    assert (none.size, none.projection().shape) == (4, (4, 0))
    np.testing.assert_array_equal(lifted(np.eye(4), none.projection()), np.eye(4))
    np.testing.assert_array_equal(none.bounds(), np.ones(4))


@given(st.integers(1, 6), st.integers(0, 9), st.integers(0, 2**40))
def test_no_feature_of_a_vector_of_length_one_passes_its_bound(width: int, count: int, seed: int) -> None:
    features = RandomFeatures(width, count, seed)
    across, bounds = features.projection(), features.bounds()
    directions = np.vstack([np.eye(width), -np.eye(width), across.T.astype(np.float64)])
    lengths = np.maximum(np.linalg.norm(directions, axis=1, keepdims=True), 1e-30)
    found = lifted(directions / lengths, across)
    assert (np.abs(found) <= bounds * (1 + 1e-12)).all()
    if count:  # the direction of a column reaches the bound of its feature
        reached = np.diagonal(found[2 * width :, width:])
        np.testing.assert_allclose(reached, bounds[width:], rtol=1e-9)


def test_both_parts_have_a_length_of_about_one() -> None:
    x = np.random.default_rng(2).normal(size=(20, 384))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    random = lifted(x, RandomFeatures(384, 2000).projection())[:, 384:]
    np.testing.assert_allclose(np.linalg.norm(random, axis=1), 1.0, atol=0.12)


def test_sums_of_two_versions_of_the_features_have_two_names() -> None:
    arrays = {"a.lora_A": np.ones((2, 3), dtype=np.float32), "head.weight": np.ones((2, 3), dtype=np.float32)}
    told = ("sha256:b", arrays, "mean", 64, RandomFeatures(3, 2, 1))
    version = features_version(*told)
    assert version == features_version(*told[:1], {**arrays, "head.weight": np.zeros((1, 1), np.float32)}, *told[2:])
    changes = (
        ("sha256:c", *told[1:]),
        (told[0], {**arrays, "a.lora_A": np.zeros((2, 3), dtype=np.float32)}, *told[2:]),
        (*told[:2], "cls", *told[3:]),
        (*told[:3], 32, told[4]),
        *((*told[:4], replace(told[4], **new)) for new in ({"seed": 2}, {"count": 3}, {"width": 4})),
    )
    assert len({version, *(features_version(*changed) for changed in changes)}) == 1 + len(changes)


def test_only_a_trained_head_has_random_features_and_not_more_than_the_bound() -> None:
    spec = TaskSpec("classification", "trained", (("a", "x"),), features=MOST_FEATURES)
    assert spec.faults() == []
    assert "features" in replace(spec, head="label-text").faults()[0]
    assert replace(spec, features=MOST_FEATURES + 1).faults()
    assert replace(spec, feature_seed=-1).faults()
