"""The audit log: who asked what, what was decided, what left, one chained JSON line each (``chain.py``).

A site has one beside its ledger (``STATE/NAME.audit``), a coordinator one in the folder of each run (``RUN/audit``). It
holds no record, no name of a person and no value of a setting: digests, code words, numbers, and the names of the run,
of sites and of groups of the ledger. Every line also says by which settings it was written (``policy``: SHA-256 of the
site file, of the run's ``config.toml``) and, at a site, how the ledger stood (``ledger``, :data:`Ledger`).

=========  ==================================================  ======================================================
type       fields                                              meaning
=========  ==================================================  ======================================================
open       format, side, name                                  whose log it is; always the first line
started    by, version                                         a process began its work
stopped    by, why                                             it ended: a code word, ``done`` or ``interrupted``
approved   by, what, sha256                                    somebody allowed it: ``code``, for example
changed    by, was                                             the settings are others than in the line before
answered   kind, run, round, task, task_bytes, work,           a site was asked, and what left it; ``before``: epsilon
           decision, reply, reply_bytes, before                before it (None: stated at another delta, or infinite)
declined   kind, run, round, task, decision, bundle     a site's executor turned a message away, or could not
                                                       answer it; no program had looked at it, or it broke
=========  ==================================================  ======================================================

``task``, ``reply``: digests of the messages (``fingerprint.py``); ``work``: SHA-256 of the work description in it, ""
where there is none; ``decision``: ``answered``, a site's code word of refusal, ``failed`` where its program broke;
of a line ``declined`` one of ``onprem/site_executor.py``, and ``bundle`` is the SHA-256 of what came with the message.

=========================================  =================================================================
case                                       outcome
=========================================  =================================================================
a torn last line                           cut off by the next one: its call had not returned
the last line is none                      :class:`PrivacyError`: nothing is added, so nothing leaves
an earlier line was changed                found by ``llmchain_fl/audit_log.py``, at each start and by whoever reads;
                                           adding a line looks at the last one only, so that a long log costs no round
the log is cut or gone                     a new one begins; what the ledger and the coordinator know tells of it
                                           (``llmchain_fl/evidence/verify.py``)
=========================================  =================================================================
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llmchain_fl.core.chain import GENESIS, checked, new_line
from llmchain_fl.core.errors import PrivacyError
from llmchain_fl.core.privacy.durable import append, disk_errors, locked, make_folder

FORMAT = 1
FILE = "audit.jsonl"

Ledger = dict[str, Any]
"""How a ledger stood: seq, head, epsilon (None: infinite), delta, unit, accountant, profiles (the sets of groups whose
largest epsilon it is), counted_peers and listed (whose noise is trusted to be there)."""
Stands = Callable[[Ledger | None], Ledger | None]
Line = tuple[str, dict[str, Any]]


class AuditLog:
    """The log of a site, or of a run's coordinator, made with its first line; several processes may share it (lock)."""

    def __init__(self, folder: Path, side: str, name: str) -> None:
        self.file, self._opening = folder / FILE, {"format": FORMAT, "side": side, "name": name}

    def enter(self, kind: str, policy: str, ledger: Stands = lambda last: last, /, **values: Any) -> None:
        """Add a line, on the disk when it returns; before it the lines that open the log or say that settings changed.

        ``ledger``: from how the ledger stood to how it stands. ``values``: the fields of ``kind``, but for ``before``.

        Raises:
            PrivacyError: the disk failed, or the end of the log cannot be trusted.
        """
        self.enter_all([(kind, values)], policy, ledger)

    def enter_all(self, entries: Sequence[Line], policy: str, ledger: Stands = lambda last: last) -> None:
        """Add several lines, (type, fields) each, by one write; see :meth:`enter`."""
        with disk_errors("the audit log"), self._end() as (size, last):
            lines: list[bytes] = []
            was, stood = (policy, None) if last is None else (last["policy"], last["ledger"])
            stands = ledger(stood)
            events: list[tuple[str, dict[str, Any], Any]] = [("open", self._opening, None)] if last is None else []
            events += [("changed", {"by": by_whom(), "was": was}, stood)] if was != policy else []
            for kind, values in entries:
                if kind == "answered":
                    values["before"] = None if last is None and stands else _before(stood, stands)
                events.append((kind, values, stands))
            seq, head = (0, GENESIS) if last is None else (int(last["seq"]), str(last["hash"]))
            for number, (name, fields, state) in enumerate(events, seq + 1):
                lines.append(new_line(number, head, name, {**fields, "policy": policy, "ledger": state}))
                head = json.loads(lines[-1])["hash"]
            append(self.file, size, b"".join(lines))

    @contextmanager
    def _end(self) -> Iterator[tuple[int, dict[str, Any] | None]]:
        """Lock the log; (bytes up to the end of the last whole line, that line)."""
        if not self.file.parent.is_dir():
            make_folder(self.file.parent)
        with locked(self.file.with_name("lock")):
            size, last = last_line(self.file)
            if last is None:
                yield 0, None
                return
            try:
                entry = checked(last)
            except (ValueError, KeyError, TypeError, RecursionError) as fault:
                raise PrivacyError(
                    f"the last line of the audit log {self.file} is none ({type(fault).__name__})",
                    remedy="move the file away and keep it: a new log begins, and nothing left the site before that",
                ) from None
            yield size, entry


def last_line(file: Path) -> tuple[int, bytes | None]:
    """(bytes up to the end of the last whole line, that line without its end); (0, None) where there is none."""
    if not file.exists():
        return 0, None
    whole, block = file.stat().st_size, 1 << 16
    with file.open("rb") as opened:
        while True:
            start = max(0, whole - block)
            opened.seek(start)
            *lines, torn = opened.read(whole - start).split(b"\n")
            if len(lines) > (start > 0):
                return whole - len(torn), lines[-1]
            if start == 0:
                return 0, None
            block *= 16


def _before(stood: Ledger | None, stands: Ledger | None) -> float | None:
    """Epsilon before a line whose ledger stands as ``stands``."""
    if stood is None:
        return 0.0
    alike = stands is None or all(stood[name] == stands[name] for name in ("delta", "unit", "accountant"))
    return stood["epsilon"] if alike else None


def by_whom() -> str:
    """Who acts: the number of the account, never its name."""
    return f"uid:{os.getuid()}"
