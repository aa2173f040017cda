"""All that a site keeps between the rounds of a run: a personal factor or head, what compression left out.

Each purpose has one file, ``<state>/.memory/<hash of run and purpose>.safetensors`` (0600), replaced as a whole before
the round is sealed. It holds what the round started from, what it left, and the digest of the payload that left with
it. What a round left is believed only if the ledger sealed exactly that payload: else the round will be computed again
with other noise, and what the first attempt left would be a second, unpaid view of the same records.

    before: what round t started from          after: what it left, good only if the ledger sealed that payload

====================================================================  ===============
a round n is asked for, the file is of round t                        starts from
====================================================================  ===============
no file                                                               nothing
n = t (broke off before the seal; without privacy: one round back)    before
n > t, without privacy                                                after
n > t, the ledger sealed the payload of t                             after
n > t, the ledger sealed nothing for t (nothing left the site)        before
n > t, the ledger sealed another payload for t                        nothing
n < t (the server went back by more than a round)                     nothing
a damaged file                                                        RunError
====================================================================  ===============

Values are noised already (with privacy), so what is made of them later costs nothing more.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from client.site import memory_file
from llmchain_fl.core.adapter.value import Arrays
from llmchain_fl.core.errors import RunError
from llmchain_fl.core.privacy.durable import make_folder, remove, replace

if TYPE_CHECKING:
    from client.rounds import SealOf

KEPT_RUNS = 16
"""How many files stay in a folder: those written last."""


@dataclass(frozen=True)
class Kept:
    """The file's content. ``payload``: SHA-256 of the payload that left together with ``after``."""

    round: int
    payload: str
    before: Arrays
    after: Arrays


class Memory:
    """What is kept in ``folder`` for ``purpose`` of the run ``run``."""

    def __init__(self, folder: Path, run: str, purpose: str) -> None:
        self.file = memory_file(folder, run, purpose)

    def before(self, number: int, seal_of: SealOf | None) -> Arrays:
        """What round ``number`` starts from; see the table of the module.

        Args:
            number: the round.
            seal_of: asks the ledger; None in a run without privacy.

        Raises:
            RunError: the file is damaged or cannot be read.
        """
        return believed(self.read(), number, seal_of)

    def fitting(self, number: int, seal_of: SealOf | None, shapes: Mapping[str, tuple[int, ...]]) -> Arrays:
        """The same for a round that trains arrays of these ``shapes``. Asked before the round is paid for.

        Raises:
            RunError: the file is damaged or cannot be read, or an array has another shape.
        """
        arrays = self.before(number, seal_of)
        wrong = [name for name, value in arrays.items() if shapes.get(name, value.shape) != value.shape]
        if wrong:
            raise RunError(
                f"the memory of {wrong[0]!r} has shape {arrays[wrong[0]].shape}, its update {shapes[wrong[0]]}",
                remedy="one run keeps its shapes; delete the site's .memory folder to go on without it",
            )
        return arrays

    def keep(self, number: int, payload: bytes, before: Arrays, after: Arrays) -> None:
        """Write what round ``number`` left beside ``payload``; on the disk when it returns, and not yet believed.

        Raises:
            RunError: the disk failed.
        """
        arrays = {f"before/{name}": value for name, value in before.items()}
        arrays |= {f"after/{name}": value for name, value in after.items()}
        facts = json.dumps({"round": number, "payload": hashlib.sha256(payload).hexdigest()})
        folder = self.file.parent
        try:
            make_folder(folder)
            replace(self.file, save(arrays, metadata={"memory": facts}))
            others = sorted(set(folder.glob("*.safetensors")) - {self.file}, key=lambda path: path.stat().st_mtime_ns)
            for old in others[: len(others) + 1 - KEPT_RUNS] if len(others) >= KEPT_RUNS else []:
                remove(old)
        except OSError as fault:
            raise RunError(
                f"what this site keeps between rounds cannot be written (errno {fault.errno})",
                remedy="free or repair the site's disk; nothing was sent for this round",
            ) from fault

    def read(self) -> Kept | None:
        """The file's content, None where there is none.

        Raises:
            RunError: it is damaged, or cannot be read.
        """
        if not self.file.exists():
            return None
        try:
            with safe_open(self.file, framework="numpy") as opened:
                facts = json.loads(opened.metadata()["memory"])
                arrays = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (not a dict)
            parts = (_part(arrays, "before/"), _part(arrays, "after/"))
            return Kept(int(facts["round"]), str(facts["payload"]), *parts)
        except (SafetensorError, KeyError, ValueError, TypeError, OSError) as error:
            raise RunError(
                "what this site kept of the run for itself is damaged",
                remedy=f"delete .memory/{self.file.name} in the site's state folder; what it held starts anew",
            ) from error


def believed(memory: Kept | None, number: int, seal_of: SealOf | None) -> Arrays:
    """What round ``number`` starts from; see the table of the module."""
    if memory is None or number < memory.round:
        return {}
    if number == memory.round:
        return memory.before
    sealed = memory.payload if seal_of is None else seal_of(memory.round)
    if not sealed:
        return memory.before
    return memory.after if sealed == memory.payload else {}


def _part(arrays: Arrays, prefix: str) -> Arrays:
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}
