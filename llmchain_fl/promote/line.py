"""The line of adapters that a service serves: one pointer, every version that was promoted, a chain of what happened.

::

    LINE/current.json           {"address": ..., "label": ...}: what is served; replaced as a whole
    LINE/adapters/ADDRESS/      hub folders
    LINE/verdicts/ADDRESS.json  what the gate said of each candidate, signed, passed or not
    LINE/history.jsonl          promoted, refused, rolled back: a hash-chained line each (``core/chain.py``)

The pointer is replaced after everything that it points to is on the disk, so that a crash leaves the old adapter or the
new one. A rollback touches the pointer alone.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from llmchain_fl.atomic_file import atomic_write
from llmchain_fl.chained_file import ChainedFile
from llmchain_fl.core.errors import RunError
from llmchain_fl.core.secure.identity import Identity, canonical
from llmchain_fl.hub.door import VerifiedAdapter, verified
from llmchain_fl.hub.layout import HASH
from llmchain_fl.hub.refused import refuse
from llmchain_fl.hub.signing import VERDICT, check_signature, sha256, signature
from llmchain_fl.hub.strict_json import parse_object
from llmchain_fl.hub.trust import Trust
from llmchain_fl.promote.gate import Verdict

POINTER, HISTORY = "current.json", "history.jsonl"
PROMOTED, ROLLED_BACK, REFUSED = "promoted", "rolled back", "refused"
MOST = 2**20


@dataclass(frozen=True)
class Line:
    """One line, in ``folder``."""

    folder: Path

    @property
    def current(self) -> str:
        """Address of what is served; "" before anything was promoted.

        Raises:
            HubError: form: the pointer is damaged.
        """
        file = self.folder / POINTER
        if not file.exists():
            return ""
        address = parse_object(file.read_bytes(), POINTER, MOST).get("address")
        if not isinstance(address, str) or not HASH.fullmatch(address):
            raise refuse("form", f"{file} is no pointer")
        return address

    def place(self, address: str) -> Path:
        """Where a version is."""
        return self.folder / "adapters" / address

    def served(self, trust: Trust) -> VerifiedAdapter:
        """What the pointer names, verified.

        Raises:
            RunError: nothing was promoted yet.
            HubError: it does not pass; form: another adapter stands at the address.
        """
        address = self.current
        if not address:
            raise RunError(f"nothing was promoted in {self.folder} yet", remedy="llmchain-fl promote FOLDER LINE")
        return self.adapter(address, trust)

    def adapter(self, address: str, trust: Trust) -> VerifiedAdapter:
        """A version of this line, verified.

        Raises:
            HubError: it does not pass; form: another adapter stands at the address.
        """
        adapter = verified(self.place(address), trust)
        if adapter.address != address:
            raise refuse("form", f"{self.place(address)} holds another adapter")
        return adapter

    def history(self) -> list[dict[str, Any]]:
        """What happened, verified.

        Raises:
            RunError: a line was changed, moved or taken out.
        """
        return self._told.lines()

    def keep(self, adapter: VerifiedAdapter) -> None:
        """A copy of the very bytes that were verified, at its address."""
        target = self.place(adapter.address)
        if target.exists():
            return
        draft = target.with_name(f".{adapter.address}.draft")
        shutil.rmtree(draft, ignore_errors=True)
        shutil.copytree(adapter.folder, draft)
        draft.rename(target)

    def decide(self, adapter: VerifiedAdapter, verdict: Verdict, identity: Identity, trust: Trust) -> None:
        """Write a signed verdict; of one that passed, make the candidate current.

        Raises:
            HubError: lineage: the pointer has moved since the candidate was compared; what was copied does not pass.
        """
        with self._alone():
            if verdict.passed and self.current != verdict.current:
                raise refuse("lineage", "another adapter was promoted meanwhile: compare again")
            self.write_verdict(verdict, identity)
            if verdict.passed:
                self.keep(adapter)
                self.adapter(adapter.address, trust)
                self._note(PROMOTED, adapter.address, adapter.label)
                self._point(adapter.address, adapter.label)
            else:
                self._note(REFUSED, adapter.address, adapter.label)

    def write_verdict(self, verdict: Verdict, identity: Identity) -> Path:
        """``verdicts/ADDRESS.json``: the verdict and the signature over it."""
        fields = verdict.to_dict()
        data = canonical({"verdict": _whole(fields)})
        message = json.loads(signature(identity, VERDICT, data))
        whole = {"verdict": fields, "signed_by": identity.public, "signature": message["signature"]}
        file = self.folder / "verdicts" / f"{verdict.candidate}.json"
        atomic_write(file, (json.dumps(whole, indent=1) + "\n").encode())
        return file

    def roll_back(self, trust: Trust, to: str = "") -> str:
        """Serve an ancestor again; "" is the nearest one that was promoted and was not taken back.

        Raises:
            RunError: there is none, or ``to`` is no ancestor.
            HubError: it does not pass any more.
        """
        with self._alone():
            ancestors = list(self.ancestors(trust))
            wanted = [one for one in ancestors if to in ("", one.address, one.label)]
            if not wanted:
                names = ", ".join(one.label for one in ancestors) or "there is none"
                raise RunError(f"{to or 'what is served'} has no such ancestor", remedy=f"ancestors: {names}")
            self._note(ROLLED_BACK, wanted[0].address, wanted[0].label)
            self._point(wanted[0].address, wanted[0].label)
            return wanted[0].label

    def ancestors(self, trust: Trust) -> Iterator[VerifiedAdapter]:
        """The parents of what is served that were promoted here, nearest first; those taken back are passed over."""
        promoted = {entry["address"] for entry in self.history() if entry["type"] == PROMOTED}
        address, seen = self._parent(self.current), set[str]()
        while address in promoted and address not in seen:
            seen.add(address)
            if self.revoked(address, trust) is None:
                yield self.adapter(address, trust)
            address = self._parent(address)

    def revoked(self, address: str, trust: Trust) -> str | None:
        """Why a version was taken back, if it was."""
        return next((seen.revoked[address] for seen in trust.seen.values() if address in seen.revoked), None)

    def _parent(self, address: str) -> str:
        """By the signed manifest at the address, whose hash the address is."""
        from llmchain_fl.hub.layout import MANIFEST, SIGNED, read_inside
        from llmchain_fl.hub.manifest import read_manifest

        if not address or not self.place(address).is_dir():
            return ""
        data = read_inside(self.place(address), MANIFEST, SIGNED[MANIFEST])
        return read_manifest(data).parent if sha256(data) == address else ""

    def _point(self, address: str, label: str) -> None:
        atomic_write(self.folder / POINTER, (json.dumps({"address": address, "label": label}) + "\n").encode())

    def _note(self, kind: str, address: str, label: str) -> None:
        self._told.enter(kind, address=address, label=label, before=self.current)

    @property
    def _told(self) -> ChainedFile:
        return ChainedFile(self.folder / HISTORY, "put back the file; the pointer can still be read")

    @contextmanager
    def _alone(self) -> Iterator[None]:
        for folder in (self.folder, self.folder / "adapters", self.folder / "verdicts"):
            folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder / ".lock")
        try:
            lock.acquire(timeout=10)
        except Timeout:
            raise RunError(f"another process is at work on {self.folder}", remedy="wait until it is done") from None
        try:
            yield
        finally:
            lock.release()


def check_verdict(data: bytes, public: str) -> bool:
    """Whether a signed verdict says that the candidate passed.

    Raises:
        HubError: form, signature: it is not what ``public`` signed, or its checks do not give its verdict.
    """
    tree = parse_object(data, "the verdict", MOST)
    if set(tree) != {"verdict", "signed_by", "signature"} or tree["signed_by"] != public:
        raise refuse("signature", "this verdict is signed by somebody else")
    plain = canonical({"verdict": _whole(tree["verdict"])})
    body = {"sha256": sha256(plain)}
    check_signature(canonical({"kind": VERDICT, "body": body, "signature": tree["signature"]}), VERDICT, plain, public)
    checks = tree["verdict"]["checks"]
    return bool(checks) and all(check["passed"] is True for check in checks) and tree["verdict"]["passed"] is True


def _whole(tree: Any) -> Any:
    """Numbers as their shortest decimal texts: what is signed has no two spellings."""
    if isinstance(tree, dict):
        return {key: _whole(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_whole(value) for value in tree]
    return repr(tree) if isinstance(tree, float) else tree
