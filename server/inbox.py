"""The replies of one round, one after the other: each becomes the factors of a site, or that site's refusal."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from flwr.app import Message

from llmchain_fl.aggregation.admission import Schema, admit, refuse, update_norm
from llmchain_fl.aggregation.rule import Rule, SiteFactors, SiteShape
from llmchain_fl.config.schema import RunConfig
from llmchain_fl.core.adapter.value import Arrays
from llmchain_fl.core.compression.update import decode
from llmchain_fl.core.errors import LlmchainError, WireError
from llmchain_fl.core.messages import TrainTask
from llmchain_fl.core.work import WorkSpec
from llmchain_fl.planning.budget import budget
from llmchain_fl.replies import Refusal, Update, read_reply
from server.asking import Asker
from server.bound import longest
from server.central import CentralPrivacy
from server.cohort import weights
from server.handled import code_of, handled
from server.outcome import RoundOutcome
from server.sound import unsound


def update_of(reply: Message) -> Update | Refusal:
    """A site's reply to a train task, its arrays not yet looked at.

    Raises:
        WireError: its program failed, or it is no such reply.
    """
    if reply.has_error():
        raise WireError("the site's program failed", remedy="look at the site's log")
    answer = read_reply(reply.content)
    if not isinstance(answer, Update | Refusal):
        raise WireError("the site sent scores for an update", remedy="the site must run the same version")
    return answer


class Inbox:
    """Takes the replies of one round and writes in ``outcome`` what became of them.

    Args:
        config: the run.
        work: what every site must know.
        rule: what sites send.
        asker: what each site was handed.
        sites: all sites of the run, by whose names public weights are given out.
        tasks: site -> what it was told; nobody else is heard.
        number: of the round.
        central: clips at the server (privacy unit ``site``); None without.
        outcome: where it is written down.
    """

    def __init__(
        self,
        config: RunConfig,
        work: WorkSpec,
        rule: Rule,
        asker: Asker,
        sites: Collection[str],
        tasks: Mapping[str, TrainTask],
        number: int,
        central: CentralPrivacy | None,
        outcome: RoundOutcome,
    ) -> None:
        self._config, self._work, self._rule, self._asker = config, work, rule, asker
        self._weights = weights(sites, config.aggregation.weights)
        self._tasks, self._number, self._central, self._outcome = tasks, number, central, outcome
        self._bounds: dict[tuple[SiteShape, float], float] = {}
        self.receipts: dict[str, str] = {}
        """Site -> the receipt it gave, of those whose reply could be read."""

    def take(self, site: str, reply: Message) -> SiteFactors | None:
        """The site after training: what it was handed and its delta, with its public weight. None: it was refused.

        ======================================  ==============================================================
        reply                                   outcome
        ======================================  ==============================================================
        a second one of the same site           ``duplicate``; the first one counts, whatever it was
        the site's own code                     that code, and the site is in ``declined``
        an exception of any type on the way     ``wire``
        longer than ``update_bound``            ``norm``
        a product that float32 cannot hold      ``product`` (``sound.py``)
        ======================================  ==============================================================
        """
        outcome = self._outcome
        if site in outcome.admitted or site in outcome.refused:
            outcome.refused.setdefault(site, "duplicate")
            return None
        try:
            answer = handled(site, lambda: self._factors(site, reply))
        except LlmchainError as error:
            outcome.refused[site] = code_of(error)
            return None
        if isinstance(answer, Refusal):
            outcome.declined.add(site)
            outcome.refused[site] = answer.code
            return None
        norm, factors = answer
        outcome.admitted[site] = norm
        outcome.bytes_up[site] = budget(self._expected(site), self._work.codec)
        return factors

    def _factors(self, site: str, reply: Message) -> tuple[float, SiteFactors] | Refusal:
        delta = self._delta(site, reply)
        if isinstance(delta, Refusal):
            return delta
        norm = update_norm(delta)
        shape = self._asker.shapes[site]
        handed = self._asker.handed[shape]
        clipped = self._central.clipped(delta) if self._central else delta
        if self._rule.direct:
            return norm, SiteFactors(clipped, shape.scale, self._weights[site])
        trained = {name: handed[name] + value for name, value in clipped.items()}
        fault = unsound({**handed, **trained}, shape.scale)
        if fault:
            message = f"with the update of {site} its adapter is not fit to be used: {fault}"
            raise refuse("product", message, remedy="lower the site's learning rate")
        return norm, SiteFactors(trained, shape.scale, self._weights[site])

    def _delta(self, site: str, reply: Message) -> Arrays | Refusal:
        """The delta of one reply, or the site's own code for why there is none.

        Raises:
            AdmissionError, WireError: it must not be summed.
        """
        answer = update_of(reply)
        if isinstance(answer, Refusal):
            return answer
        self.receipts[site] = answer.receipt
        expected, codec = self._expected(site), self._work.codec
        arrays = answer.arrays if codec.name == "none" else decode(answer.arrays, expected, codec, site)
        return admit(
            arrays,
            Schema(expected, max_norm=self.bound(site)),
            site=site,
            reply_round=answer.round,
            open_round=self._number,
            answered=self._outcome.admitted,
        )

    def bound(self, site: str) -> float:
        """Longest update that is admitted; the same for sites that were handed and told the same."""
        shape, lr = self._asker.shapes[site], self._tasks[site].lr
        if (shape, lr) not in self._bounds:
            handed = self._asker.handed[shape]
            self._bounds[shape, lr] = longest(self._config, self._work, self._expected(site), handed, lr)
        return self._bounds[shape, lr]

    def _expected(self, site: str) -> dict[str, tuple[int, ...]]:
        """Name -> shape of what this site sends in this round."""
        handed = self._asker.handed[self._asker.shapes[site]]
        return self._rule.sends(handed, self._number)
