"""One round, readable top to bottom: ask, admit, sum, guard, hand over.

It is no Flower ``Strategy``: the hooks of one know of no budgets, so that a round which the loop does not drive would
not be paid for in the run's book. Nor is Flower's own aggregation called: a stock FedAvg takes the site's word for its
weight, broadcasts a wrong shape, and lets one NaN through (docs/pitfalls.md).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace

import numpy as np
from flwr.app import Message, MessageType

from llmchain_fl.aggregation.rule import Accumulator, Rule, SiteFactors, product_error
from llmchain_fl.config.calendar import present_sites, stages_seen
from llmchain_fl.config.schema import RunConfig
from llmchain_fl.core.adapter.value import Arrays
from llmchain_fl.core.errors import AdmissionError, LlmchainError
from llmchain_fl.core.messages import SecureTask, TrainTask
from llmchain_fl.core.work import WorkSpec
from llmchain_fl.metrics_file import MOST_SITES
from llmchain_fl.requests import Packed, size_of, write_train_task
from llmchain_fl.robust import Robust
from server.asking import Asker
from server.bound import longest
from server.central import CentralPrivacy
from server.cohort import choose
from server.handing import shapes
from server.handled import code_of, handled
from server.inbox import Inbox
from server.outcome import RoundOutcome
from server.schedule import ScheduledRound, schedule
from server.sound import unsound
from server.state import RunState

log = logging.getLogger("llmchain_fl")


class FederatedLora:
    """Asks sites for LoRA updates and sums them with a rule.

    Args:
        config: the run.
        work: what every site must know; public constants.
        rule: how factors become one adapter.
        state: what the run is at; receipts are entered here.
        central: clips and noises at the server (privacy unit ``site``); None: sites do it, or nobody.
        robust: screens the admitted replies of a round before they are summed; None: each is summed as it comes.
    """

    def __init__(
        self,
        config: RunConfig,
        work: WorkSpec,
        rule: Rule,
        state: RunState,
        central: CentralPrivacy | None = None,
        robust: Robust | None = None,
    ) -> None:
        self._config, self._work, self.rule, self.state = config, work, rule, state
        self._central, self._robust = central, robust
        self.asker = Asker(config, work, rule, state.run)
        self.guard_arrays: Arrays = {}
        self._asked: dict[str, TrainTask] = {}

    @property
    def clip(self) -> float:
        """Clip norm of the next round's updates; 0 where the server does not clip."""
        return self._central.clip if self._central else 0.0

    @property
    def rounds(self) -> dict[int, ScheduledRound]:
        """Every round of the run, as far as it is known."""
        return {planned.round: planned for planned in schedule(self._config, self.state.ended)}

    # -- asking ---------------------------------------------------------------------------------------------------

    def present(self, planned: ScheduledRound) -> dict[str, str]:
        """The sites that are there in a round -> the name of the records they train on."""
        present = present_sites(self._config, self.state.nodes, planned.round, self.state.ended)
        return {site: records for site, records in present.items() if site not in self._config.sites.excluded}

    def earlier(self, site: str, number: int) -> tuple[str, ...]:
        """The stages that ``site`` rehearses in round ``number``: those it has left, if the run has that guard."""
        if not self._config.continual.charged or self._config.stream.play != "sequence":
            return ()
        return tuple(stages_seen(self._config, site, number, self.state.ended)[:-1])

    def cohort(self, number: int, able: Iterable[str]) -> list[str]:
        """The sites asked in round ``number``, out of those that still can."""
        allowed = set(able)
        known = [site for site in self.present(self.rounds[number]) if site in allowed]
        return choose(known, self._config.sites.cohort, self._config.seed, number)

    @property
    def asked(self) -> Mapping[str, TrainTask]:
        """What each site was told in this round."""
        return self._asked

    @property
    def work(self) -> WorkSpec:
        """What every site knows."""
        return self._work

    @property
    def reply_seconds(self) -> float:
        """How long the server waits for the replies of a trip."""
        return self._config.sites.reply_seconds

    def ask(
        self, planned: ScheduledRound, sites: Iterable[str], secure: Callable[[str], SecureTask] | None = None
    ) -> Iterator[Message]:
        """One train message a site, written when it is taken; ``secure``: what a site needs to mask its update."""
        state = self.state
        tasks = self.asker.tasks(planned, sites, state.nodes, state.current, self.guard_arrays, state.ended)
        self._asked = {
            site: replace(
                task,
                receipt=state.receipts.get(site, ""),
                clip=self.clip,
                earlier=self.earlier(site, planned.round),
                secure=None if secure is None else secure(site),
            )
            for site, task in tasks.items()
        }
        packed = Packed()
        return (
            Message(
                write_train_task(task, packed),
                dst_node_id=state.nodes[site],
                message_type=MessageType.TRAIN,
                group_id=str(planned.round),
            )
            for site, task in self._asked.items()
        )

    # -- one mean for all: where the server learns the sum only ---------------------------------------------------

    def sent(self, number: int) -> tuple[dict[str, tuple[int, ...]], Arrays, float]:
        """(name -> shape of what each site sends in round ``number``; what it was handed; its scale); all are alike."""
        shape = next(iter(shapes(self.state.nodes, self._config.adapter).values()))
        handed = dict(self.rule.handed(self.state.current, self._work.adapter.scale, shape))
        return self.rule.sends(handed, number), handed, shape.scale

    def bound(self, planned: ScheduledRound, sent: Mapping[str, tuple[int, ...]], handed: Arrays) -> float:
        """Longest mean of the round: what one site's update may be at most."""
        return longest(self._config, self._work, sent, handed, planned.lr)

    def close_with(self, planned: ScheduledRound, mean: SiteFactors, outcome: RoundOutcome) -> None:
        """The new global arrays from the mean of the round, as from one site that stands for all."""
        total = self.rule.start(self.state.current, self._work.adapter.scale, planned.round)
        total.add(mean)
        self._close(planned, total, [], outcome)

    # -- admitting and summing ------------------------------------------------------------------------------------

    def collect(self, planned: ScheduledRound, replies: Iterable[Message]) -> RoundOutcome:
        """Admit each reply and add it to the rule's running sum; ``replies`` may be a generator.

        A robust step needs all replies at once and stands between the two.
        """
        outcome = RoundOutcome(
            self.state.current,
            norms_public=self._central is None,
            bytes_down={site: size_of(task) for site, task in self._asked.items()},
        )
        parts = (
            self._config,
            self._work,
            self.rule,
            self.asker,
            self.state.nodes,
            self._asked,
            planned.round,
            self._central,
        )
        inbox, sites = Inbox(*parts, outcome), {self.state.nodes[site]: site for site in self._asked}
        total = self.rule.start(self.state.current, self._work.adapter.scale, planned.round)
        site_factors: list[SiteFactors] = []
        for reply in replies:
            site = sites.get(reply.metadata.src_node_id)
            factors = None if site is None else inbox.take(site, reply)
            if site is None or factors is None or (self._robust is None and not _added(total, site, factors, outcome)):
                continue
            if self._robust is not None or self._measures_error(planned):
                site_factors.append(factors)
        self.state.receipts |= inbox.receipts
        outcome.refused |= {
            site: "no-answer" for site in self._asked if site not in outcome.admitted and site not in outcome.refused
        }
        if len(outcome.admitted) >= self._config.sites.minimum:
            self._close(planned, total, site_factors, outcome)
        elif self._central:
            self._central.forget()
        return outcome

    def _close(
        self, planned: ScheduledRound, total: Accumulator, site_factors: list[SiteFactors], outcome: RoundOutcome
    ) -> None:
        """The new global arrays out of the sum; or the old ones, where the sum is not fit to be used.

        ==============================================  ===========================================================
        the sum                                         the round
        ==============================================  ===========================================================
        sound (``sound.py``)                            the new arrays
        not finite, or its products leave float32       void: arrays, moments as before; the admitted site with the
        a factorisation that does not converge          longest update is refused (``sum``, a strike)
        broken off by an error while a site was added   void; that site is refused
        ==============================================  ===========================================================

        Each site's own adapter was sound, so this takes several that work together. The others have paid for nothing:
        which of them was honest, no sum can tell.
        """
        scale, before, arrays = self._work.adapter.scale, dict(self.rule.state()), Arrays()
        if not outcome.void:
            try:
                arrays = self._summed(planned, total, site_factors, outcome)
                outcome.void = unsound(arrays, scale)
            except (np.linalg.LinAlgError, ArithmeticError, AdmissionError) as error:
                outcome.void = f"the sum of the round cannot be made ({type(error).__name__})"
            if outcome.void:
                outcome.blame()
        if outcome.void:
            self.rule.load_state(before)
            if self._central:
                self._central.forget()
            log.warning("round %d is void: %s (refused: %s)", planned.round, outcome.void, ", ".join(outcome.refused))
            return
        outcome.arrays, outcome.summed = arrays, True
        if site_factors and self._robust is None:
            outcome.product_error = product_error(site_factors, outcome.arrays, scale)

    def _summed(
        self, planned: ScheduledRound, total: Accumulator, site_factors: list[SiteFactors], outcome: RoundOutcome
    ) -> Arrays:
        """What the rule makes of the sum, screened first if the run has a robust step."""
        if self._robust is not None:
            schedule = self.rule.schedule(planned.round)
            screened = self._robust(site_factors, self.state.current, self._work.adapter.scale, schedule.up)
            outcome.shares, outcome.lost = dict(zip(outcome.admitted, screened.share, strict=True)), screened.lost
            for site in screened.sites:
                total.add(site)
        return dict(self._central.noised(total.finish) if self._central else total.finish())

    def _measures_error(self, planned: ScheduledRound) -> bool:
        """Whether the round's sum is compared with the ideal: where it may differ, and there is a common product.

        It takes all sites' factors at once: of more than ``MOST_SITES`` nobody holds them.
        """
        stepped, many = self._config.aggregation.optimizer != "none" or self.rule.direct, len(self._asked) > MOST_SITES
        return not (many or self.rule.exact or self._central or stepped or self.rule.schedule(planned.round).keeps)


def _added(total: Accumulator, site: str, factors: SiteFactors, outcome: RoundOutcome) -> bool:
    """Count one admitted site in. A rule refuses before it counts; any other error may have left half of it in."""
    try:
        handled(site, lambda: total.add(factors))
    except AdmissionError as error:
        outcome.drop(site, code_of(error))
        return False
    except LlmchainError as error:
        outcome.drop(site, code_of(error))
        outcome.void = f"the sum broke off while {site} was added"
        return False
    return True
