from __future__ import annotations

import base64
import hashlib
import hmac

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from llmchain_fl.core.errors import PrivacyError
from llmchain_fl.core.privacy.receipt import CHARACTERS, Receipt, mark, read_receipt, write_receipt
from llmchain_fl.core.privacy.site_key import derive

SECRET = bytes(range(32))
NOTE = Receipt(7, "ab" * 32, mark("run/3"))


def test_a_receipt_comes_back_as_it_was_written() -> None:
    for note in (NOTE, Receipt(1, "00" * 32, mark("")), Receipt(2**63, "ff" * 32, mark("r" * 500))):
        assert read_receipt(SECRET, write_receipt(SECRET, note)) == note


def test_all_receipts_are_equally_long_text_without_special_characters() -> None:
    tokens = [
        write_receipt(SECRET, Receipt(seq, "ab" * 32, mark(key)))
        for seq in (1, 255, 10**9)
        for key in ("", "a", "b" * 500)
    ]
    assert {len(token) for token in tokens} == {CHARACTERS}
    assert all(token.isascii() and set(token) <= set(map(chr, range(128))) - set("+/ \n\"'") for token in tokens)


def test_two_receipts_of_one_state_share_nothing() -> None:
    tokens = [base64.urlsafe_b64decode(write_receipt(SECRET, NOTE)) for _ in range(50)]
    assert len({token[:12] for token in tokens}) == 50
    equal = [sum(a == b for a, b in zip(tokens[0], other, strict=True)) / len(other) for other in tokens[1:]]
    assert sum(equal) / len(equal) < 0.02  # 1/256 by chance


def test_nothing_of_the_state_stands_in_a_receipt() -> None:
    raw = base64.urlsafe_b64decode(write_receipt(SECRET, NOTE))
    for told in (bytes.fromhex(NOTE.head), bytes.fromhex(NOTE.sealed), (7).to_bytes(8, "big"), b"run/3"):
        assert told[-8:] not in raw


def test_another_site_cannot_read_it() -> None:
    with pytest.raises(PrivacyError, match="state folder was replaced"):
        read_receipt(bytes(32), write_receipt(SECRET, NOTE))


def test_a_receipt_that_was_changed_anywhere_is_refused() -> None:
    token = write_receipt(SECRET, NOTE)
    raw = bytearray(base64.urlsafe_b64decode(token))
    for bit in range(0, 8 * len(raw), 3):
        raw[bit // 8] ^= 1 << bit % 8
        with pytest.raises(PrivacyError, match="replaced"):
            read_receipt(SECRET, base64.urlsafe_b64encode(bytes(raw)).decode())
        raw[bit // 8] ^= 1 << bit % 8
    assert read_receipt(SECRET, base64.urlsafe_b64encode(bytes(raw)).decode()) == NOTE


@pytest.mark.parametrize("token", ["x", "x" * CHARACTERS, "ä" * CHARACTERS, "\x00", "====", "AAAA", " ", "A" * 5000])
def test_any_other_text_is_refused(token: str) -> None:
    with pytest.raises(PrivacyError, match="replaced"):
        read_receipt(SECRET, token)


def test_a_note_of_another_version_or_length_is_refused_though_its_seal_is_good() -> None:
    for plain in (b"\x02" + bytes(72), b"\x01" + bytes(71), b""):
        hidden = AESGCM(derive(SECRET, "receipt")).encrypt(bytes(12), plain, b"llmchain_fl/receipt")
        with pytest.raises(PrivacyError, match="replaced"):
            read_receipt(SECRET, base64.urlsafe_b64encode(bytes(12) + hidden).decode())


def test_the_keys_are_those_of_rfc_5869() -> None:
    extracted = hmac.digest(bytes(32), SECRET, hashlib.sha256)
    assert derive(SECRET, "receipt") == hmac.digest(extracted, b"llmchain_fl/receipt\x01", hashlib.sha256)
    assert derive(SECRET, "register") != derive(SECRET, "receipt")
