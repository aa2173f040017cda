"""Calendars: the run's and each site's. The reference here lays every round out one by one, in a list."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchain_fl.config.calendar import (
    absent_sites,
    calendar,
    most_scores,
    present_sites,
    sampling_rate,
    site_calendar,
    site_order,
    span_of,
    stages_in_order,
    stages_seen,
    taught_in,
    to_come,
    to_score,
    unknown_sites,
)
from llmchain_fl.config.schema import RunConfig
from llmchain_fl.config.stream import StreamConfig
from llmchain_fl.config.stream_faults import stream_faults
from llmchain_fl.config.write import to_toml
from llmchain_fl.core.errors import RunError

SITES = ("north", "south", "west")


def run(*rounds: int, minimum: int = 1, **stream: Any) -> RunConfig:
    """Stages ``a``, ``b``, ... of so many rounds."""
    stages = [{"name": "abcdef"[i], "rounds": n} for i, n in enumerate(rounds)]
    tree = {"task": {"labels": ["x"]}, "data": {"train": "x"}, "sites": {"count": 3, "minimum": minimum}}
    return RunConfig.model_validate({**tree, "stage": stages, "stream": stream})


@st.composite
def streams(draw: st.DrawFn) -> RunConfig:
    """Any stream without a fault: 1 to 4 stages, any order, any arrivals of three sites."""
    rounds = draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    names, total = list("abcd")[: len(rounds)], sum(rounds)
    arrivals = {}
    for site in draw(st.sets(st.sampled_from(SITES))):
        joins = draw(st.integers(1, total))
        when = {"joins": joins, "leaves": draw(st.just(0) | st.integers(joins, total + 2))}
        own = {
            "order": draw(st.lists(st.sampled_from(names), unique=True)),
            "offset_rounds": draw(st.integers(0, total - 1)),
        }
        faulty = stream_faults(run(*rounds).model_copy(update={"stream": arrival_of(site, **when, **own)}))
        arrivals[site] = when if faulty else {**when, **own}
    return run(*rounds, order=draw(st.just([]) | st.permutations(names)), arrival=arrivals)


def arrival_of(site: str, **settings: Any) -> StreamConfig:
    return StreamConfig.model_validate({"arrival": {site: settings}})


def by_hand(config: RunConfig, site: str) -> dict[int, str]:
    """Round -> stage of a site, from a list with one entry a round."""
    rounds = {stage.name: stage.rounds for stage in config.stage}
    mine = config.stream.arrival.get(site)
    order = (mine.order if mine else []) or config.stream.order or list(rounds)
    played = [name for name in order for _ in range(rounds[name])]
    found = dict(enumerate(played, start=1 + (mine.offset_rounds if mine else 0)))
    first, last = (mine.joins, mine.leaves or sum(rounds.values())) if mine else (1, sum(rounds.values()))
    return {n: name for n, name in found.items() if first <= n <= min(last, sum(rounds.values()))}


@given(streams())
def test_in_every_round_every_site_is_where_its_list_of_rounds_says_or_not_there(config: RunConfig) -> None:
    order = [stage.name for stage in stages_in_order(config)]
    for site in SITES:
        wanted = by_hand(config, site)
        for number in range(config.total_rounds + 4):
            span = span_of(config, site, number)
            at = None if span is None else span.stage
            assert (None if at is None else order[at]) == wanted.get(number)


@given(streams())
def test_the_rounds_of_a_site_add_up_and_no_stage_takes_more_than_its_own(config: RunConfig) -> None:
    rounds = {stage.name: stage.rounds for stage in config.stage}
    for site in SITES:
        spans = site_calendar(config, site)
        covered = [number for span in spans for number in range(span.first, span.last + 1)]
        assert covered == sorted(set(covered)) == sorted(by_hand(config, site))
        assert len({span.name for span in spans}) == len(spans)
        assert all(span.last - span.first < rounds[span.name] == span.rounds for span in spans)


@given(streams())
def test_an_order_permutes_the_rows_and_changes_nothing_else(config: RunConfig) -> None:
    plain = calendar(config.model_copy(update={"stream": StreamConfig()}))
    ordered = calendar(config)
    assert [span.name for span in ordered] == (config.stream.order or [span.name for span in plain])
    assert [span.stage for span in ordered] == list(range(len(plain)))
    assert sorted((s.name, s.last - s.first) for s in ordered) == sorted((s.name, s.last - s.first) for s in plain)
    assert ordered[-1].last == plain[-1].last == config.total_rounds


@given(streams())
def test_what_a_site_has_met_is_to_score_and_what_is_to_come_follow_its_rounds(config: RunConfig) -> None:
    for site in SITES:
        days = by_hand(config, site)
        leaves = config.stream.arrival[site].leaves if site in config.stream.arrival else 0
        assert site_order(config, site) == list(dict.fromkeys(days.values()))
        for number in range(config.total_rounds + 2):
            past = list(dict.fromkeys(name for n, name in days.items() if n <= number))
            assert stages_seen(config, site, number) == past
            assert to_score(config, site, number) == ([] if leaves and number > leaves else past)
            assert to_come(config, site, number) == list(dict.fromkeys(name for n, name in days.items() if n > number))


@given(streams(), st.integers(1, 20))
def test_what_is_taught_in_a_round_is_where_the_run_is_and_where_each_site_is(config: RunConfig, number: int) -> None:
    there = [by_hand(config, site).get(number) for site in ("on the run's calendar", *config.stream.arrival)]
    assert set(taught_in(config, number)) == {name for name in there if name is not None}
    joint = config.model_copy(update={"stream": config.stream.model_copy(update={"play": "joint"})})
    assert taught_in(joint, number) == (["joint"] if any(there) else [])


@given(streams())
def test_the_most_scores_are_those_of_the_site_that_is_asked_most(config: RunConfig) -> None:
    ends = [span.last for span in calendar(config)]
    asked = [sum(len(to_score(config, site, end)) for end in ends) for site in (*SITES, "on the run's calendar")]
    assert most_scores(config) == max(asked)


@given(streams())
def test_a_stream_survives_its_file_and_gives_the_same_calendars(config: RunConfig) -> None:
    again = RunConfig.model_validate(tomllib.loads(to_toml(config)))
    assert again == config
    assert [site_calendar(again, site) for site in SITES] == [site_calendar(config, site) for site in SITES]


@given(streams(), st.data())
def test_announced_ends_leave_every_round_in_one_stage_and_later_stages_as_long_as_they_were(
    config: RunConfig, data: st.DataObject
) -> None:
    ended: dict[str, int] = {}
    for stage in stages_in_order(config):
        span = next(s for s in calendar(config, ended) if s.name == stage.name)
        if data.draw(st.booleans()):
            ended[stage.name] = data.draw(st.integers(span.first, span.last))
    spans = calendar(config, ended)
    assert [n for s in spans for n in range(s.first, s.last + 1)] == list(range(1, spans[-1].last + 1))
    for span in spans:
        assert span.last == ended.get(span.name, span.start + span.rounds - 1)


@pytest.mark.parametrize("last", [0, 2, 6])
def test_an_end_outside_its_stage_is_refused_with_its_rounds(last: int) -> None:
    with pytest.raises(RunError, match=rf"round {last}; it has rounds 3 to 5"):
        calendar(run(2, 3), {"b": last})


def test_a_site_with_short_stages_first_is_asked_for_more_scores_than_the_calendar_would() -> None:
    assert most_scores(run(10, 1, 1)) == 1 + 2 + 3
    assert most_scores(run(10, 1, 1, arrival={"north": {"order": ["c", "b", "a"]}})) == 3 + 3 + 3


# -- who is there -----------------------------------------------------------------------------------------------------


def test_sites_train_on_their_own_stage_in_one_and_the_same_round() -> None:
    config = run(2, 2, arrival={"south": {"order": ["b", "a"]}, "west": {"offset_rounds": 1}})
    assert present_sites(config, SITES, 1) == {"north": "a", "south": "b"}
    assert present_sites(config, SITES, 2) == {"north": "a", "south": "b", "west": "a"}
    assert present_sites(config, SITES, 4) == {"north": "b", "south": "a", "west": "b"}


@given(streams())
def test_who_is_elsewhere_and_who_is_there_are_all_sites(config: RunConfig) -> None:
    for number in range(1, sum(stage.rounds for stage in config.stage) + 1):
        away = absent_sites(config, number)
        assert set(away) <= set(config.stream.arrival)
        assert {*present_sites(config, SITES, number)} == {site for site in SITES if site not in away}


@pytest.mark.parametrize(("minimum", "asked"), [(1, ["north"]), (2, [])])
def test_fewer_sites_than_make_a_round_are_not_asked_at_all(minimum: int, asked: list[str]) -> None:
    config = run(2, 2, minimum=minimum, arrival={"south": {"joins": 3}, "west": {"leaves": 0, "joins": 3}})
    assert list(present_sites(config, SITES, 1)) == asked
    assert list(present_sites(config, SITES, 3)) == list(SITES)


def test_nobody_at_all_is_nobody() -> None:
    config = run(3, arrival={site: {"joins": 2, "leaves": 2} for site in SITES})
    assert [list(present_sites(config, SITES, number)) for number in (1, 2, 3)] == [[], list(SITES), []]


# -- joint ------------------------------------------------------------------------------------------------------------


def test_a_joint_run_trains_on_all_records_under_one_name() -> None:
    config = run(2, 3, play="joint", arrival={"west": {"joins": 3}})
    assert present_sites(config, SITES, 1) == {"north": "joint", "south": "joint"}
    assert to_come(config, "west", 0) == ["joint"]
    assert to_come(config, "west", 5) == []
    assert stages_seen(config, "north", 3) == ["a", "b"]


@pytest.mark.parametrize(("play", "rate"), [("sequence", 0.3), ("alone", 0.3), ("joint", 0.1)])
def test_a_joint_batch_is_as_large_as_that_of_one_stage(play: str, rate: float) -> None:
    config = run(1, 1, 1, play=play)
    config = config.model_copy(update={"train": config.train.model_copy(update={"sampling_rate": 0.3})})
    assert sampling_rate(config) == pytest.approx(rate)


def test_an_arrival_of_a_site_that_is_not_there_is_told_the_nearest_name() -> None:
    config = run(2, arrival={"nort": {"joins": 2}, "west": {"joins": 2}})
    assert unknown_sites(config, SITES) == ['stream.arrival."nort": there is no such site; did you mean north?']
