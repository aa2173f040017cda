"""How far the log had come, in a small file outside its folder: a log that became shorter or different is noticed.

``{"head": hash of line seq, "seq": number of that line, "sha256": SHA-256 of "seq head"}``, replaced as a whole after
each append. Log first, then anchor: the anchor may lag behind a crash, it never leads.

====================================================  ========================================================
anchor                                                result
====================================================  ========================================================
names a line that the log has                         good; brought up to date if it lags
names a line that the log lacks, or has differently   refused: rolled back
gone, the log has no more than its opening line       good (a crash while the ledger was made)
gone, the log has more                                refused
there, the log is gone                                refused
not byte for byte what :func:`write_anchor` writes    refused
====================================================  ========================================================

Not promised: nothing against somebody who restores or rewrites folder and anchor together (a receipt finds that), and
no signature.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from llmchain_fl.core.errors import PrivacyError
from llmchain_fl.core.privacy.durable import content, replace

RENEW = "llmchain-fl privacy ledger SITE --renew-anchor"


@dataclass(frozen=True)
class Anchor:
    """Line ``seq`` of the log has hash ``head``."""

    seq: int
    head: str


def write_anchor(path: Path, anchor: Anchor) -> None:
    """Replace the anchor as a whole; on the disk when it returns."""
    replace(path, _encoded(anchor))


def read_anchor(path: Path) -> Anchor | None:
    """The anchor, None when there is none.

    Raises:
        PrivacyError: it is damaged.
    """
    data = content(path)
    if data is None:
        return None
    try:
        values = json.loads(data)
        anchor = Anchor(int(values["seq"]), str(values["head"]))
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        raise _damaged(path) from None
    if _encoded(anchor) != data:
        raise _damaged(path)
    return anchor


def _encoded(anchor: Anchor) -> bytes:
    digest = hashlib.sha256(f"{anchor.seq} {anchor.head}".encode(errors="surrogatepass")).hexdigest()
    return json.dumps({"head": anchor.head, "seq": anchor.seq, "sha256": digest}).encode() + b"\n"


def gone(path: Path) -> PrivacyError:
    """The anchor of a ledger in use is missing."""
    return _refused(path, "is gone")


def _damaged(path: Path) -> PrivacyError:
    return _refused(path, "is damaged")


def _refused(path: Path, how: str) -> PrivacyError:
    return PrivacyError(
        f"the ledger's anchor {path} {how}, so a ledger that was rolled back would not be noticed",
        remedy=f"restore the anchor; or, if you are sure that the ledger is the latest: {RENEW}",
    )
