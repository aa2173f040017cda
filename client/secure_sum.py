"""This site's part in secure sums: the steps beside training, and the masks on what training gave.

The protocol is ``llmchain_fl/core/secure/member.py``; here it meets the site file: who the others are, how few of them
are enough, how many may be in league with the server. What must not happen twice is recorded beside the ledger's
anchor, so that a state folder that was set back does not make the site answer twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from client.site import Site
from llmchain_fl.core.errors import PrivacyError, WireError
from llmchain_fl.core.messages import SecureQuery, SecureReply, SecureTask, TrainTask
from llmchain_fl.core.secure.identity import make_identity
from llmchain_fl.core.secure.member import Member
from llmchain_fl.core.secure.numbers import Vectors, word_width, words_of
from llmchain_fl.core.secure.policy import Policy
from llmchain_fl.core.secure.store import OnceFile, SecretStore
from llmchain_fl.core.secure.words import Numbers
from llmchain_fl.core.work import SecureSpec, WorkSpec

SAME = "server and site must run the same version"


def member_of(site: Site, work: WorkSpec | None) -> Member:
    """This site as a member of the sums of ``work`` (None: a step that begins none).

    Colluders that its policy stands: all others but ``counted_peers``, where noise of others is counted; else none.
    """
    told = site.secure
    if not told.peers:
        raise PrivacyError(
            "this site lists no other sites, so it cannot tell them from inventions of the server",
            remedy="write their identities under [secure.peers] of the site file",
        )
    secure = None if work is None else work.secure
    shared = work is not None and work.plan is not None and work.plan.is_shared
    others = 0 if secure is None else secure.members - 1
    policy = Policy(
        dict(told.peers),
        told.min_peers,
        max(0, others - told.counted_peers) if shared and told.counted_peers else 0,
        0 if secure is None else secure.survivors,
        None if secure is None else secure.members,
    )
    record = site.anchor_file.with_name(f"{site.anchor_file.name}.once")
    store = SecretStore(site.ledger_folder.with_name(f"{site.name}.secure"))
    return Member(site.name, make_identity(site.identity_file), policy, store, OnceFile(record))


@dataclass(frozen=True)
class Masking:
    """One round of a secure sum at this site."""

    member: Member
    told: SecureTask
    run: str
    number: int
    work: WorkSpec

    @classmethod
    def of(cls, site: Site, task: TrainTask, work: WorkSpec) -> Masking | None:
        """For the round of ``task``, everything checked that can be; None where its updates are not masked.

        Raises:
            SecureSumError: a step of the server that must not be followed (``core/secure/checks.py``).
            PrivacyError, WireError: the site takes part in no such sum, or the task lacks what it needs.
        """
        if work.secure is None:
            return None
        if task.secure is None:
            raise WireError("the task has no keys for its secure sum", remedy=SAME)
        word_width(work)
        found = cls(member_of(site, work), task.secure, task.run, task.round, work)
        told = task.secure
        found.member.shares(task.run, task.round, told.directory, work.digest())
        found.member.check(task.run, task.round, told.directory, told.shared, told.shares)
        return found

    def masked(self, integers: Numbers | None, update: Vectors) -> Mapping[str, NDArray[np.uint8]]:
        """What leaves: the masked words, and this site's keys of the next round."""
        told, words = self.told, words_of(self.work, integers, update)
        upload = self.member.masked(
            self.run, self.number, told.directory, told.shared, told.shares, words, word_width(self.work)
        )
        key = self.member.key(self.run, self.number + 1)
        return {"key": np.frombuffer(key, dtype=np.uint8), "sum": np.frombuffer(upload, dtype=np.uint8)}


def _key(site: Site, query: SecureQuery) -> SecureReply:
    return SecureReply(member_of(site, None).key(query.run, query.round))


def _shares(site: Site, query: SecureQuery) -> SecureReply:
    work = _work(site, query)
    return SecureReply(member_of(site, work).shares(query.run, query.round, query.directory, work.digest()))


def _confirm(site: Site, query: SecureQuery) -> SecureReply:
    return SecureReply(member_of(site, None).confirm(query.run, query.round, query.survivors, query.statements))


def _unmask(site: Site, query: SecureQuery) -> SecureReply:
    told = (query.run, query.round, query.survivors, query.statements, query.confirmations)
    data, more = member_of(site, None).unmask(*told), b""
    if query.next_directory:
        work = _work(site, query)
        more = member_of(site, work).shares(query.run, query.round + 1, query.next_directory, work.digest())
    return SecureReply(data, more)


def _work(site: Site, query: SecureQuery) -> WorkSpec:
    """The work whose sum is begun, as the site's policy allows it.

    Raises:
        LlmchainError: it does not, or there is no sum in it.
    """
    work = WorkSpec.from_json(query.work)
    site.check(work)
    if not isinstance(work.secure, SecureSpec):
        raise WireError("the work has no secure sum", remedy=SAME)
    return work


STEPS: Mapping[str, Callable[[Site, SecureQuery], SecureReply]] = MappingProxyType(
    {"key": _key, "shares": _shares, "confirm": _confirm, "unmask": _unmask}
)
"""Step of a query -> what the site answers."""


def answer(site: Site, query: SecureQuery) -> SecureReply:
    """One step beside training.

    Raises:
        LlmchainError: why the site takes no part in it.
    """
    if query.step not in STEPS:
        raise WireError("there is no such step of a secure sum", remedy=SAME)
    return STEPS[query.step](site, query)
