"""One site's reply is one site's affair: whatever goes wrong with it is that site's refusal, never the end of a run."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from llmchain_fl.aggregation.admission import reason_of
from llmchain_fl.core.errors import AdmissionError, LlmchainError, WireError
from llmchain_fl.core.printable import printable

log = logging.getLogger("llmchain_fl")
T = TypeVar("T")


def handled(who: str, work: Callable[[], T]) -> T:
    """What ``work`` makes of a message of ``who``.

    Raises:
        LlmchainError: ours as it is; any other exception as a WireError. The log gets its type, and nothing of what it
            says: that may be text of the site's.
    """
    try:
        return work()
    except LlmchainError:
        raise
    except Exception as error:
        log.warning("a reply of %s cannot be handled: %s", printable(who), type(error).__name__)
        raise WireError("the reply cannot be handled", remedy="look at the site's log") from None


def code_of(error: LlmchainError) -> str:
    """The reason with which a reply is refused, see ``admission.REASONS`` and ``errors.CODES``."""
    return reason_of(error) if isinstance(error, AdmissionError) else error.code
