"""A receipt for each answer, so that feedback can be held against what was really served, and to whom.

    receipt = HMAC-SHA256(key, JSON [tenant, adapter address, request, SHA-256(input), SHA-256(output)])

Nothing of the request is kept: input and output come back with the feedback, and the receipt says whether this tenant
was given this output for this input by this adapter. So nobody can give feedback on another tenant's answers.
"""

from __future__ import annotations

import hashlib
import hmac
import json

from llmchain_fl.serve.call import Call


class Receipts:
    """Under one key of this server."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def receipt(self, call: Call, given: str, answered: str) -> str:
        """For one text of a request."""
        return self._made(call.caller.tenant, call.served.address, call.request, given, answered)

    def holds(self, receipt: str, told: tuple[str, str, str, str, str]) -> bool:
        """Whether it was given for (tenant, address, request, input, output)."""
        return hmac.compare_digest(receipt, self._made(*told))

    def _made(self, tenant: str, address: str, request: str, given: str, answered: str) -> str:
        digests = [hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest() for text in (given, answered)]
        told = json.dumps([tenant, address, request, *digests]).encode()
        return hmac.new(self._key, told, hashlib.sha256).hexdigest()
