"""Scores of the serving adapter on the sites' own held-out records, as far as the sites share them."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from flwr.app import Message, MessageType
from flwr.serverapp import Grid

from llmchain_fl.config.calendar import to_score
from llmchain_fl.config.schema import RunConfig
from llmchain_fl.core.adapter.value import Arrays
from llmchain_fl.core.errors import LlmchainError, WireError
from llmchain_fl.core.printable import printable
from llmchain_fl.core.score_task import ScoreTask
from llmchain_fl.core.section import NAME
from llmchain_fl.replies import Refusal, Scores, Update, read_reply
from llmchain_fl.requests import write_score_task
from server.handled import handled
from server.privacy_book import PrivacyBook
from server.schedule import ScheduledRound
from server.strategy import FederatedLora
from server.strikes import is_strike

log = logging.getLogger("llmchain_fl")


def ask_scores(task: ScoreTask, nodes: Mapping[str, int], receipts: Mapping[str, str]) -> list[Message]:
    """One evaluate message a site, each with the receipt that this site gave last."""
    return [
        Message(
            write_score_task(replace(task, receipt=receipts.get(site, ""))),
            dst_node_id=node,
            message_type=MessageType.EVALUATE,
        )
        for site, node in nodes.items()
    ]


@dataclass(frozen=True)
class Asked:
    """What an answer must be of: the round, the stages, and scores from 0 to ``bound`` (of the main score)."""

    round: int
    stages: Collection[str]
    bound: float


def read_scores(
    replies: Iterable[Message], nodes: Mapping[str, int], asked: Asked | None = None
) -> tuple[dict[str, dict[str, float]], set[str], dict[str, str]]:
    """(site -> stage -> score of the sites that share them, sites that declined so paid nothing, new receipts).

    A site that is in none of the first two was asked, may have paid, and gave nothing that can be used: the log says
    why, and nothing of it is written anywhere.
    """
    sites = {node: site for site, node in nodes.items()}
    by_site: dict[str, dict[str, float]] = {}
    declined: set[str] = set()
    receipts: dict[str, str] = {}
    heard: set[str] = set()
    for reply in replies:
        site = sites.get(reply.metadata.src_node_id)
        if site is None or site in heard:
            continue
        heard.add(site)
        try:
            answer = handled(site, partial(_answer, reply))
            if isinstance(answer, Refusal):
                declined |= set() if is_strike(answer.code, declined=True) else {site}
                continue
            receipts[site] = answer.receipt
            by_site[site] = checked(answer, asked)
        except LlmchainError as error:
            log.warning("the scores of %s are not taken: %s", printable(site), error.what)
    return by_site, declined, {site: receipt for site, receipt in receipts.items() if receipt}


def _answer(reply: Message) -> Scores | Refusal:
    if reply.has_error():
        raise WireError("the site's program failed", remedy="look at the site's log")
    answer = read_reply(reply.content)
    if isinstance(answer, Update):
        raise WireError("the site sent an update for scores", remedy="the site must run the same version")
    return answer


def checked(answer: Scores, asked: Asked | None = None) -> dict[str, float]:
    """The scores of one site, all of them or none. An honest one may know fewer stages than were asked for.

    ====================================================  =========================
    answer                                                result
    ====================================================  =========================
    another round, a stage that was not asked for         WireError
    NaN, infinity, below 0 or above the task's bound      WireError
    a name that no stage can have                         WireError
    no score at all                                       none: it holds no record
    a loss above the bound, of a model that has diverged  WireError
    nothing is known of what was asked (``asked`` None)   names, finite, at least 0
    ====================================================  =========================

    Raises:
        WireError: the first of these that applies.
    """
    terms = asked or Asked(answer.round, answer.values.keys(), math.inf)
    values = answer.values.values()
    wrong = [
        (answer.round != terms.round, "they are of another round"),
        (not all(re.fullmatch(NAME, name) for name in answer.values), "a stage that can have no such name"),
        (not answer.values.keys() <= set(terms.stages), "a stage that was not asked for"),
        (not all(math.isfinite(value) for value in values), "a score that is not finite"),
        (not all(0 <= value <= terms.bound for value in values), f"a score outside 0 to {terms.bound:g}"),
    ]
    for fault, words in wrong:
        if fault:
            raise WireError(words, remedy="look at the site's log; it must run the same version")
    return answer.values


def scores_of_sites(
    grid: Grid,
    config: RunConfig,
    strategy: FederatedLora,
    book: PrivacyBook,
    planned: ScheduledRound,
    arrays: Arrays,
    able: Collection[str],
    bound: float,
) -> dict[str, dict[str, float]]:
    """Site -> stage -> score of ``arrays`` on its own records of the stages it has met, of the sites that share them.

    Only sites in ``able`` are asked: one that is set aside or excluded gets no adapter either. What a noised score
    costs goes into ``book``, new receipts to ``strategy``. ``bound``: largest score that a site can have.
    """
    nodes = {site: node for site, node in strategy.state.nodes.items() if site in able}
    met = {site: tuple(to_score(config, site, planned.round, strategy.state.ended)) for site in nodes}
    by_site: dict[str, dict[str, float]] = {}
    for stages in sorted({stages for stages in met.values() if stages}):
        these = {site: node for site, node in nodes.items() if met[site] == stages}
        task = strategy.asker.score_task(planned.round, stages, arrays)
        messages = ask_scores(task, these, strategy.state.receipts)
        replies = grid.send_and_receive(messages, timeout=config.sites.reply_seconds)
        scores, declined, receipts = read_scores(replies, these, Asked(planned.round, stages, bound))
        by_site |= scores
        strategy.state.receipts |= receipts
        book.charge_scores(these.keys() - declined, len(stages))
    return by_site
