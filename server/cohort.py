"""Who is there, and who is asked in a round."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Mapping, Sequence

from flwr.app import Message, MessageType, RecordDict
from flwr.serverapp import Grid

from llmchain_fl.config.schema import SitesConfig
from llmchain_fl.errors import RunError, WireError
from llmchain_fl.wire import read_hello


def choose(sites: Sequence[str], size: int, seed: int, number: int) -> list[str]:
    """``size`` of ``sites`` for round ``number`` (0: all), in name order; a function of seed and round alone.

    Flower's own sampling uses the global generator over random node ids, which no two runs share.
    """
    ordered = sorted(sites)
    if size == 0 or size >= len(ordered):
        return ordered
    return sorted(random.Random(f"{seed}/{number}").sample(ordered, size))


def meet(grid: Grid, config: SitesConfig) -> dict[str, int]:
    """Wait until every site is connected and ask its name: site name -> node id.

    Raises:
        RunError: too few sites in time, or two with the same name.
    """
    deadline = time.monotonic() + config.wait_seconds
    nodes: list[int] = []
    while len(nodes) < config.count:
        nodes = list(grid.get_node_ids())
        if len(nodes) < config.count:
            if time.monotonic() > deadline:
                raise RunError(
                    f"{len(nodes)} of {config.count} sites connected within {config.wait_seconds:g} s",
                    remedy="start the missing SuperNodes, or set sites.count and sites.wait_seconds",
                )
            time.sleep(min(1.0, config.wait_seconds / 10))
    return _names(_ask_names(grid, nodes, config.wait_seconds))


def _ask_names(grid: Grid, nodes: Iterable[int], seconds: float) -> Iterable[Message]:
    questions = [Message(RecordDict(), dst_node_id=node, message_type=MessageType.QUERY) for node in sorted(nodes)]
    return grid.send_and_receive(questions, timeout=seconds)


def _names(replies: Iterable[Message]) -> dict[str, int]:
    found: dict[str, int] = {}
    silent = 0
    for reply in replies:
        try:
            if reply.has_error():
                silent += 1
                continue
            name = read_hello(reply.content).site
        except WireError:
            silent += 1
            continue
        if name in found:
            raise RunError(f"two sites call themselves {name}", remedy="give every site its own name in its site file")
        found[name] = reply.metadata.src_node_id
    if silent or not found:
        raise RunError(
            f"{silent} connected site(s) gave no name",
            remedy="look at those sites' logs; the same version must run everywhere",
        )
    return dict(sorted(found.items()))


def weights(sites: Iterable[str], values: Sequence[float]) -> Mapping[str, float]:
    """Public weight of each site, by name order; uniform if none are given. Never what a site reports."""
    ordered = sorted(sites)
    return dict(zip(ordered, values or [1.0] * len(ordered), strict=True))
