"""One round, readable top to bottom: ask, admit, sum, guard, hand over.

A Flower ``Strategy`` composed of parts. It never calls Flower's own aggregation: a stock FedAvg takes the site's word
for its weight, broadcasts a wrong shape, and lets one NaN through (docs/pitfalls.md).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from llmchain_fl.adapter.value import Arrays
from llmchain_fl.compression.budget import budget
from llmchain_fl.compression.update import decode
from llmchain_fl.config.calendar import met, there
from llmchain_fl.config.schema import RunConfig
from llmchain_fl.errors import AdmissionError, LlmchainError, WireError
from llmchain_fl.messages import Refusal, TrainTask, Update, size_of
from llmchain_fl.wire import read_reply, write_train_task
from llmchain_fl.work import WorkSpec
from server.admission import Schema, admit, reason_of, update_norm
from server.aggregation.rule import Accumulator, Rule, SiteFactors, product_error, sent_names
from server.asking import Asker
from server.central import CentralPrivacy
from server.cohort import choose, weights
from server.outcome import RoundOutcome
from server.robust import Robust
from server.schedule import Slot, schedule


class FederatedLora(Strategy):
    """Asks sites for LoRA updates and sums them with a rule.

    Args:
        config: the run.
        work: what every site must know; public constants.
        rule: how factors become one adapter.
        run: name of the run, part of the key under which a site pays for a round.
        central: clips and noises at the server (privacy unit ``site``); None: sites do it, or nobody.
        robust: screens the admitted replies of a round before they are summed; None: each is summed as it comes.
    """

    def __init__(
        self,
        config: RunConfig,
        work: WorkSpec,
        rule: Rule,
        run: str,
        central: CentralPrivacy | None = None,
        robust: Robust | None = None,
    ) -> None:
        self._config, self._work, self.rule, self._central, self._robust = config, work, rule, central, robust
        self.asker = Asker(config, work, rule, run)
        self.ended: dict[str, int] = {}
        """Stage -> last round, of the stages whose end was announced."""
        self.nodes: dict[str, int] = {}
        self.current: Arrays = {}
        self.guard_arrays: Arrays = {}
        self.receipts: dict[str, str] = {}
        self._asked: dict[str, TrainTask] = {}
        self.outcome = RoundOutcome({})

    @property
    def clip(self) -> float:
        """Clip norm of the next round's updates; 0 where the server does not clip."""
        return self._central.clip if self._central else 0.0

    @property
    def slots(self) -> dict[int, Slot]:
        """Every round of the run, as far as it is known."""
        return {slot.round: slot for slot in schedule(self._config, self.ended)}

    # -- asking ---------------------------------------------------------------------------------------------------

    def there(self, slot: Slot) -> dict[str, str]:
        """The sites that are there in a round -> the name of the records they train on."""
        found = there(self._config, self.nodes, slot.round, self.ended)
        return {site: records for site, records in found.items() if site not in self._config.sites.excluded}

    def earlier(self, site: str, number: int) -> tuple[str, ...]:
        """The stages that ``site`` rehearses in round ``number``: those it has left, if the run has that guard."""
        if "rehearsal" not in self._config.continual.guards or self._config.stream.play != "sequence":
            return ()
        return tuple(met(self._config, site, number, self.ended)[:-1])

    def cohort(self, number: int, able: Iterable[str]) -> list[str]:
        """The sites asked in round ``number``, out of those that still can."""
        allowed = set(able)
        known = [site for site in self.there(self.slots[number]) if site in allowed]
        return choose(known, self._config.sites.cohort, self._config.seed, number)

    def ask(self, slot: Slot, sites: Iterable[str]) -> list[Message]:
        """One train message a site."""
        tasks = self.asker.tasks(slot, sites, self.nodes, self.current, self.guard_arrays, self.ended)
        self._asked = {
            site: replace(
                task, receipt=self.receipts.get(site, ""), clip=self.clip, earlier=self.earlier(site, slot.round)
            )
            for site, task in tasks.items()
        }
        return [
            Message(
                write_train_task(told),
                dst_node_id=self.nodes[site],
                message_type=MessageType.TRAIN,
                group_id=str(slot.round),
            )
            for site, told in self._asked.items()
        ]

    # -- admitting and summing ------------------------------------------------------------------------------------

    def collect(self, slot: Slot, replies: Iterable[Message]) -> RoundOutcome:
        """Admit each reply and add it to the rule's running sum; ``replies`` may be a generator.

        A robust step needs all replies at once and stands between the two.
        """
        outcome = RoundOutcome(
            self.current,
            norms_public=self._central is None,
            bytes_down={site: size_of(task) for site, task in self._asked.items()},
        )
        sites = {self.nodes[site]: site for site in self._asked}
        total = self.rule.start(self.current, self._work.adapter.scale, slot.round)
        kept: list[SiteFactors] = []
        for reply in replies:
            site = sites.get(reply.metadata.src_node_id)
            if site is None:
                continue
            try:
                delta = self._admit(site, slot, reply, outcome)
                if isinstance(delta, Refusal):
                    outcome.declined.add(site)
                    outcome.refused[site] = delta.code
                    continue
                norm = update_norm(delta)
                factors = self._factors(site, self._central.clipped(delta) if self._central else delta)
                if self._robust is None:
                    total.add(factors)
            except LlmchainError as error:
                outcome.refused[site] = reason_of(error) if isinstance(error, AdmissionError) else error.code
                continue
            outcome.admitted[site], outcome.bytes_up[site] = norm, budget(self._expected(site, slot), self._work.codec)
            if self._robust is not None or self._measures_error(slot):
                kept.append(factors)
        outcome.refused |= {
            site: "no-answer" for site in self._asked if site not in outcome.admitted and site not in outcome.refused
        }
        if len(outcome.admitted) >= self._config.sites.minimum:
            self._close(slot, total, kept, outcome)
        elif self._central:
            self._central.forget()
        self.outcome = outcome
        return outcome

    def _close(self, slot: Slot, total: Accumulator, kept: list[SiteFactors], outcome: RoundOutcome) -> None:
        """The new global arrays out of the sum, screened first if the run has a robust step."""
        scale = self._work.adapter.scale
        if self._robust is not None:
            screened = self._robust(kept, self.current, scale, self.rule.turn(slot.round).up)
            outcome.shares, outcome.lost = dict(zip(outcome.admitted, screened.share, strict=True)), screened.lost
            for site in screened.sites:
                total.add(site)
        outcome.arrays = dict(self._central.noised(total.finish) if self._central else total.finish())
        if kept and self._robust is None:
            outcome.product_error = product_error(kept, outcome.arrays, scale)

    def _factors(self, site: str, delta: Arrays) -> SiteFactors:
        """The site after training: what it was handed and its delta, with its public weight."""
        shape = self.asker.shapes[site]
        handed, public = self.asker.handed[shape], weights(self.nodes, self._config.aggregation.weights)
        return SiteFactors({name: handed[name] + value for name, value in delta.items()}, shape.scale, public[site])

    def _measures_error(self, slot: Slot) -> bool:
        """Whether the round's sum is compared with the ideal: where it may differ, and there is a common product."""
        stepped = self._config.aggregation.optimizer != "none"
        return not (self.rule.exact or self._central or stepped or self.rule.turn(slot.round).keeps)

    def _admit(self, site: str, slot: Slot, reply: Message, outcome: RoundOutcome) -> Arrays | Refusal:
        """The delta of one reply, or the site's own code for why there is none.

        Raises:
            AdmissionError, WireError: it must not be summed.
        """
        if reply.has_error():
            raise WireError("the site's program failed", remedy="look at the site's log")
        answer = read_reply(reply.content)
        if isinstance(answer, Refusal):
            return answer
        if not isinstance(answer, Update):
            raise WireError("the site sent scores for an update", remedy="the site must run the same version")
        self.receipts[site] = answer.receipt
        expected, codec = self._expected(site, slot), self._work.codec
        arrays = answer.arrays if codec.name == "none" else decode(answer.arrays, expected, codec, site)
        schema = Schema(expected, max_norm=self._config.aggregation.max_update_norm or None)
        return admit(
            arrays, schema, site=site, reply_round=answer.round, open_round=slot.round, answered=outcome.admitted
        )

    def _expected(self, site: str, slot: Slot) -> dict[str, tuple[int, ...]]:
        """Name -> shape of what this site sends in this round."""
        handed = self.asker.handed[self.asker.shapes[site]]
        return {name: handed[name].shape for name in sent_names(self.rule, handed, slot.round)}

    # -- Flower's Strategy, so that any tool that drives one can drive ours ---------------------------------------

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Flower's hook: take the global arrays, ask the cohort."""
        self.current = {**self.current, **{name: value.numpy() for name, value in arrays.items()}}
        return self.ask(self.slots[server_round], self.cohort(server_round, self.nodes))

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Flower's hook: admit and sum. None when too few replies were admitted."""
        outcome = self.collect(self.slots[server_round], replies)
        if len(outcome.admitted) < self._config.sites.minimum:
            return None, None
        self.current = outcome.arrays
        return ArrayRecord({name: Array(value) for name, value in outcome.arrays.items()}), MetricRecord(
            {"admitted": len(outcome.admitted)}
        )

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Flower's hook: sites are scored at the end of a stage by the run's own loop, not here."""
        return []

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Flower's hook: nothing was asked."""
        return None

    def summary(self) -> None:
        """Flower's hook: the run directory says it all."""
