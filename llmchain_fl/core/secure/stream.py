"""The mask: a long stream of words from a short key."""

from __future__ import annotations

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

from llmchain_fl.core.secure.words import Words

BLOCK = 1 << 18
"""Words at a time: 1 MB, whatever the length of the stream."""
_ZEROS = bytes(4 * BLOCK)


def add_stream(total: Words, key: bytes, sign: int = 1) -> None:
    """Add the stream of ``key`` to ``total`` in place, modulo 2**32; take it away with ``sign`` = -1.

    Stream: the keystream of AES-256 in counter mode (NIST SP 800-38A, 6.5), counter from 0, read as little-endian
    uint32. Indistinguishable from uniform words to whoever lacks the key; one key serves one stream, so no nonce is
    needed. Words are added modulo 2**32: their low bits are the sum modulo any smaller power of two.

    Args:
        total: uint32 [d], contiguous.
        key: 32 bytes, used for nothing else.
        sign: 1 or -1.
    """
    stream = Cipher(AES(key), CTR(bytes(16))).encryptor()
    buffer = bytearray(4 * BLOCK + 15)
    words = np.frombuffer(buffer, dtype="<u4", count=BLOCK)
    combine = np.add if sign > 0 else np.subtract
    for start in range(0, total.size, BLOCK):
        part = total[start : start + BLOCK]
        stream.update_into(_ZEROS[: 4 * part.size] if part.size < BLOCK else _ZEROS, buffer)
        combine(part, words[: part.size], out=part)
