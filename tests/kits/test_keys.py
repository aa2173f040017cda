"""A site's keys and its request."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from llmchain_fl.core.errors import ConfigError
from llmchain_fl.core.secure.identity import read_identity
from llmchain_fl.onprem.keys import (
    IDENTITY_KEY,
    NODE_KEY,
    fingerprint,
    make_keys,
    node_pem,
    read_keys,
    read_request,
    write_request,
)


def test_flower_takes_the_node_key_and_its_public_line(tmp_path: Path) -> None:
    from flwr.cli.supernode.register import try_load_public_key

    public = make_keys(tmp_path, "north")
    private = serialization.load_ssh_private_key((tmp_path / NODE_KEY).read_bytes(), None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)  # what flower-supernode asks
    (tmp_path / "node.pub").write_text(public.node_key)
    assert try_load_public_key(tmp_path / "node.pub") == node_pem(public.node_key)


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="ssh-keygen is not installed")
def test_openssh_finds_the_same_public_half(tmp_path: Path) -> None:
    public = make_keys(tmp_path, "north")
    told = subprocess.run(
        ["ssh-keygen", "-y", "-f", tmp_path / NODE_KEY], capture_output=True, text=True, check=True
    ).stdout
    assert told.split()[:2] == public.node_key.split()


def test_the_identity_is_one_that_a_secure_sum_reads(tmp_path: Path) -> None:
    assert make_keys(tmp_path, "north").identity == read_identity(tmp_path / IDENTITY_KEY).public


def test_keys_that_are_there_stay_and_nothing_is_made_beside_them(tmp_path: Path) -> None:
    make_keys(tmp_path, "north")
    (tmp_path / NODE_KEY).unlink()
    before = (tmp_path / IDENTITY_KEY).read_bytes()
    with pytest.raises(ConfigError, match="never written over"):
        make_keys(tmp_path, "north")
    assert not (tmp_path / NODE_KEY).exists()
    assert (tmp_path / IDENTITY_KEY).read_bytes() == before


@pytest.mark.parametrize("file", [NODE_KEY, IDENTITY_KEY])
def test_a_key_that_is_damaged_or_gone_is_told(tmp_path: Path, file: str) -> None:
    make_keys(tmp_path, "north")
    (tmp_path / file).write_bytes(b"short")
    with pytest.raises(ConfigError, match="is damaged"):
        read_keys(tmp_path, "north")
    (tmp_path / file).unlink()
    with pytest.raises(ConfigError, match="is not there"):
        read_keys(tmp_path, "north")


def test_a_request_holds_the_public_halves_and_nothing_of_the_private_ones(tmp_path: Path) -> None:
    public = make_keys(tmp_path, "north")
    file = write_request(tmp_path, "north")
    assert read_request(file) == public == read_keys(tmp_path, "north")
    node = serialization.load_ssh_private_key((tmp_path / NODE_KEY).read_bytes(), None)
    assert isinstance(node, ec.EllipticCurvePrivateKey)
    told = file.read_text()
    for secret in (
        (tmp_path / IDENTITY_KEY).read_bytes().hex(),
        f"{node.private_numbers().private_value:x}",
        "PRIVATE",
    ):
        assert secret not in told


def other_keys(told: dict[str, str], folder: Path) -> dict[str, str]:
    return vars(make_keys(folder / "other", "north")) | {key: told[key] for key in told if "signature" in key}


CHANGES: dict[str, Callable[[dict[str, str], Path], dict[str, Any]]] = {
    "another name": lambda told, _: told | {"name": "south"},
    "another node key": lambda told, folder: told | {"node_key": other_keys(told, folder)["node_key"]},
    "another identity": lambda told, folder: told | {"identity": other_keys(told, folder)["identity"]},
    "no signature": lambda told, _: told | {"node_signature": ""},
}


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_a_changed_request_is_not_signed(tmp_path: Path, change: str) -> None:
    make_keys(tmp_path, "north")
    file = write_request(tmp_path, "north")
    file.write_text(json.dumps(CHANGES[change](json.loads(file.read_text()), tmp_path)))
    with pytest.raises(ConfigError, match="has not signed"):
        read_request(file)


SHORT = ec.generate_private_key(ec.SECP256R1()).public_key()
P256 = SHORT.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()


@pytest.mark.parametrize(
    "change",
    [
        {"node_key": P256},
        {"node_key": "ssh-ed25519 AAAA"},
        {"name": "../up"},
        {"name": 3},
        {"more": "x"},
        {"identity": "ed25519:00"},
        {"identity_signature": "zz"},
    ],
    ids=lambda change: f"{min(change)} {len(str(change))}",  # never the key itself: it is another one in every process
)
def test_what_is_no_request_is_said_to_be_none(tmp_path: Path, change: dict[str, Any]) -> None:
    make_keys(tmp_path, "north")
    file = write_request(tmp_path, "north")
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(ConfigError, match="no request of a site"):
        read_request(file)


@pytest.mark.parametrize("text", ["", "[" * 100_000, "{}", "\x00", "1" * 20_000])
def test_rubbish_is_no_request(tmp_path: Path, text: str) -> None:
    (tmp_path / "file").write_text(text)
    with pytest.raises(ConfigError, match="no request of a site"):
        read_request(tmp_path / "file")


def test_the_fingerprint_changes_with_every_name_and_key_and_not_with_their_order() -> None:
    told = {"north": "ed25519:1", "south": "ed25519:2"}
    assert fingerprint(told) == fingerprint(dict(reversed(told.items())))
    others = [{**told, "north": "ed25519:3"}, {"nord": "ed25519:1", "south": "ed25519:2"}, {"north": "ed25519:1"}]
    assert len({fingerprint(one) for one in [told, *others]}) == 4
