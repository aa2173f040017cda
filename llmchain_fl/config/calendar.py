"""Who learns what in which round: pure functions of the configuration, known before the first round.

The run's calendar lays the stages end to end in the order taught; rows of the R matrix are made at its ends. A site
without an arrival of its own follows it. One with its own order or offset lays its stages out by itself, each as long
as the run's, and is cut off where the run ends. ``ended`` is the one thing that is not in the configuration: stage name
-> last round, of the stages whose end an operator announced (``next_stage.py``). It is public too.

Whoever needs to know where a site is (server, privacy forecast, simulator, metrics) asks here, so that all agree. The
stage is never found out from records: it would steer what is released, and so tell about them (and cost epsilon).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from llmchain_fl.config.schema import RunConfig
from llmchain_fl.config.stream import JOINT, ArrivalConfig, StageConfig
from llmchain_fl.core.errors import RunError
from llmchain_fl.core.words import nearest

Ended = Mapping[str, int]
NONE: Ended = MappingProxyType({})
_AS_THE_RUN = ArrivalConfig()
_NO_ARRIVAL = ""
"""Stands for every site that follows the run's calendar; no site can have this name."""


@dataclass(frozen=True)
class Span:
    """The rounds ``first`` to ``last`` (both included) that a calendar gives to one stage."""

    stage: int
    """Place in the order taught, from 0: the column of the R matrix."""
    name: str
    rounds: int
    """How many the stage has by plan; with announced ends, at most."""
    start: int
    """Where the calendar begins it; ``first`` is later for a site that joins in the middle."""
    first: int
    last: int


def stages_in_order(config: RunConfig) -> list[StageConfig]:
    """The stages in the order in which the run teaches them."""
    by_name = {stage.name: stage for stage in config.stage}
    order = config.stream.order
    return [by_name[name] for name in order] if order else list(config.stage)


def calendar(config: RunConfig, ended: Ended = NONE) -> list[Span]:
    """The run's own calendar: every round from 1 to the last is in exactly one span.

    ==================================  ==========================================
    stage                               its span ends
    ==================================  ==========================================
    by the calendar, or not announced   after its ``rounds``
    in ``ended``                        there
    ==================================  ==========================================

    Raises:
        RunError: an end that lies outside the stage.
    """
    spans, start = [], 1
    for index, stage in enumerate(stages_in_order(config)):
        most = start + stage.rounds - 1
        last = ended.get(stage.name, most)
        if not start <= last <= most:
            raise RunError(
                f'stage "{stage.name}" is said to have ended in round {last}; it has rounds {start} to {most}',
                remedy="the state belongs to another run: resume the run with the state it wrote",
            )
        spans.append(Span(index, stage.name, stage.rounds, start, start, last))
        start = last + 1
    return spans


def site_calendar(config: RunConfig, site: str, ended: Ended = NONE) -> list[Span]:
    """What ``site`` learns when: rising spans that do not overlap; none where it is not there.

    =========================  ============================================================================
    arrival                    spans
    =========================  ============================================================================
    none                       the run's
    ``order``                  its own stages end to end, from round 1; afterwards it is not asked
    ``offset_rounds`` = n      the same, from round n + 1
    ``joins``, ``leaves``      cut to these rounds; a stage of which nothing is left is not in the list
    reaches beyond the run     cut at the run's last round
    =========================  ============================================================================
    """
    run = calendar(config, ended)
    arrival = config.stream.arrival.get(site, _AS_THE_RUN)
    own = _own(arrival, run) if arrival.order or arrival.offset_rounds else run
    until = min(arrival.leaves or run[-1].last, run[-1].last)
    cut = (
        Span(s.stage, s.name, s.rounds, s.start, max(s.first, arrival.joins), min(s.last, until)) for s in own
    )  # fmt: skip
    return [span for span in cut if span.first <= span.last]


def _own(arrival: ArrivalConfig, run: list[Span]) -> list[Span]:
    by_name = {span.name: span for span in run}
    spans, start = [], 1 + arrival.offset_rounds
    for name in arrival.order or list(by_name):
        span = by_name[name]
        spans.append(Span(span.stage, name, span.rounds, start, start, start + span.rounds - 1))
        start += span.rounds
    return spans


def span_of(config: RunConfig, site: str, number: int, ended: Ended = NONE) -> Span | None:
    """The span of ``site`` that holds round ``number``; None: it is not there yet, or gone."""
    return next((s for s in site_calendar(config, site, ended) if s.first <= number <= s.last), None)


def trained_as(config: RunConfig, stage: str) -> str:
    """The name of the records a site at ``stage`` trains on, and is charged for: its own, or all of them together."""
    return JOINT if config.stream.play == "joint" else stage


def present_sites(config: RunConfig, sites: Iterable[str], number: int, ended: Ended = NONE) -> dict[str, str]:
    """Who can be asked in round ``number``: site -> the name of the records it trains on, in the order given.

    ==========================================  ===================================================================
    by their calendars                          result
    ==========================================  ===================================================================
    at least ``sites.minimum`` are there        these
    fewer, or nobody                            nobody: the round passes, the adapter stays, no site is asked or pays
    ==========================================  ===================================================================
    """
    arrivals = config.stream.arrival
    others = span_of(config, _NO_ARRIVAL, number, ended)
    spans = {site: span_of(config, site, number, ended) if site in arrivals else others for site in sites}
    present = {site: trained_as(config, span.name) for site, span in spans.items() if span is not None}
    return present if len(present) >= config.sites.minimum else {}


def taught_in(config: RunConfig, number: int, ended: Ended = NONE) -> list[str]:
    """The records that sites train on in round ``number``, by the run's calendar and by those of sites of their own."""
    spans = (span_of(config, site, number, ended) for site in (_NO_ARRIVAL, *config.stream.arrival))
    return list(dict.fromkeys(trained_as(config, span.name) for span in spans if span is not None))


def absent_sites(config: RunConfig, number: int, ended: Ended = NONE) -> list[str]:
    """The sites that by a calendar of their own are not there yet in round ``number``, or are done."""
    return [site for site in config.stream.arrival if span_of(config, site, number, ended) is None]


def stages_seen(config: RunConfig, site: str, upto: int, ended: Ended = NONE) -> list[str]:
    """The stages ``site`` has been at in rounds 1 to ``upto``, in its own order."""
    return [span.name for span in site_calendar(config, site, ended) if span.first <= upto]


def site_order(config: RunConfig, site: str, ended: Ended = NONE) -> list[str]:
    """The stages ``site`` learns in the whole run, in its own order: what a federated metric needs of it."""
    return [span.name for span in site_calendar(config, site, ended)]


def to_come(config: RunConfig, site: str, after: int, ended: Ended = NONE) -> list[str]:
    """What ``site`` will still train on after round ``after``, as ``trained_as`` calls it."""
    left = (span.name for span in site_calendar(config, site, ended) if span.last > after)
    return list(dict.fromkeys(trained_as(config, name) for name in left))


def to_score(config: RunConfig, site: str, number: int, ended: Ended = NONE) -> list[str]:
    """The stages whose held-out records ``site`` scores at a stage's end in round ``number``.

    ===============================  ================================
    site                             stages
    ===============================  ================================
    not there yet, or has left       none
    done with its own order          all of its own: it can be asked
    otherwise                        those it has met
    ===============================  ================================
    """
    leaves = config.stream.arrival.get(site, _AS_THE_RUN).leaves
    return [] if leaves and number > leaves else stages_seen(config, site, number, ended)


def most_scores(config: RunConfig) -> int:
    """The most scores any one site is asked for in a run by plan; T (T + 1) / 2 for a site on the run's calendar."""
    ends = [span.last for span in calendar(config)]
    sites = [_NO_ARRIVAL, *config.stream.arrival]
    return max(sum(len(to_score(config, site, end)) for end in ends) for site in sites)


def sampling_rate(config: RunConfig) -> float:
    """``train.sampling_rate``; with ``play = "joint"`` divided by the number of stages.

    Then a joint batch is as large as a batch of one stage, and over the run a record is drawn as often as in sequence
    (stages of like size and rounds): the baseline has the same work, not T times as much.
    """
    share = len(config.stage) if config.stream.play == "joint" else 1
    return config.train.sampling_rate / share


def unknown_sites(config: RunConfig, sites: Iterable[str]) -> list[str]:
    """A fault for every arrival of a site that is not there."""
    known = sorted(sites)
    return [
        f'stream.arrival."{name}": there is no such site{nearest(name, known)}'
        for name in config.stream.arrival
        if name not in known
    ]
