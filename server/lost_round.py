"""Who was asked in a round that this run's process did not live to finish: they may have paid, so the book counts them.

A site that is asked again pays nothing again, for it knows the round. One that is not there any more when the round is
played anew would be missing in the server's book; the run's audit log has a line for each task before it goes out.

==================================================  ==============================
asked to train in a round that is not saved         in the book
==================================================  ==============================
answered, or nothing is known of an answer          yes
said no by a code of those who have paid nothing    no
its program failed                                  yes: it may have paid
==================================================  ==============================
"""

from __future__ import annotations

from flwr.app import MessageType

from llmchain_fl.audit_log import read_log
from llmchain_fl.core.audit import FILE
from llmchain_fl.core.errors import CODES
from llmchain_fl.run_dir import RunDir
from server.strikes import is_strike


def asked_and_not_saved(run: RunDir, name: str, done: int) -> set[str]:
    """Sites that may have paid for round ``done`` + 1 of the run ``name``.

    Raises:
        PrivacyError: the audit log was changed.
    """
    sites = set[str]()
    for line in read_log(run.audit / FILE):
        if (line.get("kind"), line.get("run"), line.get("round")) != (MessageType.TRAIN, name, done + 1):
            continue
        if line["type"] == "asked":
            sites.add(str(line["site"]))
        elif line["type"] == "received" and line["decision"] in CODES:
            sites -= set() if is_strike(str(line["decision"]), declined=True) else {str(line["site"])}
    return sites
