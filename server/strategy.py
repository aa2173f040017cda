"""One round, readable top to bottom: ask, admit, sum, guard, hand over.

A Flower ``Strategy`` composed of parts. It never calls Flower's own aggregation: a stock FedAvg takes the site's word
for its weight, broadcasts a wrong shape, and lets one NaN through (docs/pitfalls.md).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from llmchain_fl.adapter.value import Arrays, count_bytes
from llmchain_fl.config.schema import RunConfig
from llmchain_fl.errors import AdmissionError, LlmchainError, WireError
from llmchain_fl.messages import Refusal, Scores, ScoreTask, TrainTask, Update, size_of
from llmchain_fl.wire import read_reply, write_score_task, write_train_task
from llmchain_fl.work import WorkSpec
from server.admission import Schema, admit, reason_of, update_norm
from server.aggregation.rule import Rule, SiteFactors, names_of, product_error, sent_names
from server.central import CentralPrivacy
from server.cohort import choose, weights
from server.schedule import Slot, schedule


@dataclass
class RoundOutcome:
    """What one round did. ``admitted``: site -> norm of its update; ``refused``: site -> reason.

    ``declined``: sites that said no by a code, so trained nothing and spent nothing.
    """

    arrays: Arrays
    admitted: dict[str, float] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    declined: set[str] = field(default_factory=set)
    bytes_up: dict[str, int] = field(default_factory=dict)
    bytes_down: dict[str, int] = field(default_factory=dict)
    product_error: float | None = None
    norms_public: bool = True
    """False where the norms are of updates that no noise has covered yet (privacy unit ``site``): not to be written."""


class FederatedLora(Strategy):
    """Asks sites for LoRA updates and sums them with a rule.

    Args:
        config: the run.
        work: what every site must know; public constants.
        rule: how factors become one adapter.
        run: name of the run, part of the key under which a site pays for a round.
        central: clips and noises at the server (privacy unit ``site``); None: sites do it, or nobody.
    """

    def __init__(
        self, config: RunConfig, work: WorkSpec, rule: Rule, run: str, central: CentralPrivacy | None = None
    ) -> None:
        self._config, self._work, self.rule, self._run, self._central = config, work, rule, run, central
        self._work_json = work.to_json()
        self.slots = {slot.round: slot for slot in schedule(config)}
        self.nodes: dict[str, int] = {}
        self.current: Arrays = {}
        self.guard_arrays: Arrays = {}
        self.receipts: dict[str, str] = {}
        self.unscored: set[str] = set()
        """Sites that declined to be scored, so paid nothing for it."""
        self._asked: dict[str, TrainTask] = {}
        self.outcome = RoundOutcome({})

    @property
    def clip(self) -> float:
        """Clip norm of the next round's updates; 0 where the server does not clip."""
        return self._central.clip if self._central else 0.0

    # -- asking ---------------------------------------------------------------------------------------------------

    def cohort(self, number: int, able: Iterable[str]) -> list[str]:
        """The sites asked in round ``number``, out of those that still can."""
        chosen = choose(list(self.nodes), self._config.sites.cohort, self._config.seed, number)
        return [site for site in chosen if site in set(able)]

    def ask(self, slot: Slot, sites: Iterable[str]) -> list[Message]:
        """One train message a site; all carry the same arrays, and none that a site can draw from the seed."""
        names = names_of(self.rule.turn(slot.round).down, self.current)
        task = TrainTask(
            run=self._run,
            round=slot.round,
            stage=slot.stage,
            stage_name=slot.stage_name,
            lr=slot.lr,
            work=self._work_json,
            arrays={name: self.current[name] for name in names},
            guard_arrays={key: v for key, v in self.guard_arrays.items() if key.partition(".")[2] in names},
            federation=self._config.federation,
            clip=self.clip,
            trains=self.rule.turn(slot.round).trains,
        )
        self._asked = {site: replace(task, receipt=self.receipts.get(site, "")) for site in sites}
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
        """Admit each reply and add it to the rule's running sum; ``replies`` may be a generator."""
        outcome = RoundOutcome(
            self.current,
            norms_public=self._central is None,
            bytes_down={site: size_of(task) for site, task in self._asked.items()},
        )
        sites = {self.nodes[site]: site for site in self._asked}
        total = self.rule.start(self.current, self._work.adapter.scale, slot.round)
        public = weights(self.nodes, self._config.aggregation.weights)
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
                if self._central:
                    delta = self._central.clipped(delta)
                full = {name: self.current[name] + value for name, value in delta.items()}
                factors = SiteFactors(full, self._work.adapter.scale, public[site])
                total.add(factors)
            except LlmchainError as error:
                outcome.refused[site] = reason_of(error) if isinstance(error, AdmissionError) else error.code
                continue
            outcome.admitted[site] = norm
            outcome.bytes_up[site] = count_bytes(delta)
            if not (self.rule.exact or self._central or self._config.aggregation.optimizer != "none"):
                kept.append(factors)
        outcome.refused |= {
            site: "no-answer" for site in self._asked if site not in outcome.admitted and site not in outcome.refused
        }
        if len(outcome.admitted) >= self._config.sites.minimum:
            outcome.arrays = dict(self._central.noised(total.finish) if self._central else total.finish())
            outcome.product_error = product_error(kept, outcome.arrays, self._work.adapter.scale) if kept else None
        elif self._central:
            self._central.forget()
        self.outcome = outcome
        return outcome

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
        expected = {name: self.current[name] for name in sent_names(self.rule, self.current, slot.round)}
        schema = Schema.like(expected, max_norm=self._config.aggregation.max_update_norm or None)
        return admit(
            answer.arrays, schema, site=site, reply_round=answer.round, open_round=slot.round, answered=outcome.admitted
        )

    # -- scores of the sites --------------------------------------------------------------------------------------

    def ask_scores(self, number: int, stages: tuple[str, ...], arrays: Arrays) -> list[Message]:
        """One evaluate message a site."""
        names = names_of(self.rule.turn(number).down, arrays)
        task = ScoreTask(
            number,
            stages,
            self._work_json,
            {name: arrays[name] for name in names},
            run=self._run,
            federation=self._config.federation,
        )
        return [
            Message(
                write_score_task(replace(task, receipt=self.receipts.get(site, ""))),
                dst_node_id=node,
                message_type=MessageType.EVALUATE,
            )
            for site, node in self.nodes.items()
        ]

    def collect_scores(self, replies: Iterable[Message]) -> dict[str, dict[str, float]]:
        """Site -> stage -> score, of the sites that share them."""
        sites = {node: site for site, node in self.nodes.items()}
        found: dict[str, dict[str, float]] = {}
        self.unscored = set()
        for reply in replies:
            site = sites.get(reply.metadata.src_node_id)
            if site is None or reply.has_error():
                continue
            try:
                answer = read_reply(reply.content)
            except LlmchainError:
                continue
            if isinstance(answer, Refusal):
                self.unscored.add(site)
            if isinstance(answer, Scores):
                found[site] = answer.values
                self.receipts[site] = answer.receipt or self.receipts.get(site, "")
        return found

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
