"""Every check of the secure sum, by the word that its refusal begins with.

==================  ====================================================================================================
word                what is refused
==================  ====================================================================================================
signature           a message that the identity which this site's own file lists for its sender did not sign
stranger            a sender, or a name, that is not listed, not in the directory or not a neighbour
twice               a site that stands in one list twice
round               a message of another run or round
own-key             a directory without this site's key of that round, or with another one
few-peers           fewer members than this site's policy asks for; more than it allows; too few that gave shares
one-directory       a second directory in a round, or a step under another one than the shares were given under
share               a share that is missing, does not open, or is meant for somebody else
own-shares          a list of those who gave shares that leaves this site out
one-upload          a second upload in a round
upload-first        a list of survivors before this site uploaded
survivors           a survivor that this site has not masked against
few-survivors       fewer survivors than this site, or a site that it holds shares of, asks for
not-among           a list of survivors without this site, which uploaded
one-list            a second list of survivors in a round
old-round           a round before the last but one, or one whose secrets are forgotten
threshold           more colluders than so many holders of a share can stand
plan                shares that were given under another plan
one-shared-set      a survivor that has not said that it masked against the same members
confirmations       too few members that say that they were given the same list of survivors
form                bytes that are not what the sender of such a message writes
words               a vector or a width that cannot be masked or packed
store               a store or an identity that is damaged, gone or set back, or a disk that fails
==================  ====================================================================================================
"""

from __future__ import annotations

from llmchain_fl.core.errors import SecureSumError

SERVER = "the server, or somebody between, does not follow the protocol; this site takes no part in the round"
REMEDIES: dict[str, str] = {
    "signature": "compare the identities in the site files; somebody may sit between the sites",
    "stranger": "list the site's identity at all sites, or leave it out of the run",
    "few-peers": "wait for more sites, or let this site's policy ask for fewer",
    "few-survivors": "the round is void; more sites must stay until its end",
    "threshold": "let the policy assume fewer colluders, or gather more sites",
    "plan": "start all sites under the same plan",
    "words": "this is a fault of the caller",
    "store": "put back the latest state folder; the rounds that it lacks cannot be answered again",
}


def refuse(check: str, fault: str) -> SecureSumError:
    """The error of one check of the table above."""
    return SecureSumError(fault, remedy=REMEDIES.get(check, SERVER), check=check)
