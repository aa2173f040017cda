"""A base made from nothing: its tokenizer sees public texts alone, it is never trained under noise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

from llmchain_fl.config.read import build
from llmchain_fl.core.errors import ConfigError, DataError, LlmchainError
from llmchain_fl.new_base import MOST, Shape, new_base
from llmchain_fl.planning.scratch import MARK, check_scratch

SMALL = Shape(vocabulary=320, width=32, layers=2, positions=64)


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("texts") / "public.txt"
    words = ["account", "balance", "blocked", "transfer", "mortgage", "currency", "passport", "withdraw", "customer"]
    file.write_text("".join(f"{a} {b} the card\n" for a in words for b in words), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def decoder(texts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bases") / "decoder"
    new_base(folder, [texts], SMALL, 1)
    return folder


def told(folder: Path, **privacy: Any) -> Any:
    data = {"train": "train.jsonl", "test": "test.jsonl"}
    return build({"model": {"path": str(folder)}, "task": {"kind": "plain-text"}, "data": data, "privacy": privacy})


def test_a_decoder_is_what_transformers_reads_and_knows_every_text(decoder: Path) -> None:
    tokenizer, module = AutoTokenizer.from_pretrained(decoder), AutoModelForCausalLM.from_pretrained(decoder)
    assert module.config.vocab_size == len(tokenizer) == 320
    for text in ("card lost", "銀行のカード", "Müller 🏦"):
        assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True).strip() == text
    assert tokenizer("card")["input_ids"][0] == tokenizer.bos_token_id


def test_an_encoder_has_a_mask_and_reads_pairs(texts: Path, tmp_path: Path, small: Any) -> None:
    new_base(tmp_path / "encoder", [texts], Shape(True, 320, 32, 2, 64), 1)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "encoder")
    assert tokenizer.mask_token_id is not None
    pair = tokenizer("card", "lost")["input_ids"]
    assert pair.count(tokenizer.sep_token_id) == 2
    assert AutoModel.from_pretrained(tmp_path / "encoder").config.num_hidden_layers == 2
    task = small.task("masked-lm", path=str(tmp_path / "encoder"))
    assert task.score(task.encode([{"text": "card lost the fee"}]))["loss"] > 0


def test_the_same_seed_draws_the_same_weights(decoder: Path, texts: Path, tmp_path: Path) -> None:
    new_base(tmp_path / "again", [texts], SMALL, 1)
    new_base(tmp_path / "other", [texts], SMALL, 2)
    files = [folder / "model.safetensors" for folder in (decoder, tmp_path / "again", tmp_path / "other")]
    assert files[0].read_bytes() == files[1].read_bytes() != files[2].read_bytes()


def test_with_privacy_it_is_refused_with_the_reason_and_without_it_is_not(decoder: Path, small: Any) -> None:
    check_scratch(told(decoder))
    with pytest.raises(ConfigError, match="never trained"):
        check_scratch(told(decoder, enabled=True, epsilon=8.0))
    check_scratch(told(small.llama, enabled=True, epsilon=8.0))
    assert (decoder / MARK).is_file()


def test_training_records_of_the_run_are_no_texts_for_a_tokenizer(texts: Path, tmp_path: Path) -> None:
    link = tmp_path / "another-name.txt"
    link.symlink_to(texts)
    run = build({"task": {"kind": "plain-text"}, "data": {"train": str(texts)}})
    for file in (texts, link):
        with pytest.raises(ConfigError, match="release"):
            new_base(tmp_path / "base", [file], SMALL, 1, run)
    assert not (tmp_path / "base").exists()


@pytest.mark.parametrize(
    "shape",
    [
        Shape(vocabulary=299),
        Shape(width=33),
        Shape(width=16),
        Shape(layers=0),
        Shape(positions=8),
        Shape(vocabulary=50_000, width=1024),
    ],
)
def test_a_shape_out_of_bounds_is_refused(shape: Shape, texts: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        new_base(tmp_path / "base", [texts], shape, 1)
    assert Shape().parameters < MOST


def test_texts_that_are_none_or_too_few_are_one_error(texts: Path, decoder: Path, tmp_path: Path) -> None:
    few, latin = tmp_path / "few.txt", tmp_path / "latin.txt"
    few.write_text("card\n")
    latin.write_bytes(b"\xe4\xf6\xfc\n")
    for file in (few, latin, tmp_path / "none.txt"):
        with pytest.raises(DataError) as caught:
            new_base(tmp_path / "base", [file], SMALL, 1)
        assert caught.value.where == str(file)
    with pytest.raises(LlmchainError, match="not empty"):
        new_base(decoder, [texts], SMALL, 1)
