"""``index.json``: what a publisher offers, with a serial and a date, so that an old one is of no use to anybody.

The file is ``{"body": {...}, "kind": "hub index", "signature": ...}`` in canonical JSON: the body and the signature
over it are replaced together.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from llmchain_fl.core.secure.identity import Identity, canonical
from llmchain_fl.hub.layout import HASH, MIB, is_name
from llmchain_fl.hub.manifest import Manifest, time_of, time_text
from llmchain_fl.hub.refused import refuse
from llmchain_fl.hub.signing import INDEX, check_signature, sha256, signature
from llmchain_fl.hub.strict_json import Tree, parse_canonical
from llmchain_fl.hub.trust import Seen, Trust

FILE, FORMAT, MOST = "index.json", 1, 16 * MIB
DAYS = 90
"""For how long an index holds unless it is told otherwise."""
AHEAD = timedelta(minutes=10)
"""How far a publisher's clock may be ahead."""
_FIELDS: Mapping[str, type] = {
    "format": int, "publisher": str, "serial": int, "issued": str, "expires": str, "adapters": dict, "revoked": dict,
}  # fmt: skip


@dataclass(frozen=True)
class Index:
    """What one publisher offers.

    Attributes:
        publisher: public key.
        serial: rises with every change; ``issued``, ``expires``: UTC.
        adapters: name -> version -> address.
        revoked: address -> reason.
    """

    publisher: str
    serial: int
    issued: str
    expires: str
    adapters: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    revoked: Mapping[str, str] = field(default_factory=dict)

    def newest(self, name: str) -> int:
        """The highest version of a name that was not taken back; 0: there is none."""
        held = self.adapters.get(name, {})
        return max((number for number, address in held.items() if address not in self.revoked), default=0)

    def address(self, name: str, version: int = 0) -> str:
        """Where a version is; 0: the newest.

        Raises:
            HubError: missing, revoked.
        """
        number = version or self.newest(name)
        address = self.adapters.get(name, {}).get(number)
        if address is None:
            raise refuse("missing", f"{name}@{version or 'newest'} is not in the index")
        if address in self.revoked:
            raise refuse("revoked", f"{name}@{number} was taken back: {self.revoked[address]}")
        return address

    def with_version(self, manifest: Manifest) -> Index:
        """With one more version."""
        held = {**self.adapters.get(manifest.name, {}), manifest.version: manifest.address}
        return replace(self, adapters={**self.adapters, manifest.name: held})

    def signed(self, identity: Identity, now: datetime, days: int = DAYS) -> bytes:
        """The file, with the next serial, from ``now`` on."""
        renewed = replace(
            self,
            serial=self.serial + 1,
            issued=time_text(now),
            expires=time_text(now + timedelta(days=days)),
        )
        adapters = {
            name: {str(number): address for number, address in held.items()} for name, held in renewed.adapters.items()
        }
        body = {"format": FORMAT, **vars(renewed), "adapters": adapters}
        message = json.loads(signature(identity, INDEX, canonical(body)))
        return canonical({"kind": INDEX, "body": body, "signature": message["signature"]})


def read_index(data: bytes) -> Index:
    """A signed index, its signature checked with the key that it names; :func:`accepted` says whether to use it.

    Raises:
        HubError: size, form, signature.
    """
    tree = parse_canonical(data, FILE, MOST)
    body = tree.get("body")
    if set(tree) != {"kind", "body", "signature"} or tree["kind"] != INDEX or not isinstance(body, dict):
        raise refuse("form", f"{FILE} is no index")
    if {name: type(value) for name, value in body.items()} != _FIELDS or body["format"] != FORMAT:
        raise refuse("form", f"{FILE} has other fields than an index of format {FORMAT}")
    public, plain = body["publisher"], canonical(body)
    message = canonical({"kind": INDEX, "body": {"sha256": sha256(plain)}, "signature": tree["signature"]})
    check_signature(message, INDEX, plain, public)
    times = [time_of(body[key]) for key in ("issued", "expires")]
    revoked = body["revoked"]
    sound = None not in times and 1 <= body["serial"] < 2**53
    if not sound or not all(HASH.fullmatch(one) and isinstance(why, str) for one, why in revoked.items()):
        raise refuse("form", f"{FILE} has a date, a serial or a revocation that is none")
    adapters = _adapters(body["adapters"])
    return Index(public, body["serial"], body["issued"], body["expires"], adapters, revoked)


def _adapters(tree: Tree) -> dict[str, dict[int, str]]:
    adapters: dict[str, dict[int, str]] = {}
    for name, held in tree.items():
        sound = is_name(name) and isinstance(held, dict) and held
        if not sound or not all(
            number.isascii() and number.isdecimal() and len(number) < 10 and number == str(int(number)) != "0"
            and isinstance(address, str) and HASH.fullmatch(address)
            for number, address in held.items()
        ):  # fmt: skip
            raise refuse("form", f"{FILE} lists an adapter in another way")
        adapters[name] = {int(number): address for number, address in held.items()}
    return adapters


def accepted(data: bytes, trust: Trust, now: datetime) -> tuple[Index, Seen]:
    """An index that may be used, and what is to be remembered of it.

    ==================================================================  =========
    index                                                               refused
    ==================================================================  =========
    of a publisher that is not trusted here                             publisher
    past its date                                                       expired
    issued in the future, by more than a clock may be wrong             form
    a serial below the highest that was seen                            replay
    the same serial with other content                                  replay
    without a version that was seen, or with a revocation taken back    replay
    ==================================================================  =========

    Raises:
        HubError: see the table, and :func:`read_index`.
    """
    index = read_index(data)
    name = trust.name_of(index.publisher)
    issued, expires = time_of(index.issued), time_of(index.expires)
    if expires is None or expires <= now:
        raise refuse("expired", f"the index of {name} held until {index.expires}")
    if issued is None or issued > now + AHEAD:
        raise refuse("form", f"the index of {name} is of the future: {index.issued}")
    seen, own = trust.seen_of(index.publisher), sha256(data)
    if index.serial < seen.serial:
        raise refuse("replay", f"the index of {name} has the serial {index.serial}; {seen.serial} was seen")
    if index.serial == seen.serial and own != seen.index:
        raise refuse("replay", f"two indexes of {name} with the serial {index.serial}")
    highest = {key: max(held) for key, held in index.adapters.items()}
    gone = [key for key, number in seen.versions.items() if highest.get(key, 0) < number]
    if gone or not set(seen.revoked) <= set(index.revoked):
        raise refuse("replay", f"the index of {name} lacks what an earlier one had")
    return index, Seen(index.serial, own, highest, dict(index.revoked))
