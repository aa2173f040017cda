"""Masks are a function of a row's own tokens; bits a byte count every byte of a document once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from llmchain_fl.core.errors import ConfigError, ModelError


@pytest.fixture(scope="module")
def masked(small: Any) -> Any:
    return small.task("masked-lm", windows=9)


def test_masks_follow_from_the_tokens_of_a_row_and_a_public_seed_alone(masked: Any) -> None:
    ids = np.arange(5, 25) % 20 + 5
    one, two = masked.masked(ids), masked.masked(ids.copy())
    assert [part.tolist() for part in one] == [part.tolist() for part in two]
    other = masked.masked(np.roll(ids, 1))
    assert other[1].tolist() != one[1].tolist()


def test_a_sixth_of_the_text_is_chosen_special_tokens_never_and_eight_of_ten_are_the_mask(masked: Any) -> None:
    tokenizer = masked.resident.base.tokenizer
    words = [token for token in range(len(tokenizer)) if token not in tokenizer.all_special_ids]
    draw, kinds = np.random.default_rng(1), []
    for _ in range(300):
        ids = np.array([tokenizer.cls_token_id, *draw.choice(words, size=40), tokenizer.sep_token_id])
        found, note = masked.masked(ids)
        chosen = np.flatnonzero(note >= 0)
        assert len(chosen) == 6
        assert not {0, 41} & set(chosen.tolist())
        assert np.array_equal(note[chosen], ids[chosen])
        assert np.array_equal(np.delete(found, chosen), np.delete(ids, chosen))
        kinds += ["mask" if token == tokenizer.mask_token_id else "kept" for token in found[chosen]]
    assert kinds.count("mask") / len(kinds) == pytest.approx(0.8, abs=0.04)


def test_the_loss_is_that_of_a_plain_loop_over_the_chosen_tokens_of_all_rows(masked: Any, small: Any) -> None:
    row = small.record("masked-lm", 60)
    examples = masked.encode([row])
    table = masked.resident.base.module.get_input_embeddings().weight.detach()
    losses = []
    for ids, note in zip(examples.ids, examples.notes, strict=True):
        told = torch.from_numpy(ids)[None]
        with torch.no_grad():
            hidden = masked.resident.base.module(told, torch.ones_like(told)).last_hidden_state[0]
        for place in np.flatnonzero(note >= 0):
            logits = 20.0 * F.normalize(hidden[place], dim=0) @ table.T / table.norm(dim=1).mean()
            losses.append(float(F.cross_entropy(logits, torch.tensor(note[place]))))
    assert len(examples) == 5
    assert masked.score(examples)["loss"] == pytest.approx(np.mean(losses), rel=1e-4)
    assert masked.record_scores(examples)[0] == pytest.approx(np.mean(losses), rel=1e-4)


def test_a_text_of_one_token_has_it_taken_out_and_an_empty_one_nothing(masked: Any) -> None:
    one, empty = masked.encode([{"text": "card"}]), masked.encode([{"text": ""}])
    assert (one.notes[0] >= 0).sum() == 1
    assert (empty.notes[0] >= 0).sum() == 0
    assert masked.losses(masked.forward(empty, [0])).item() == 0.0


def test_the_word_for_a_mask_is_asked_for_by_a_text_with_one(masked: Any) -> None:
    ((*_, (word, chance)),) = masked.predict(["card [MASK] lost"], top=3)
    assert isinstance(word, str)
    assert 0 < chance <= 1
    with pytest.raises(ConfigError, match=r"\[MASK\]"):
        masked.predict(["card lost"])


def test_a_base_without_a_mask_is_refused(small: Any) -> None:
    with pytest.raises(ModelError, match="no mask token"):
        small.task("masked-lm", path=str(small.bert))


# -- bits a byte -------------------------------------------------------------------------------------------------------


def test_bits_a_byte_are_all_bits_over_all_bytes_and_an_end_each(small: Any) -> None:
    task = small.task("plain-text", windows=64)
    texts = ["card lost", "card " * 60]
    examples = task.encode([{"text": text} for text in texts])
    assert examples.cut == 0
    score, tokens = (
        task.score(examples),
        [len(ids) - int(n) for ids, n in zip(examples.ids, examples.targets, strict=True)],
    )
    bits = score["loss"] * sum(tokens) / np.log(2)
    assert score["bits_per_byte"] == pytest.approx(bits / sum(len(text.encode()) + 1 for text in texts))


def test_of_a_document_that_is_cut_the_bytes_that_are_read_count(small: Any) -> None:
    task = small.task("plain-text", windows=1)
    examples = task.encode([{"text": "card " * 60}, {"text": "card"}])
    assert examples.cut == 1
    assert [int(note.sum()) for note in examples.notes] == [len(" ".join(["card"] * 14)) + 1, 5]
