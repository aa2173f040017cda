"""Who attacks a hub, and how: each line of ``ATTACKS`` changes a copy of one, and says by which words it is refused.

``thief`` has the publisher's key as well: what he signs is as sound as it can be made, but for the one thing.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from llmchain_fl.core.secure.identity import Identity, canonical
from llmchain_fl.hub import layout
from llmchain_fl.hub.card import read_card
from llmchain_fl.hub.card_build import build_card
from llmchain_fl.hub.card_page import page
from llmchain_fl.hub.card_sources import Named
from llmchain_fl.hub.signing import ADAPTER, INDEX, sha256

STRANGER = Identity(b"\x07" * 32)
PICKLE = b"\x80\x04\x8c\x05posix\x94\x8c\x06system\x94\x93\x94\x8c\x02id\x94\x85\x94R\x94."


@dataclass
class Copy:
    """A copy of a hub that may be changed, and of what its puller has seen."""

    hub: Path
    own: Identity
    first: str
    second: str
    now: datetime

    @property
    def folder(self) -> Path:
        """Of the newest version, which will be pulled."""
        return self.hub / "objects" / self.second

    def write(self, name: str, data: bytes) -> None:
        (self.folder / name).write_bytes(data)

    def tree(self, name: str) -> Any:
        return json.loads((self.folder / name).read_bytes())

    def change(self, name: str, **changes: Any) -> None:
        """Some fields of a JSON file."""
        self.write(name, json.dumps({**self.tree(name), **changes}).encode())

    def thief(
        self, change: Callable[[Any], Any] | None = None, key: Identity | None = None, files: bool = True
    ) -> None:
        """Sign whatever stands in the folder, and put it into the index as the newest version."""
        signer, told = key or self.own, self.tree(layout.MANIFEST)
        names = [file for file in self.folder.rglob("*") if file.is_file()]
        kept = {file.relative_to(self.folder).as_posix(): file.read_bytes() for file in names}
        told["files"] = {n: {"sha256": sha256(d), "size": len(d)} for n, d in kept.items() if n not in layout.SIGNED}
        told["publisher"] = signer.public
        told = (change(told) if change else None) or told
        self.sign(canonical(told), signer)

    def sign(self, data: bytes, signer: Identity | None = None, kind: str = ADAPTER) -> None:
        """Bytes as the manifest of the newest version."""
        self.write(layout.MANIFEST, data)
        self.write(layout.SIGNATURE, (signer or self.own).signed(kind, {"sha256": sha256(data)}))
        was, self.second = self.folder, sha256(data)
        was.rename(self.folder)
        self.index(lambda body: body["adapters"].update(bank={"1": self.first, "2": self.second}))

    def index(self, change: Callable[[Any], Any], key: Identity | None = None, serial: int = 1) -> None:
        """Sign a changed index."""
        signer, body = key or self.own, json.loads((self.hub / "index.json").read_bytes())["body"]
        body |= {"serial": body["serial"] + serial, "publisher": signer.public}
        change(body)
        message = json.loads(signer.signed(INDEX, {"sha256": sha256(canonical(body))}))
        whole = canonical({"kind": INDEX, "body": body, "signature": message["signature"]})
        (self.hub / "index.json").write_bytes(whole)

    def card_anew(self) -> None:
        """A card and a page that fit the files, whatever these say."""
        files = {file: (self.folder / file).read_bytes() for file in layout.entries(self.folder)}
        signed = self.tree(layout.MANIFEST)
        base = signed["base"]
        named = Named(signed["name"], 2, signed["made_by"], base["name"], base["digest"], signed["parent"])
        card = build_card(files, named)
        self.write(layout.CARD, card.to_bytes())
        self.write(layout.README, page(card).encode())


def tensors(header: Any, values: bytes = b"") -> bytes:
    """A safetensors file with this header."""
    told = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(told)) + told + values


def of(shape: list[int], size: int, dtype: str = "F32", name: str = "base_model.model.a.lora_A.weight") -> Any:
    return {name: {"dtype": dtype, "shape": shape, "data_offsets": [0, size]}}


def _link(copy: Copy, name: str, target: str) -> None:
    (copy.folder / name).unlink()
    (copy.folder / name).symlink_to(target)


def _evidence_link(copy: Copy) -> None:
    (copy.folder / "evidence").rename(copy.hub / "elsewhere")
    (copy.folder / "evidence").symlink_to(copy.hub / "elsewhere")


def _object_link(copy: Copy) -> None:
    copy.folder.rename(copy.hub / "elsewhere")
    copy.folder.symlink_to(copy.hub / "elsewhere")


def _pipe(copy: Copy) -> None:
    (copy.folder / layout.WEIGHTS).unlink()
    os.mkfifo(copy.folder / layout.WEIGHTS)


def _sparse(copy: Copy, name: str) -> None:
    with (copy.folder / name).open("ab") as file:
        file.truncate(64 * layout.GIB)


def _thieves_file(name: str, data: bytes) -> Callable[[Copy], None]:
    def attack(copy: Copy) -> None:
        copy.write(name, data)
        copy.thief()

    return attack


def _thieves_json(name: str, anew: bool = False, **changes: Any) -> Callable[[Copy], None]:
    def attack(copy: Copy) -> None:
        copy.change(name, **changes)
        if anew:
            copy.card_anew()
        copy.thief()

    return attack


def _thieves_name(name: str) -> Callable[[Copy], None]:
    def attack(copy: Copy) -> None:
        copy.thief(lambda told: told["files"].update({name: {"sha256": "0" * 64, "size": 3}}))

    return attack


def _rows(copy: Copy, metric: str, value: float) -> None:
    """Raise a measurement, and make the card fit."""
    rows = [json.loads(line) for line in (copy.folder / layout.METRICS).read_text().splitlines()]
    for row in rows:
        if row["metric"] == metric and row["scope"] != "baseline":
            row["value"] = value
    copy.write(layout.METRICS, "".join(json.dumps(row) + "\n" for row in rows).encode())
    copy.card_anew()
    copy.thief()


def _nan(copy: Copy) -> None:
    data = bytearray((copy.folder / layout.WEIGHTS).read_bytes())
    data[-4:] = struct.pack("<f", float("nan"))
    copy.write(layout.WEIGHTS, bytes(data))
    copy.thief()


def _less_epsilon(copy: Copy) -> None:
    told = copy.tree(layout.PRIVACY)
    for site in told["sites"].values():
        site["epsilon"] = 0.1
    rows = [json.loads(line) for line in (copy.folder / layout.METRICS).read_text().splitlines()]
    less = [{**row, "value": 0.1} if row["metric"] == "epsilon" else row for row in rows]
    copy.write(layout.METRICS, "".join(json.dumps(row) + "\n" for row in less).encode())
    copy.write(layout.PRIVACY, json.dumps(told).encode())
    copy.card_anew()
    copy.thief()


def _card_number(copy: Copy) -> None:
    card = copy.tree(layout.CARD)
    card["privacy"]["epsilon"]["value"] /= 2
    copy.write(layout.CARD, json.dumps(card).encode())
    copy.write(layout.README, page(read_card(json.dumps(card).encode())).encode())
    copy.thief()


def _old_card(copy: Copy) -> None:
    for name in (layout.CARD, layout.README):
        copy.write(name, (copy.hub / "objects" / copy.first / name).read_bytes())


def _bare_card(copy: Copy) -> None:
    card = copy.tree(layout.CARD)
    del card["privacy"]
    copy.write(layout.CARD, json.dumps(card).encode())
    copy.thief()


def _page(copy: Copy) -> None:
    data = (copy.folder / layout.README).read_bytes()
    copy.write(layout.README, data + b"<script>alert(1)</script>\n")
    copy.thief()


def _other_version(copy: Copy) -> None:
    for name in (layout.MANIFEST, layout.SIGNATURE):
        copy.write(name, (copy.hub / "objects" / copy.first / name).read_bytes())


def _expired(copy: Copy) -> None:
    copy.now = datetime.now(UTC) + timedelta(days=91)


def _unsigned_index(copy: Copy) -> None:
    told = json.loads((copy.hub / "index.json").read_bytes())
    told["body"]["adapters"]["bank"]["3"] = "0" * 64
    (copy.hub / "index.json").write_bytes(canonical(told))


def _raw_index(data: bytes) -> Callable[[Copy], None]:
    return lambda copy: (copy.hub / "index.json").write_bytes(data) and None


def listing(**changes: Any) -> Callable[[Copy], None]:
    """The publisher's index with other adapters in it."""
    return lambda copy: copy.index(lambda body: body["adapters"].update(changes))


def dated(issued: str, expires: str) -> Callable[[Copy], None]:
    return lambda copy: copy.index(lambda body: body.update(issued=issued, expires=expires))


def _size(size: int) -> Callable[[Copy], None]:
    return lambda copy: copy.thief(lambda told: told["files"][layout.WEIGHTS].update(size=size))


def _same_serial(copy: Copy) -> None:
    copy.index(lambda body: body["adapters"].update(x={"1": "0" * 64}), serial=0)


def _flip(copy: Copy, name: str) -> None:
    data = bytearray((copy.folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    copy.write(name, bytes(data))


def _for_an_index(copy: Copy) -> None:
    copy.sign((copy.folder / layout.MANIFEST).read_bytes(), kind=INDEX)


def _loose(copy: Copy) -> None:
    copy.sign((copy.folder / layout.MANIFEST).read_bytes() + b"\n")


ATTACKS: dict[str, tuple[Callable[[Copy], Any], str]] = {
    # whoever holds the server, without a key
    "a flipped bit in the weights": (lambda c: _flip(c, layout.WEIGHTS), "hash"),
    "a flipped bit in the page": (lambda c: _flip(c, layout.README), "hash"),
    "a flipped bit in the manifest": (lambda c: _flip(c, layout.MANIFEST), "form signature size name"),
    "weights cut short": (lambda c: c.write(layout.WEIGHTS, b"\x08"), "hash"),
    "64 GiB of weights": (lambda c: _sparse(c, layout.WEIGHTS), "size"),
    "64 GiB of signature": (lambda c: _sparse(c, layout.SIGNATURE), "size"),
    "weights that are a link": (lambda c: _link(c, layout.WEIGHTS, "/dev/zero"), "link"),
    "a card that is a link to a secret": (lambda c: _link(c, layout.CARD, "/etc/passwd"), "link"),
    "evidence behind a link": (_evidence_link, "link"),
    "an object behind a link": (_object_link, "link"),
    "a pipe that never answers": (_pipe, "link"),
    "a file that is gone": (lambda c: (c.folder / layout.WORK).unlink(), "missing"),
    "a signature that is gone": (lambda c: (c.folder / layout.SIGNATURE).unlink(), "missing"),
    "a forged signature": (lambda c: _flip(c, layout.SIGNATURE), "signature form"),
    "a pickle for a signature": (lambda c: c.write(layout.SIGNATURE, PICKLE), "form"),
    "a card of the version before": (_old_card, "hash"),
    "the version before under the new address": (_other_version, "hash"),
    "an index with one line more": (_unsigned_index, "signature"),
    "an index of the past": (_expired, "expired"),
    "an index that is no JSON": (_raw_index(b"{"), "form"),
    "an index of brackets": (_raw_index(b"[" * 100_000), "form"),
    "an index nested too deep": (_raw_index(b'{"a":' * 40 + b"1" + b"}" * 40), "size"),
    "an index with a name twice": (_raw_index(b'{"body":{},"body":{}}'), "form"),
    "an index of NaN": (_raw_index(b'{"body":NaN}'), "form"),
    "an index of 17 MB": (_raw_index(b" " * (17 * layout.MIB)), "size"),
    # somebody with a key of his own
    "the whole hub signed by a stranger": (lambda c: c.index(lambda body: None, STRANGER), "publisher"),
    "a stranger's adapter in the publisher's index": (lambda c: c.thief(key=STRANGER), "publisher"),
    "a signature for something else": (_for_an_index, "signature"),
    # somebody with the publisher's key
    "a path that climbs": (_thieves_name("../../evil"), "name"),
    "an absolute path": (_thieves_name("/etc/cron.d/evil"), "name"),
    "a path with a backslash": (_thieves_name("..\\evil"), "name"),
    "a pickle by name": (_thieves_file("adapter_model.bin", PICKLE), "name"),
    "a pickle under the weights' name": (_thieves_file(layout.WEIGHTS, PICKLE), "size"),
    "a Python file": (_thieves_file("modeling.py", b"import os"), "name"),
    "a folder of its own": (_thieves_name("evidence/deep/x.json"), "name"),
    "a size that no file may have": (_size(2**50), "size"),
    "a size below the truth": (_size(8), "size"),
    "a negative size": (_size(-1), "size"),
    "NaN": (_nan, "tensors"),
    "a shape of 2^80": (_thieves_file(layout.WEIGHTS, tensors(of([2**40, 2**40], 0))), "size"),
    "a shape that overflows to 0": (_thieves_file(layout.WEIGHTS, tensors(of([2**31, 2**31, 4], 0))), "tensors"),
    "a negative shape": (_thieves_file(layout.WEIGHTS, tensors(of([-1, -1], 4), b"\0" * 4)), "form"),
    "a shape of booleans": (_thieves_file(layout.WEIGHTS, tensors(of([True, True], 4), b"\0" * 4)), "form"),
    "a header longer than the file": (_thieves_file(layout.WEIGHTS, struct.pack("<Q", 2**63)), "size"),
    "values beyond the end": (_thieves_file(layout.WEIGHTS, tensors(of([2, 2], 16), b"\0" * 4)), "tensors"),
    "half precision": (_thieves_file(layout.WEIGHTS, tensors(of([2], 4, "F16"), b"\0" * 4)), "tensors"),
    "embeddings": (_thieves_file(layout.WEIGHTS, tensors(of([1], 4, name="x.weight"), b"\0" * 4)), "tensors"),
    "another rank": (_thieves_json(layout.CONFIG, r=64), "tensors"),
    "another base in peft's configuration": (_thieves_json(layout.CONFIG, base_model_name_or_path="evil/base"), "base"),
    "a class to import": (_thieves_json(layout.CONFIG, auto_mapping={"parent_library": "os"}), "form"),
    "a work description with more in it": (_thieves_json(layout.WORK, code="evil"), "form"),
    "other arrays than the lineage names": (_thieves_json(layout.LINEAGE, content="0" * 64), "tensors"),
    "a machine's path for a base": (lambda c: c.thief(lambda t: t["base"].update(name="/home/x")), "form"),
    "a base without a digest": (lambda c: c.thief(lambda t: t["base"].update(digest="")), "form"),
    "a manifest in another spelling": (_loose, "form"),
    "a version of another number": (lambda c: c.thief(lambda t: t.update(version=7)), "hash"),
    "a version of another name": (lambda c: c.thief(lambda t: t.update(name="loans")), "hash"),
    "half the epsilon on the card": (_card_number, "card"),
    "less epsilon on card, book and rows": (_less_epsilon, "card"),
    "no sites, no epsilon": (_thieves_json(layout.PRIVACY, anew=True, sites={}), "card"),
    "a better accuracy": (lambda c: _rows(c, "accuracy", 1.0), "card"),
    "less forgetting": (lambda c: _rows(c, "forgetting", -1.0), "card"),
    "a card without privacy": (_bare_card, "card"),
    "a card of an earlier format": (_thieves_json(layout.CARD, format=0), "card"),
    "a card of another version": (_thieves_json(layout.CARD, version=1), "card"),
    "HTML on the page": (_page, "card"),
    "a statement of a megabyte": (_thieves_json(layout.STATEMENT, data="x" * 2**20), "size"),
    "measurements that are none": (_thieves_file(layout.METRICS, b"[1]\n"), "form"),
    "another index of the same serial": (_same_serial, "replay"),
    "an index without the newest version": (listing(bank={"1": "0" * 64}), "replay"),
    "an index of the future": (dated("2999-01-01T00:00:00Z", "2999-02-01T00:00:00Z"), "form"),
    "a version number that is none": (listing(bank={"01": "0" * 64}), "form"),
}  # fmt: skip
