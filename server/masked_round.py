"""A round whose updates are masked: two trips, and one mean for the rule instead of an update a site."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from flwr.app import Message
from flwr.serverapp import Grid

from llmchain_fl.aggregation.admission import update_norm
from llmchain_fl.aggregation.rule import SiteFactors
from llmchain_fl.core.errors import LlmchainError, WireError
from llmchain_fl.core.secure.numbers import mean_of
from llmchain_fl.replies import Refusal
from llmchain_fl.requests import size_of
from llmchain_fl.secure_sum import NotOpened
from server.handled import code_of, handled
from server.inbox import update_of
from server.outcome import RoundOutcome
from server.roll_call import connected
from server.schedule import ScheduledRound
from server.secure_sums import SecureSums
from server.strategy import FederatedLora

log = logging.getLogger("llmchain_fl")
WHY: Mapping[str, str] = {
    "few": "too few answered the second trip, or sent an update",
    "owner": "a site gave shares of another secret than its keys tell",
    "misfit": "shares of a secret do not fit each other",
}


@dataclass
class MaskedRounds:
    """Plays rounds over masked updates.

    Args:
        sums: the run's secure sums.
        strategy: asks and sums.
        save: writes the state of the run; called between the trips.
    """

    sums: SecureSums
    strategy: FederatedLora
    save: Callable[[], None]

    def pending(self, number: int) -> list[str]:
        """Who was asked in a round whose updates came before the server was stopped; empty where there is none."""
        return [str(site) for site in self.sums.outcome["asked"]] if self.sums.pending(number) else []

    def play(self, planned: ScheduledRound, grid: Grid, cohort: Iterable[str]) -> RoundOutcome:
        """Both trips. An outcome without an admitted site is a round without an update, as ever.

        ======================================  =============================================================
        case                                    the round
        ======================================  =============================================================
        a site gives no keys or no shares       it is not asked to train, and pays nothing
        too few give them                       no update; it is skipped when the run goes on, for those who gave
                                                shares in it are bound to its first directory
        a site gives no update                  the others' sum, if they are enough for everybody's policy
        too few updates, or too few unmask      void: nothing was opened; who has sent an update has paid
        a mean that is too long, or unsound     void
        the server dies between the trips       it goes on at the second
        ======================================  =============================================================
        """
        outcome = self._restored() if self.sums.pending(planned.round) else self._first_trip(planned, grid, cohort)
        if outcome.admitted:
            self._second_trip(planned, grid, outcome)
        self.sums.outcome = {}
        return outcome

    def _first_trip(self, planned: ScheduledRound, grid: Grid, cohort: Iterable[str]) -> RoundOutcome:
        strategy, number, names = self.strategy, planned.round, list(cohort)
        nodes = {site: strategy.state.nodes[site] for site in names}
        members = self.sums.prepare(grid, number, nodes)
        outcome = RoundOutcome(strategy.state.current, norms_public=False)
        for site in set(names) - set(members):
            outcome.refused[site] = self.sums.why(site)
            outcome.declined.add(site)
        messages = strategy.ask(planned, members, lambda site: self.sums.task_for(number, site))
        outcome.bytes_down = {site: size_of(task) for site, task in strategy.asked.items()}
        sites = {nodes[site]: site for site in members}
        for reply in grid.send_and_receive(messages, timeout=strategy.reply_seconds) if members else ():
            site = sites.get(reply.metadata.src_node_id, "")
            if site and site not in outcome.admitted and site not in outcome.refused:
                self._take(number, site, reply, outcome)
        outcome.refused |= {site: "no-answer" for site in members if site not in {*outcome.admitted, *outcome.refused}}
        self.sums.outcome = {
            "round": number,
            "asked": names,
            "admitted": sorted(outcome.admitted),
            "refused": dict(outcome.refused),
            "declined": sorted(outcome.declined),
            "bytes_up": dict(outcome.bytes_up),
            "bytes_down": dict(outcome.bytes_down),
        }
        if outcome.admitted:
            self.save()
        return outcome

    def _take(self, number: int, site: str, reply: Message, outcome: RoundOutcome) -> None:
        try:
            answer = handled(site, partial(update_of, reply))
            if isinstance(answer, Refusal):
                outcome.declined.add(site)
                outcome.refused[site] = answer.code
                return
            if answer.round != number:
                raise WireError("an update of another round", remedy="run the same version everywhere")
            outcome.bytes_up[site] = self.sums.take(number, site, answer.arrays)
            self.strategy.state.receipts[site] = answer.receipt
            outcome.admitted[site] = math.nan
        except LlmchainError as error:
            outcome.refused[site] = code_of(error)

    def _restored(self) -> RoundOutcome:
        saved: Mapping[str, Any] = self.sums.outcome
        outcome = RoundOutcome(self.strategy.state.current, norms_public=False)
        outcome.admitted = dict.fromkeys(saved["admitted"], math.nan)
        outcome.refused, outcome.declined = dict(saved["refused"]), set(saved["declined"])
        outcome.bytes_up, outcome.bytes_down = dict(saved["bytes_up"]), dict(saved["bytes_down"])
        return outcome

    def _second_trip(self, planned: ScheduledRound, grid: Grid, outcome: RoundOutcome) -> None:
        """Open the sum, and hand its mean to the rule as if it were one site's."""
        strategy = self.strategy
        nodes = {site: strategy.state.nodes[site] for site in connected(strategy.state.nodes)}
        opened = self.sums.open(grid, planned.round, nodes)
        if isinstance(opened, NotOpened):
            outcome.void = f"the sum was not opened: {WHY[opened.reason]}"
            log.warning("round %d is void: %s (%s)", planned.round, outcome.void, ", ".join(opened.sites))
            return
        shapes, handed, scale = strategy.sent(planned.round)
        mean = mean_of(opened.total, strategy.work, len(opened.sites), shapes)
        if not update_norm(mean) <= strategy.bound(planned, shapes, handed):
            outcome.void = "the mean of the round is longer than any site's update may be"
            log.warning("round %d is void: %s", planned.round, outcome.void)
            return
        if not strategy.rule.direct:
            mean = {**handed, **{name: handed[name] + value for name, value in mean.items()}}
        strategy.close_with(planned, SiteFactors(mean, scale, float(len(opened.sites))), outcome)
