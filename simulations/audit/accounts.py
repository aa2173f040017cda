"""Does the ledger's epsilon say what was released? Rounds of a whole site against an accountant of our own.

Each course of rounds is counted twice: by the ledger, and from what was played by ``second_accountant.py``. The ledger
may say more (its bounds are rounded up by a part in 1,000), never less.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from llmchain_fl.core.privacy.events import Event
from llmchain_fl.privacy.audit.conformance import equal_counts, never
from llmchain_fl.privacy.audit.finding import Finding, judge
from llmchain_fl.replies import Refusal, read_reply
from simulations.audit.effort import Effort
from simulations.audit.own_run import FIRST, REHEARSAL, SECOND, Setting, small
from simulations.audit.own_scores import HELD_OUT, score_task
from simulations.audit.own_site import OwnSite, made_up_rows
from simulations.audit.replies import Seen
from simulations.audit.second_accountant import second_epsilon

DELTA = 1e-5
ABOVE, BELOW = 0.02, 1e-4
"""How much more, and less, than the second accountant the ledger may say, as a share."""
PEOPLE = ("ann", "bob", "eve")
TRAINED = Event("poisson-gaussian", 0.5, 2.0, 3)
"""A round of :func:`_setting`."""

Play = Callable[[OwnSite], list[list[Event]]]
"""Plays some rounds; the events of each group of people."""


def _setting(**plan: object) -> Setting:
    return Setting(small(steps=TRAINED.steps, **plan))  # type: ignore[arg-type]


def _rounds(site: OwnSite, setting: Setting, stages: tuple[str, ...], start: int = 1) -> int:
    """Play a round of each of ``stages``; how many of them were answered by an update."""
    played = 0
    for number, stage in enumerate(stages, start):
        played += "arrays" in site.train(setting.task(number, 1.0, stage=stage))
    return played


def _shared(site: OwnSite) -> list[list[Event]]:
    """Equal rounds add up, whatever the stage."""
    return [[TRAINED] * _rounds(site, _setting(), (FIRST, SECOND, FIRST))]


def _disjoint(site: OwnSite) -> list[list[Event]]:
    """Each person pays for one stage: the largest counts."""
    setting = _setting(stages="disjoint")
    first = _rounds(site, setting, (FIRST,))
    return [[TRAINED] * first, [TRAINED] * _rounds(site, setting, (SECOND,) * 3, 2)]


def _rehearsed(site: OwnSite) -> list[list[Event]]:
    """The earlier stage pays for the round in which it is rehearsed."""
    setting = _setting(stages="disjoint", rehearsal="earlier", guards=(REHEARSAL,))
    first = _rounds(site, setting, (FIRST, FIRST))
    reply = site.train(setting.task(3, 1.0, stage=SECOND, earlier=(FIRST,)))
    both = "arrays" in reply
    return [[TRAINED] * (first + both), [TRAINED] * both]


def _nameless(site: OwnSite) -> list[list[Event]]:
    """Units without names may be anybody: what they pay is added to every person's."""
    named = _rounds(site, _setting(), (FIRST, FIRST))
    site.say_alone(True)
    nameless = _rounds(site, _setting(), (FIRST,), 3)
    site.say_alone(False)
    return [[TRAINED] * (named + nameless + _rounds(site, _setting(), (SECOND,), 4))]


def _two_data_sets(site: OwnSite) -> list[list[Event]]:
    """The same people in two data sets of a site pay for both."""
    first = _rounds(site, _setting(), (FIRST, FIRST))
    site.take_data_set("another")
    return [[TRAINED] * (first + _rounds(site, _setting(), (FIRST,), 3))]


def _scores(site: OwnSite) -> list[list[Event]]:
    """Noised scores: one release for each stage asked for, paid by the held-out people."""
    setting = _setting(score_noise=3.0)
    site.write(FIRST, made_up_rows(setting.work.task, ["kim"]), HELD_OUT)
    reply = site.score(score_task(setting, setting.arrays(), (FIRST, SECOND)))
    return [[Event("gaussian", 1.0, 3.0, 2)] * ("scores" in reply)]


COURSES: Mapping[str, Play] = MappingProxyType(
    {
        "shared stages": _shared,
        "disjoint stages": _disjoint,
        "rehearsed stages": _rehearsed,
        "units without names": _nameless,
        "two data sets": _two_data_sets,
        "scores": _scores,
    }
)


def accounts(folder: Path, effort: Effort) -> list[Finding]:
    """All courses, and a site at its limit."""
    seen, shares, played = Seen(), {}, 0
    for name, play in COURSES.items():
        site = _site(folder / name.replace(" ", "-"), seen)
        groups = play(site)
        played += sum(map(len, groups))
        truth = max(second_epsilon(events, DELTA) for events in groups)
        shares[name] = site.spent().epsilon / truth if truth else 0.0
    low, high = min(shares, key=lambda n: shares[n]), max(shares, key=lambda n: shares[n])
    allowed = (1 - BELOW, 1 + ABOVE)
    words = "Epsilon in the ledger over that of a second accountant"
    return [
        judge("least epsilon on record", shares[low], allowed, f"{words}; {low}."),
        judge("largest epsilon on record", shares[high], allowed, f"{words}; {high}."),
        equal_counts("rounds of the courses", 3 + 4 + 4 + 4 + 3 + 1, played, "Rounds that were answered."),
        *_limit(folder / "limit", seen),
        seen.finding("accounts"),
    ]


def _site(folder: Path, seen: Seen, epsilon: float = 1e6) -> OwnSite:
    site = OwnSite(folder, seen, epsilon=epsilon)
    rows = made_up_rows(_setting().work.task, PEOPLE)
    return site.write(FIRST, rows).write(SECOND, rows)


def _limit(folder: Path, seen: Seen) -> list[Finding]:
    """A limit between three and four rounds: three are answered, each later one is refused as ``budget``, for free."""
    three, four = (second_epsilon([TRAINED] * count, DELTA) for count in (3, 4))
    site = _site(folder, seen, epsilon=(three + four) / 2)
    played = _rounds(site, _setting(), (FIRST,) * 3)
    before = site.lines()
    late = [site.train(_setting().task(number, 1.0, stage=stage)) for number, stage in ((4, FIRST), (5, SECOND))]
    late.append(site.train(_setting(noise_multiplier=0.02).task(6, 1.0)))
    codes = [answer.code if isinstance(answer := read_reply(reply), Refusal) else "none" for reply in late]
    wrong = sum(code != "budget" for code in codes)
    written = len(site.lines()) - len(before)
    return [
        equal_counts("rounds within the limit", 3, played, "Rounds of a site whose limit lies above three of them."),
        never("rounds beyond the limit", wrong, "Later rounds that were not refused as `budget`."),
        never("written by a refusal", written, "Lines in the ledger of rounds that were refused for the budget."),
    ]
