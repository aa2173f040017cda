"""Scores of the serving adapter on the sites' own held-out records, as far as the sites share them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from flwr.app import Message, MessageType
from flwr.serverapp import Grid

from llmchain_fl.adapter.value import Arrays
from llmchain_fl.config.calendar import to_score
from llmchain_fl.config.schema import RunConfig
from llmchain_fl.errors import LlmchainError
from llmchain_fl.messages import Refusal, Scores, ScoreTask
from llmchain_fl.wire import read_reply, write_score_task
from server.privacy_book import PrivacyBook
from server.schedule import Slot
from server.strategy import FederatedLora


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


def read_scores(
    replies: Iterable[Message], nodes: Mapping[str, int]
) -> tuple[dict[str, dict[str, float]], set[str], dict[str, str]]:
    """(site -> stage -> score of the sites that share them, sites that declined so paid nothing, new receipts)."""
    sites = {node: site for site, node in nodes.items()}
    found: dict[str, dict[str, float]] = {}
    declined: set[str] = set()
    receipts: dict[str, str] = {}
    for reply in replies:
        site = sites.get(reply.metadata.src_node_id)
        if site is None or reply.has_error():
            continue
        try:
            answer = read_reply(reply.content)
        except LlmchainError:
            continue
        if isinstance(answer, Refusal):
            declined.add(site)
        if isinstance(answer, Scores):
            found[site] = answer.values
            receipts[site] = answer.receipt
    return found, declined, {site: receipt for site, receipt in receipts.items() if receipt}


def scores_of_sites(
    grid: Grid,
    config: RunConfig,
    strategy: FederatedLora,
    book: PrivacyBook,
    slot: Slot,
    arrays: Arrays,
    able: Collection[str],
) -> dict[str, dict[str, float]]:
    """Site -> stage -> score of ``arrays`` on its own records of the stages it has met, of the sites that share them.

    Only sites in ``able`` are asked: one that is set aside or excluded gets no adapter either. What a noised score
    costs goes into ``book``, new receipts to ``strategy``.
    """
    nodes = {site: node for site, node in strategy.nodes.items() if site in able}
    met = {site: tuple(to_score(config, site, slot.round, strategy.ended)) for site in nodes}
    found: dict[str, dict[str, float]] = {}
    for stages in sorted({stages for stages in met.values() if stages}):
        these = {site: node for site, node in nodes.items() if met[site] == stages}
        task = strategy.asker.score_task(slot.round, stages, arrays)
        replies = grid.send_and_receive(ask_scores(task, these, strategy.receipts), timeout=config.sites.reply_seconds)
        scores, declined, receipts = read_scores(replies, these)
        found |= scores
        strategy.receipts |= receipts
        book.charge_scores(these.keys() - declined, len(stages))
    return found
