"""One step of a secure sum beside training, as a value, and out of the records that it came in."""

from __future__ import annotations

from dataclasses import dataclass

from flwr.app import RecordDict

from llmchain_fl.core.wire import config_of, one, some


@dataclass(frozen=True)
class SecureQuery:
    """One step of a secure sum beside training. ``step``: key, shares, confirm, unmask (``client/secure_sum.py``).

    ``next_directory``: with ``unmask``, the keys of the round after: shares for it are given with the answer.
    """

    step: str
    run: str
    round: int
    work: str = ""
    directory: tuple[bytes, ...] = ()
    survivors: tuple[str, ...] = ()
    statements: tuple[bytes, ...] = ()
    confirmations: tuple[bytes, ...] = ()
    next_directory: tuple[bytes, ...] = ()


def read_secure_query(content: RecordDict) -> SecureQuery:
    """Records -> ``SecureQuery``.

    Raises:
        WireError: anything missing or of a wrong type.
    """
    config = config_of(content)
    return SecureQuery(
        one(config, "step", str),
        one(config, "run", str),
        one(config, "round", int),
        one(config, "work", str),
        some(config, "directory", bytes),
        some(config, "survivors", str),
        some(config, "statements", bytes),
        some(config, "confirmations", bytes),
        some(config, "next_directory", bytes),
    )
