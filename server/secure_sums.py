"""Secure sums over the rounds of a run: who is in the next one, its keys, the masked updates, and the opened sum.

Keys of round t + 1 come with the updates of round t, shares for it with the answers that open round t. So a round costs
two trips; a third, where so many are gone that the members confirm their list first (``core/secure/member.py`` says
why). The first round, and one whose keys were lost with too many members, begins with two trips more.

The server keeps nothing secret. Its part of a round is in the checkpoint from the first trip on: killed between the
trips it goes on at the second, and nobody has paid for nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from flwr.app import Message
from flwr.serverapp import Grid

from llmchain_fl.core.errors import CODES, LlmchainError, SecureSumError, WireError
from llmchain_fl.core.messages import SecureReply, SecureTask
from llmchain_fl.core.secure.numbers import sum_name, word_width
from llmchain_fl.core.secure.query import SecureQuery
from llmchain_fl.core.work import WorkSpec
from llmchain_fl.replies import Refusal, read_secure_reply
from llmchain_fl.requests import write_secure_query
from llmchain_fl.secure_sum import Kind, NotOpened, Opened, SecureRound
from server.handled import code_of, handled
from server.strikes import is_strike

log = logging.getLogger("llmchain_fl")
QUERY = "query.secure"
"""Message type of the steps beside training: the action ``secure`` of the ClientApp."""
SizeOf = Callable[[int], int]
"""Round -> how many numbers a site sends in it."""


class SecureSums:
    """The sums of one run, one after the other.

    Args:
        work: with a secure sum.
        run: name of the run.
        size_of: how long a site's vector is.
        seconds: how long the server waits for the answers of a trip.
    """

    def __init__(self, work: WorkSpec, run: Callable[[], str], size_of: SizeOf, seconds: float) -> None:
        self._work, self._size_of, self._seconds = work, size_of, seconds
        self._name_of_run = run
        self._bits, self._context = word_width(work), work.digest()
        self._rounds: dict[int, SecureRound] = {}
        self.outcome: dict[str, Any] = {}
        """Of a round whose updates have come and whose sum is not opened: what became of each site."""
        self.declined: dict[str, str] = {}
        """Sites that said no in a trip, or nothing: why."""

    # -- before training ------------------------------------------------------------------------------------------

    def prepare(self, grid: Grid, number: int, nodes: Mapping[str, int]) -> list[str]:
        """The sites that are in the sum of round ``number``: they have given keys and shares. ``nodes``: who is there.

        Those who came too late for the keys of this round are in the next one.
        """
        self.declined = {}
        current = self._rounds.get(number)
        if current is None or len(set(current.shared()) & set(nodes)) < max(current.floor, self._least):
            current = self._rounds[number] = self._new(number)
            self._ask(grid, "key", current, nodes, lambda _: self._query("key", number))
            directory = tuple(current.directory())
            query = self._query("shares", number, work=self._work.to_json(), directory=directory)
            self._ask(grid, "share", current, {site: nodes[site] for site in self._given(current)}, lambda _: query)
        self._rounds = {n: one for n, one in self._rounds.items() if n >= number}
        late = {site: node for site, node in nodes.items() if site not in current.shared()}
        if late:
            coming = self._rounds.setdefault(number + 1, self._new(number + 1))
            self._ask(grid, "key", coming, late, lambda _: self._query("key", number + 1))
        return [site for site in current.shared() if site in nodes]

    def why(self, site: str) -> str:
        """Why ``site`` is in no sum: its own code, if that is no fault, else ``secure``."""
        code = self.declined.get(site, "secure")
        return "secure" if code not in CODES or is_strike(code, declined=True) else code

    def task_for(self, number: int, site: str) -> SecureTask:
        """What ``site`` needs to mask its update."""
        current = self._rounds[number]
        return SecureTask(tuple(current.directory()), tuple(current.shared()), tuple(current.shares_for(site)))

    # -- after training -------------------------------------------------------------------------------------------

    def take(self, number: int, site: str, arrays: Mapping[str, Any]) -> int:
        """The masked update of ``site``, and its keys of the next round. Returns its length in bytes.

        Raises:
            WireError, SecureSumError: it must not be summed.
        """
        if set(arrays) != {"key", "sum"} or any(not _is_bytes(value) for value in arrays.values()):
            raise WireError("the reply holds no masked update", remedy="run the same version everywhere")
        upload = arrays["sum"].tobytes()
        self._rounds[number].hear("upload", site, upload)
        coming = self._rounds.setdefault(number + 1, self._new(number + 1))
        try:
            coming.hear("key", site, arrays["key"].tobytes())
        except SecureSumError as error:  # then it is not in the next round
            log.warning("%s: its keys of the next round are refused: %s", site, error.check)
        return len(upload)

    def open(self, grid: Grid, number: int, nodes: Mapping[str, int]) -> Opened | NotOpened:
        """The sum over those who uploaded, by the second trip."""
        current, coming = self._rounds[number], self._rounds.get(number + 1)
        survivors = current.survivors()
        here = {site: nodes[site] for site in survivors if site in nodes}
        if len(survivors) < max(current.floor, self._least):
            self._rounds = {}
            return NotOpened("few", tuple(sorted(set(current.shared()) - set(survivors))))
        fields: dict[str, Any] = {"survivors": tuple(survivors)}
        if current.confirms:
            self._ask(
                grid,
                "survivors",
                current,
                here,
                lambda site: self._query("confirm", number, statements=tuple(current.statements_for(site)), **fields),
            )
        fields |= {"confirmations": tuple(current.confirmations())}
        if coming is not None:
            fields |= {"next_directory": tuple(coming.directory()), "work": self._work.to_json()}
        self._ask(
            grid,
            "answer",
            current,
            here,
            lambda site: self._query("unmask", number, statements=tuple(current.statements_for(site)), **fields),
            coming,
        )
        if coming is not None:
            late = {site: nodes[site] for site in coming.waiting() if site in nodes}
            query = self._query("shares", number + 1, work=self._work.to_json(), directory=tuple(coming.directory()))
            self._ask(grid, "share", coming, late, lambda _: query)
        opened = current.opened()
        del self._rounds[number]
        return opened

    # -- state ----------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """What must survive a restart, also between the two trips of a round."""
        saved: dict[str, Any] = {"outcome": self.outcome, "context": self._context, "rounds": {}}
        for number, one in self._rounds.items():
            facts, heard = one.state()
            bytes_of = {name: np.frombuffer(data, dtype=np.uint8) for name, data in heard.items() if data}
            saved["rounds"][str(number)] = {"facts": facts, "heard": bytes_of}
        return saved

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take up what :meth:`state` gave."""
        self.outcome, self._rounds = {}, {}
        if state["context"] != self._context:
            return  # keys and shares of other work: the run was extended
        self.outcome = dict(state["outcome"])
        for number, saved in state["rounds"].items():
            one = self._rounds[int(number)] = self._new(int(number))
            one.load_state(saved["facts"], {name: value.tobytes() for name, value in saved["heard"].items()})

    def pending(self, number: int) -> bool:
        """Whether the updates of round ``number`` have come, and its sum is not opened yet."""
        return bool(self.outcome) and self.outcome.get("round") == number and number in self._rounds

    # -- one trip -------------------------------------------------------------------------------------------------

    def _run(self) -> str:
        return sum_name(self._name_of_run(), self._work)

    @property
    def _least(self) -> int:
        return self._work.secure.survivors if self._work.secure is not None else 2

    def _new(self, number: int) -> SecureRound:
        return SecureRound(self._run(), number, self._context, self._size_of(number), self._bits)

    def _given(self, current: SecureRound) -> list[str]:
        return current.members.names if current.directory() else []

    def _query(self, step: str, number: int, **more: Any) -> SecureQuery:
        return SecureQuery(step, self._run(), number, **more)

    def _ask(
        self,
        grid: Grid,
        kind: Kind,
        current: SecureRound,
        nodes: Mapping[str, int],
        query_of: Callable[[str], SecureQuery],
        coming: SecureRound | None = None,
    ) -> None:
        """One trip; whoever gives nothing that can be used has no part in what follows."""
        queries = [(site, query_of(site)) for site in sorted(nodes)]
        messages = [
            Message(write_secure_query(query), dst_node_id=nodes[site], message_type=QUERY, group_id=str(query.round))
            for site, query in queries
        ]
        sites, answered = {nodes[site]: site for site, _ in queries}, set()
        for reply in self._replies(grid, messages):
            site = sites.get(reply.metadata.src_node_id, "")
            if site and site not in answered:
                answered.add(site)
                self._hear(kind, current, site, reply, coming)
        for site in set(nodes) - answered:
            self.declined[site] = "no-answer"

    def _replies(self, grid: Grid, messages: Sequence[Message]) -> Iterable[Message]:
        return grid.send_and_receive(messages, timeout=self._seconds) if messages else ()

    def _hear(self, kind: Kind, current: SecureRound, site: str, reply: Message, coming: SecureRound | None) -> None:
        try:
            answer = handled(site, partial(_answer, reply))
            if isinstance(answer, Refusal):
                self.declined[site] = answer.code
                return
            current.hear(kind, site, answer.data)
        except LlmchainError as error:
            self.declined[site] = code_of(error)
            log.warning("%s: its part of the secure sum is refused: %s", site, error.what)
            return
        if coming is not None and answer.more:
            try:
                coming.hear("share", site, answer.more)
            except SecureSumError as error:
                log.warning("%s: its shares for the next round are refused: %s", site, error.check)


def _answer(reply: Message) -> SecureReply | Refusal:
    if reply.has_error():
        raise WireError("the site's program failed", remedy="look at the site's log")
    return read_secure_reply(reply.content)


def _is_bytes(value: object) -> bool:
    return isinstance(value, np.ndarray) and value.dtype == np.uint8 and value.ndim == 1
