"""This site's part in secure sums: the steps beside training, and the masks on what training gave.

The protocol is ``llmchain_fl/core/secure/member.py``; here it meets the site file: who the others are, how few of them
are enough, how many may be in league with the server. What must not happen twice is recorded beside the ledger's
anchor, so that a state folder that was set back does not make the site answer twice.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
import torch
from flwr.app import RecordDict
from numpy.typing import NDArray

from client import outbox
from client.site import Site
from client.training import LocalResult
from llmchain_fl.core.adapter.value import Arrays
from llmchain_fl.core.errors import SAME, LlmchainError, PrivacyError, WireError
from llmchain_fl.core.messages import SecureReply, SecureTask, TrainTask
from llmchain_fl.core.privacy.integer_noise import noised_share
from llmchain_fl.core.privacy.integers import clipped_integer_sum
from llmchain_fl.core.privacy.plan import PrivacyPlan
from llmchain_fl.core.privacy.sharing import Sharing
from llmchain_fl.core.secure.identity import make_identity
from llmchain_fl.core.secure.member import Member
from llmchain_fl.core.secure.numbers import sum_name, word_width, words_of
from llmchain_fl.core.secure.policy import Policy
from llmchain_fl.core.secure.query import SecureQuery, read_secure_query
from llmchain_fl.core.secure.store import OnceFile, SecretStore
from llmchain_fl.core.secure.words import Numbers
from llmchain_fl.core.work import SecureSpec, WorkSpec

log = logging.getLogger("llmchain_fl.client")


def member_of(site: Site, work: WorkSpec | None) -> Member:
    """This site as a member of the sums of ``work`` (None: a step that begins none).

    Colluders that its policy stands: all listed but ``counted_peers``, where noise of others is counted; else none.
    """
    settings = site.secure
    if not settings.peers:
        raise PrivacyError(
            "this site lists no other sites, so it cannot tell them from inventions of the server",
            remedy="write their identities under [secure.peers] of the site file",
        )
    secure = None if work is None else work.secure
    plan = None if work is None else work.plan
    counts = plan is not None and plan.counted(settings.counted_peers, site.listed) > 0
    policy = Policy(
        dict(settings.peers),
        settings.min_peers,
        max(0, site.listed - 1 - settings.counted_peers) if counts else 0,
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

    def masked(self, task: TrainTask, result: LocalResult, leaving: Arrays) -> Mapping[str, NDArray[np.uint8]]:
        """What leaves: the masked words, and this site's keys of the next round."""
        secure, words = self.told, words_of(self.work, *to_sum(task, self.work.plan, result, leaving))
        upload = self.member.masked(
            self.run, self.number, secure.directory, secure.shared, secure.shares, words, word_width(self.work)
        )
        key = self.member.key(self.run, self.number + 1)
        return {"key": np.frombuffer(key, dtype=np.uint8), "sum": np.frombuffer(upload, dtype=np.uint8)}


def masking(site: Site, task: TrainTask, work: WorkSpec) -> Masking:
    """This site's part in the sum of the round of ``task``; everything is checked that can be.

    Raises:
        SecureSumError: a step of the server that must not be followed (``core/secure/checks.py``).
        PrivacyError, WireError: the site takes part in no such sum, or the task lacks what it needs.
    """
    if task.secure is None:
        raise WireError("the task has no keys for its secure sum", remedy=SAME)
    word_width(work)
    secure, mask = task.secure, Masking(member_of(site, work), task.secure, sum_name(task.run, work), task.round, work)
    mask.member.shares(mask.run, task.round, secure.directory, work.digest())
    mask.member.check(mask.run, task.round, secure.directory, secure.shared, secure.shares)
    return mask


def to_sum(
    task: TrainTask, plan: PrivacyPlan | None, result: LocalResult, leaving: Arrays
) -> tuple[Numbers | None, Arrays]:
    """What is masked: integers with a share of noise, or the update as it would leave without masks.

    With shared noise and the unit ``site`` the whole update is the one unit of its sum: clipped to C as integers
    (``privacy/integers.py``), with this site's share of the noise.
    """
    update = leaving if result.direct else outbox.delta(task, leaving)
    if plan is None or not plan.is_shared or result.integers is not None:
        return result.integers, outbox.bounded(task, plan, update)
    flat = np.concatenate([update[name].ravel() for name in sorted(update)]).astype(np.float64)
    clipped_one, _ = clipped_integer_sum(torch.from_numpy(flat)[None], plan.clip_norm, plan.grid)
    sharing = Sharing.of(plan)
    return noised_share(clipped_one, sharing.box, sharing.variance), {}


def _key(site: Site, query: SecureQuery) -> SecureReply:
    return SecureReply(member_of(site, None).key(query.run, query.round))


def _shares(site: Site, query: SecureQuery) -> SecureReply:
    work = _work(site, query)
    return SecureReply(member_of(site, work).shares(query.run, query.round, query.directory, work.digest()))


def _confirm(site: Site, query: SecureQuery) -> SecureReply:
    return SecureReply(member_of(site, None).confirm(query.run, query.round, query.survivors, query.statements))


def _unmask(site: Site, query: SecureQuery) -> SecureReply:
    arguments = (query.run, query.round, query.survivors, query.statements, query.confirmations)
    return SecureReply(member_of(site, None).unmask(*arguments), _next_shares(site, query))


def _next_shares(site: Site, query: SecureQuery) -> bytes:
    """Shares for the round after; none where its directory is not to be followed, which is no fault of this round."""
    try:
        following = replace(query, round=query.round + 1, directory=query.next_directory)
        return _shares(site, following).data if query.next_directory else b""
    except LlmchainError as error:
        log.warning("%s gives no shares for the next round: %s", site.name, outbox.describe(error))
        return b""


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


def answer(site: Site, content: RecordDict) -> SecureReply:
    """One step beside training.

    Raises:
        LlmchainError: why the site takes no part in it.
    """
    query = read_secure_query(content)
    if query.step not in STEPS:
        raise WireError("there is no such step of a secure sum", remedy=SAME)
    return STEPS[query.step](site, query)
