"""Every check of the hub, by the word that its refusal begins with.

============  =========================================================================================================
word          what is refused
============  =========================================================================================================
name          a path that leaves its folder, or a name that the layout does not know
extra         a file, a folder or an entry that the signed list does not hold
missing       a file that it does hold and that is not there
link          a link, a device, a pipe where a file should be; a folder that is a link
size          more bytes, more entries or a deeper nesting than the bound
hash          bytes that are not those that were signed
form          bytes that are not what this project writes at this place
signature     a signature that the publisher's key did not make
publisher     a key that is not trusted under this name, or of another publisher than the index says
revoked       a version that its publisher has taken back
expired       an index past its date
replay        an index, or a version of a name, older than one that was seen; two indexes of one serial
tensors       names, shapes or number types that do not fit the work description; values that are not finite
base          another base model than the adapter was made for
lineage       a parent that is not what it should be
card          a number of the card that its source does not give; a card of another version
transport     a source that cannot be read, takes too long, or answers with something else
============  =========================================================================================================
"""

from __future__ import annotations

from llmchain_fl.core.errors import ModelError
from llmchain_fl.core.printable import printable

REMEDIES: dict[str, str] = {
    "publisher": "get the key hand to hand, then: llmchain-fl hub keys trust NAME ed25519:...",
    "revoked": "pull another version: llmchain-fl hub list HUB",
    "expired": "the publisher renews it: llmchain-fl hub renew HUB",
    "replay": "ask the publisher for the present index; somebody may show an old one",
    "base": "give the base model that the adapter was made for: --base FOLDER",
    "transport": "check the address, then try again; nothing was kept",
    "card": "do not use it; ask the publisher",
}
LONGEST = 300


class HubError(ModelError):
    """A hub, an index or an adapter of one that is not used; ``check`` is its word in the table above."""

    def __init__(self, check: str, message: str) -> None:
        remedy = REMEDIES.get(check, "do not use it; pull it again, or ask the publisher")
        super().__init__(f"{check}: {printable(message)[:LONGEST]}", remedy=remedy)
        self.check = check


def refuse(check: str, message: str) -> HubError:
    """The error of one check; names that others chose come out printable, and not longer than ``LONGEST``."""
    return HubError(check, message)
