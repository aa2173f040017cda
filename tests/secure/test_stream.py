from __future__ import annotations

import hashlib

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB

from llmchain_fl.core.secure.stream import BLOCK, add_stream

KEY = hashlib.sha256(b"a key").digest()


def by_blocks(key: bytes, count: int) -> np.ndarray:
    """Counter mode by hand: the encrypted numbers 0, 1, 2 ... of 16 bytes."""
    block = Cipher(AES(key), ECB()).encryptor()
    numbers = b"".join(number.to_bytes(16, "big") for number in range(-(-4 * count // 16)))
    return np.frombuffer(block.update(numbers), dtype="<u4")[:count]


def test_the_stream_of_the_zero_key_begins_with_the_published_answer_of_aes_256() -> None:
    total = np.zeros(4, dtype=np.uint32)
    add_stream(total, bytes(32))
    assert total.astype("<u4").tobytes().hex() == "dc95c078a2408989ad48a21492842087"


@pytest.mark.parametrize("count", [0, 1, 3, 4, 1000, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 5])
def test_the_stream_is_counter_mode_over_any_number_of_blocks(count: int) -> None:
    start = np.arange(count, dtype=np.uint32) * np.uint32(2654435761)
    total = start.copy()
    add_stream(total, KEY)
    assert np.array_equal(total, start + by_blocks(KEY, count))


@pytest.mark.parametrize("count", [5, BLOCK + 9])
def test_what_was_added_can_be_taken_away(count: int) -> None:
    total = np.full(count, 7, dtype=np.uint32)
    add_stream(total, KEY)
    assert not np.array_equal(total, np.full(count, 7))
    add_stream(total, KEY, -1)
    assert np.array_equal(total, np.full(count, 7))


def test_another_key_gives_another_stream() -> None:
    one, other = np.zeros(1000, dtype=np.uint32), np.zeros(1000, dtype=np.uint32)
    add_stream(one, KEY)
    add_stream(other, hashlib.sha256(KEY).digest())
    assert (one == other).mean() < 0.01
