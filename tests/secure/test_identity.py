from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchain_fl.core.errors import SecureSumError
from llmchain_fl.core.secure.exchange import mask_key, public_of
from llmchain_fl.core.secure.identity import (
    FIELDS,
    LONGEST,
    Body,
    Identity,
    canonical,
    make_identity,
    public_key,
    read,
    read_identity,
    unhex,
)

ME, OTHER = Identity(bytes(range(32))), Identity(bytes(32))
BODY: Body = {"run": "r", "round": 3, "site": "a", "directory": "00", "shared": "11"}


def changed(message: bytes, **values: object) -> bytes:
    told = json.loads(message)
    told["body"] |= values
    return canonical(told)


def test_an_identity_is_its_owners_alone_and_the_same_after_a_restart(tmp_path: Path) -> None:
    file = tmp_path / "identity.key"
    public = make_identity(file).public
    assert file.stat().st_mode & 0o777 == 0o600
    assert make_identity(file).public == read_identity(file).public == public
    assert public.startswith("ed25519:")
    assert len(public) == len("ed25519:") + 64


def test_an_identity_that_is_gone_or_damaged_is_refused_and_not_replaced(tmp_path: Path) -> None:
    file = tmp_path / "identity.key"
    with pytest.raises(SecureSumError, match="gone"):
        read_identity(file)
    file.write_bytes(b"short")
    with pytest.raises(SecureSumError, match="damaged"):
        make_identity(file)
    assert file.read_bytes() == b"short"


def test_a_message_comes_back_and_its_signature_holds_for_its_signer_alone() -> None:
    told = read(ME.signed("upload", BODY), "upload")
    assert told.body == BODY
    told.check(ME.public)
    with pytest.raises(SecureSumError, match="signature"):
        told.check(OTHER.public)


def test_the_same_body_is_the_same_bytes() -> None:
    turned = dict(reversed(BODY.items()))
    assert ME.signed("upload", BODY) == ME.signed("upload", turned)


@pytest.mark.parametrize("field", list(BODY))
def test_a_field_that_was_altered_breaks_the_signature(field: str) -> None:
    value: object = 4 if field == "round" else "b"
    told = read(changed(ME.signed("upload", BODY), **{field: value}), "upload")
    with pytest.raises(SecureSumError, match="signature"):
        told.check(ME.public)


def test_a_message_of_one_kind_is_none_of_another_even_with_the_same_fields() -> None:
    fields = {kind: frozenset(names.items()) for kind, names in FIELDS.items()}
    assert len(set(fields.values())) == len(fields)  # or else the next line would have to try them all
    told = json.loads(ME.signed("upload", BODY))
    told["kind"], told["body"] = "survivors", {**BODY, "survivors": "22"}
    with pytest.raises(SecureSumError, match="signature"):
        read(canonical(told), "survivors").check(ME.public)
    with pytest.raises(SecureSumError, match="form"):
        read(ME.signed("upload", BODY), "survivors")


@pytest.mark.parametrize(
    "wrong",
    [
        {"round": "3"},
        {"round": True},
        {"round": 3.0},
        {"round": -1},
        {"round": 2**53},
        {"site": ""},
        {"site": "x" * 201},
        {"run": ""},
        {"run": None},
        {"shared": ["11"]},
        {"more": 1},
    ],
    ids=str,
)
def test_a_body_of_other_fields_or_types_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(SecureSumError, match="form"):
        read(changed(ME.signed("upload", BODY), **wrong), "upload")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: b" " + data,
        lambda data: data + b"\n",
        lambda data: data.replace(b":", b": ", 1),
        lambda data: data.replace(b'"body"', b'"body":{},"body"', 1),
        lambda data: data[:-1],
        lambda data: data.replace(b'"signature":"', b'"signature":"A', 1),
        lambda data: data + b" " * LONGEST,
        lambda data: b"[" * 50_000,
        lambda data: b"\xff\xfe",
        lambda data: b"NaN",
        lambda data: b"9" * 5000,
    ],
    ids=["blank", "line end", "spaced", "key twice", "cut", "odd digits", "long", "nested", "no text", "NaN", "digits"],
)
def test_bytes_that_are_not_the_one_way_to_write_a_message_are_refused(spoil) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(SecureSumError, match="form"):
        read(spoil(ME.signed("upload", BODY)), "upload")


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
)


@given(st.binary(max_size=200) | values.map(lambda value: json.dumps(value).encode()), st.sampled_from(sorted(FIELDS)))
def test_whatever_somebody_sends_is_read_or_refused(data: bytes, kind: str) -> None:
    with pytest.raises(SecureSumError, match="form"):
        read(data, kind)


@given(values, values, values, st.sampled_from(sorted(FIELDS)))
def test_whatever_stands_in_a_message_it_is_read_or_refused(body: object, sig: object, one: object, kind: str) -> None:
    whole = dict.fromkeys(FIELDS[kind], one)
    for part in (body, whole):
        told = {"kind": kind, "body": part, "signature": sig}
        with pytest.raises(SecureSumError, match="form"):
            read(json.dumps(told, sort_keys=True, separators=(",", ":")).encode(), kind)


@pytest.mark.parametrize(
    "text", ["", "ed25519:", "ed25519:" + "G" * 64, "ed25519:" + "A" * 64, "rsa:" + "0" * 64, "0" * 64]
)
def test_what_is_no_public_identity_is_refused(text: str) -> None:
    with pytest.raises(SecureSumError, match="form"):
        public_key(text)


@pytest.mark.parametrize("text", [None, 5, "0", "0 0 ", "AB", "zz", "000", "é0"])
def test_what_are_not_the_digits_of_so_many_bytes_is_refused(text: object) -> None:
    with pytest.raises(SecureSumError, match="form"):
        unhex(text, 1)


@pytest.mark.parametrize("weak", [bytes(32), (1).to_bytes(32, "little"), (2**255 - 19).to_bytes(32, "little")])
def test_a_public_key_of_low_order_is_refused(weak: bytes) -> None:
    with pytest.raises(SecureSumError, match="form"):
        mask_key(bytes(range(32)), weak, "d", "a", "b")


def test_two_members_derive_one_key_and_others_another_one() -> None:
    a, b, c = (bytes([number] * 32) for number in (1, 2, 3))
    key = mask_key(a, public_of(b), "d", "a", "b")
    assert key == mask_key(b, public_of(a), "d", "b", "a")
    others = [mask_key(a, public_of(c), "d", "a", "b"), mask_key(a, public_of(b), "e", "a", "b")]
    assert key not in [*others, mask_key(a, public_of(b), "d", "a", "c")]
