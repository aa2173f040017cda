from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from client.local import train_round
from llmchain_fl.core.errors import PrivacyError
from llmchain_fl.core.guards import SiteGuards
from llmchain_fl.privacy.attacks.token_recovery import (
    learn_inverse,
    most_frequent,
    noise_floor,
    pursue,
    recovery,
)


def mixed(seed: int, tokens: int, rows: int, width: int = 40, size: int = 150) -> tuple[Any, Any, set[int]]:
    """(rows of unknown mixtures, dictionary, which tokens were mixed)."""
    draw = np.random.default_rng(seed)
    dictionary = draw.standard_normal((size, width))
    chosen = draw.permutation(size)[:tokens]
    return draw.standard_normal((rows, tokens)) @ dictionary[chosen], dictionary, set(chosen.tolist())


@given(st.integers(0, 10**6), st.integers(1, 20))
def test_with_as_many_rows_as_tokens_exactly_the_tokens_are_found(seed: int, tokens: int) -> None:
    rows, dictionary, truth = mixed(seed, tokens, rows=tokens)
    assert sorted(pursue(rows, dictionary, 1e-6)) == sorted(truth)


@pytest.mark.parametrize("seed", range(5))
def test_more_tokens_than_rows_are_found_too(seed: int) -> None:
    rows, dictionary, truth = mixed(seed, tokens=18, rows=12)
    assert set(pursue(rows, dictionary, 1e-6)) == truth


def test_known_tokens_come_first_and_need_no_evidence() -> None:
    rows, dictionary, truth = mixed(3, tokens=5, rows=8)
    first = next(iter(truth))
    absent = next(i for i in range(150) if i not in truth)
    found = pursue(rows, dictionary, 1e-6, [first, absent])
    assert found[:2] == (first, absent)
    assert set(found) == truth | {absent}


def test_an_update_of_zero_gives_nothing_away() -> None:
    _, dictionary, _ = mixed(1, 5, 8)
    assert pursue(np.zeros((8, 40)), dictionary, 1e-9, [7]) == (7,)


def test_rows_of_noise_alone_give_nothing_away() -> None:
    draw, (_, dictionary, _) = np.random.default_rng(4), mixed(1, 5, 8)
    for _ in range(20):
        noise = 0.3 * draw.standard_normal((24, 40))
        assert pursue(noise, dictionary, noise_floor((24, 40), 0.0, 0.3), [7]) == (7,)


def test_tokens_that_fill_the_width_are_said_to_be_unknown_instead_of_guessed() -> None:
    rows, dictionary, _ = mixed(1, tokens=60, rows=60)
    assert pursue(rows, dictionary, 1e-6, [2]) == (2,)


def test_rows_that_the_whole_vocabulary_cannot_explain_give_nothing_away() -> None:
    draw = np.random.default_rng(6)
    assert pursue(draw.standard_normal((30, 40)), draw.standard_normal((20, 40)), 1e-6, [2]) == (2,)


def test_of_two_parallel_vectors_one_is_named() -> None:
    rows, dictionary, truth = mixed(2, tokens=4, rows=6)
    twin = next(iter(truth))
    doubled = np.concatenate([dictionary, 2.0 * dictionary[twin : twin + 1]])
    found = pursue(rows, doubled, 1e-6)
    assert len(found) == 4
    assert {twin if token == 150 else token for token in found} == truth


def test_the_floor_is_above_rounding_and_below_a_gradient() -> None:
    draw = np.random.default_rng(1)
    start = draw.uniform(-0.2, 0.2, (24, 64)).astype(np.float32)
    move = (1e-5 * draw.standard_normal((24, 64))).astype(np.float32)
    rounding = ((start + move) - start).astype(np.float64) - move.astype(np.float64)
    floor = noise_floor((24, 64), 0.2)
    assert np.linalg.norm(rounding, 2) < floor < np.linalg.norm(move, 2) / 100


def bags(seed: int, examples: int, size: int = 30) -> np.ndarray:
    """Random bags of tokens; low numbers are commoner."""
    draw = np.random.default_rng(seed)
    return draw.poisson(np.linspace(1.0, 0.1, size), (examples, size))


def linear(seed: int, counts: np.ndarray, columns: int = 200) -> np.ndarray:
    """Updates that are a fixed linear map of the bags, and some unknown context."""
    mixing = np.random.default_rng(99).standard_normal((counts.shape[1], columns))
    context = np.random.default_rng(seed).standard_normal((len(counts), columns))
    return counts @ mixing + 0.2 * context


def test_a_linear_leak_is_learnt_from_public_text_and_read_on_private_text() -> None:
    public, private = bags(1, 400), bags(2, 50)
    inverse = learn_inverse(linear(1, public), public)
    guessed = inverse.guess(linear(2, private))
    assert guessed[private > 0].mean() > 0.95
    assert guessed[private == 0].mean() < 0.03


@given(st.sampled_from([0.01, 0.05, 0.2]))
def test_no_more_absent_tokens_are_guessed_than_asked_for(share: float) -> None:
    public, private = bags(3, 200), bags(4, 200)
    inverse = learn_inverse(linear(3, public), public, noise_std=30.0, false_positives=share)
    noise = 30.0 * np.random.default_rng(5).standard_normal((200, 200))
    guessed = inverse.guess(linear(4, private) + noise)
    assert guessed[private == 0].mean() == pytest.approx(share, abs=0.03)


def test_under_heavy_noise_the_guess_is_the_frequency_in_public_text() -> None:
    public, private = bags(1, 400), bags(2, 50)
    inverse = learn_inverse(linear(1, public), public, noise_std=1e5)
    seen = inverse.scores(linear(2, private) + 1e5 * np.random.default_rng(5).standard_normal((50, 200)))
    assert np.abs(seen - inverse.prior).max() < 0.02
    assert np.allclose(inverse.prior, public.mean(axis=0))


def test_told_the_noise_the_server_guesses_at_least_as_well_as_by_drawing_it_itself() -> None:
    public, private = bags(1, 400), bags(2, 200)
    noisy = linear(1, public) + 8.0 * np.random.default_rng(6).standard_normal((400, 200))
    attacked = linear(2, private) + 8.0 * np.random.default_rng(7).standard_normal((200, 200))
    recalls = []
    for inverse in (learn_inverse(linear(1, public), public, noise_std=8.0), learn_inverse(noisy, public)):
        guessed = inverse.guess(attacked)
        assert guessed[private == 0].mean() < 0.03
        recalls.append(float(guessed[private > 0].mean()))
    assert 0.999 > recalls[0] > recalls[1] > 0.2


def test_an_entry_that_never_moves_is_not_used() -> None:
    public = bags(1, 60)
    updates = linear(1, public)
    updates[:, 3] = 7.0
    inverse = learn_inverse(updates, public)
    changed = updates.copy()
    changed[:, 3] = -1e6
    assert np.array_equal(inverse.scores(changed), inverse.scores(updates))


@pytest.mark.parametrize(("updates", "counts"), [(9, 9), (20, 19), (0, 0)])
def test_too_few_or_unequal_examples_are_refused(updates: int, counts: int) -> None:
    with pytest.raises(PrivacyError, match="cannot be learnt from"):
        learn_inverse(np.ones((updates, 4)), np.ones((counts, 3)))


def test_recovery_counts_distinct_tokens_and_looks_at_rare_ones_apart() -> None:
    guessed = np.array([True, False, True, True, False, False])
    counts, common = np.array([3, 1, 0, 1, 1, 0]), np.array([True, True, False, False, False, False])
    found = recovery(guessed, counts, common)
    assert (found.recall, found.rare, found.false_positives, found.guesses) == (0.5, 0.5, 0.5, 3)
    assert np.isnan(recovery(guessed, np.array([1, 1, 0, 0, 0, 0]), common).rare)


def test_chance_spends_its_guesses_on_the_commonest_tokens() -> None:
    assert most_frequent(np.array([0.1, 3.0, 0.2, 2.0]), 2).tolist() == [False, True, False, True]
    assert not most_frequent(np.ones(4), 0).any()


class Site:
    """A site with the tiny Llama, one SGD step on each record by the real loop, and what its server sees."""

    def __init__(self, small: Any, trained: Sequence[str]) -> None:
        settings = {"trained": trained, "rank": 8, "train": {"steps": 1, "optimizer": "sgd", "momentum": 0.0}}
        self.small, self.work = small, small.work("plain-text", **settings)
        self.task = small.task("plain-text", moved=0.1, **settings)
        self.start = self.task.resident.theta.clone()
        self.size = len(self.task.resident.base.tokenizer)

    def updates(self, rows: Sequence[dict[str, str]], z: float | None = None) -> np.ndarray:
        """[records, P]: the update of each record by itself. ``z`` None: without privacy."""
        plan = None if z is None else self.small.plan(self.work, noise_multiplier=z)
        examples, resident, found = self.task.encode(rows), self.task.resident, []
        for record in range(len(rows)):
            resident.theta.copy_(self.start)
            batch = [np.array([record], dtype=np.int64)]
            train_round(self.task, examples, [batch], self.work.train, plan, SiteGuards([], {}), 0.05)
            found.append((resident.trained - self.start[: resident.trained_size]).numpy().copy())
        return np.array(found)

    def noise_std(self, z: float) -> float:
        """Of the noise on one entry of an update: lr z C / divisor."""
        return 0.05 * z / float(self.work.train.batch_size)

    def bags(self, rows: Sequence[dict[str, str]]) -> np.ndarray:
        """How often each word stands in each record; marks of beginning and end are known and not counted."""
        counts = np.array([np.bincount(ids, minlength=self.size) for ids in self.task.encode(rows).ids])
        counts[:, :3] = 0
        return counts

    def pursued(self, update: np.ndarray, noise_std: float) -> set[int]:
        """The words that ``pursue`` reads out of q, k and v of the first layer."""
        resident, place, rows = self.task.resident, 0, []
        for name in resident.trained_names:
            size = int(np.prod(resident.shapes[name]))
            if "layers.0.self_attn" in name and name.endswith("lora_A") and "o_proj" not in name:
                rows.append(update[place : place + size].reshape(resident.shapes[name]))
            place += size
        model = resident.base.module.model
        with torch.no_grad():
            vectors = model.layers[0].input_layernorm(model.embed_tokens.weight).numpy()
        stacked = np.concatenate(rows)
        floor = noise_floor(stacked.shape, float(self.start.abs().max()), noise_std)
        return set(pursue(stacked, vectors, floor, known=[1])) - {0, 1, 2}


@pytest.mark.parametrize("z", [None, 0.0])
def test_one_unnoised_step_gives_the_words_of_a_record_away_exactly_clipped_or_not(small: Any, z: float | None) -> None:
    """The attack is alive: A and B trained, as by the rule fedit. Clipping alone (z = 0) hides nothing."""
    site, rows = Site(small, ("lora_A", "lora_B")), small.rows(10, "plain-text", seed=5)
    for update, counts in zip(site.updates(rows, z), site.bags(rows), strict=True):
        assert site.pursued(update, 0.0) == set(np.flatnonzero(counts).tolist())


def test_the_same_step_of_the_private_path_gives_no_word_away(small: Any) -> None:
    """The attack is dead: same site, same records, z = 0.5; whether or not the server allows for the noise."""
    site, rows = Site(small, ("lora_A", "lora_B")), small.rows(10, "plain-text", seed=5)
    updates = site.updates(rows, 0.5)
    for std in (0.0, site.noise_std(0.5)):
        assert [site.pursued(update, std) for update in updates] == [set()] * 10


@pytest.mark.thorough
def test_lora_b_alone_gives_words_away_without_noise_and_none_with_it(small: Any) -> None:
    """By the rule ffa; recall of the guess, against as many guesses of the commonest words."""
    site = Site(small, ("lora_B",))
    public, private = small.rows(400, "plain-text", seed=1), small.rows(150, "plain-text", seed=2)
    made, known, truth = site.updates(public), site.bags(public), site.bags(private)

    def recall(seen: np.ndarray, allowed_for: float) -> tuple[float, float]:
        inverse = learn_inverse(made, known, allowed_for, false_positives=0.05)
        guessed = inverse.guess(seen)
        luck = np.array([most_frequent(inverse.prior, int(guess.sum())) for guess in guessed])
        return float(guessed[truth > 0].mean()), float(luck[truth > 0].mean())

    found, luck = recall(site.updates(private), 0.0)
    assert found > 0.8 > luck + 0.2
    noised = site.updates(private, 0.5)
    for std in (0.0, site.noise_std(0.5)):
        found, luck = recall(noised, std)
        assert found < luck + 0.15
