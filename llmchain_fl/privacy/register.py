"""Which group a person belongs to: for ever the first one that met them. Keyed hashes on the site's disk, no names.

Groups compose in parallel (``accounting.groups_epsilon``) only if nobody is in two of them. The first admission of a
person decides; under any other group that person is left out from then on.

A person stands here as HMAC-SHA256(k, id in UTF-8) with k = HKDF(site's secret, "register"); each admission writes the
hashes of those who are new, sorted, to ``members/<SHA-256 of the content>.bin``, and only then the log's ``admit`` line
that names group and digest.

===========================================  ==============================================================
case                                         result
===========================================  ==============================================================
first seen                                   True, durably
known in this group                          True, nothing is written
known in another group                       False
the same id twice in one call                the same answer twice
ids that differ in a blank or in case        different people: make ids equal where records are read
a file that is missing or not as sealed      :class:`PrivacyError` at every call of the ledger
a file that no ``admit`` line names          nobody was admitted by it (a crash); removed at the next admission
===========================================  ==============================================================

Not promised: whoever has the site's secret and a list of ids can test who is in it; the sizes of the files tell the
site's own administrators how many joined when. Nobody is ever taken out: spent budget cannot be unspent.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from llmchain_fl.errors import PrivacyError
from llmchain_fl.privacy.durable import content, remove, replace
from llmchain_fl.privacy.site_key import derive

SIZE = 32
"""Bytes of one hash."""


def hashed(secret: bytes, people: Sequence[str]) -> list[bytes]:
    """One keyed hash for each of ``people``, in their order."""
    key = derive(secret, "register")
    return [hmac.digest(key, person.encode(errors="surrogatepass"), "sha256") for person in people]


def read_members(folder: Path, sealed: Iterable[tuple[str, str]]) -> dict[bytes, str]:
    """Keyed hash -> group, of everybody admitted.

    Args:
        folder: where the files are.
        sealed: (group, digest) of each ``admit`` line.

    Raises:
        PrivacyError: a file is missing, changed, or puts somebody into a second group.
    """
    groups: dict[bytes, str] = {}
    for group, digest in sealed:
        data = _verified(folder, digest)
        for start in range(0, len(data), SIZE):
            if groups.setdefault(data[start : start + SIZE], group) != group:
                raise _damaged("puts somebody into a second group")
    return groups


def verify_members(folder: Path, sealed: Iterable[tuple[str, str]]) -> None:
    """Only the check of :func:`read_members` that every file is there and unchanged."""
    for _, digest in sealed:
        _verified(folder, digest)


def write_members(folder: Path, new: Iterable[bytes], sealed: Iterable[tuple[str, str]]) -> str:
    """Write the hashes of those who are ``new``; on the disk when it returns. Returns the digest for the log."""
    known = {_file(folder, digest) for _, digest in sealed}
    for file in set(folder.iterdir()) - known:
        remove(file)
    data = b"".join(sorted(set(new)))
    digest = hashlib.sha256(data).hexdigest()
    replace(_file(folder, digest), data)
    return digest


def admitted(groups: Mapping[bytes, str], group: str, people: Iterable[bytes]) -> tuple[list[bool], list[bytes]]:
    """(who may take part in ``group``, in their order; who of them is not registered yet)."""
    found = [(person, groups.get(person)) for person in people]
    return [known in (None, group) for _, known in found], [person for person, known in found if known is None]


def _verified(folder: Path, digest: str) -> bytes:
    data = content(_file(folder, digest))
    if data is None or hashlib.sha256(data).hexdigest() != digest:
        raise _damaged("is missing" if data is None else "has changed")
    return data


def _file(folder: Path, digest: str) -> Path:
    return folder / f"{digest}.bin"


def _damaged(how: str) -> PrivacyError:
    return PrivacyError(
        f"a file of the register of people {how}",
        remedy="restore the state folder's members/ from where it was kept: without it somebody could be counted twice",
    )
