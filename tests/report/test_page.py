from __future__ import annotations

import math
import re
from collections.abc import Callable
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchain_fl.metrics_file import by_site
from llmchain_fl.report import plots
from llmchain_fl.report.figure import NIGHT, apart, by_itself, styles
from llmchain_fl.report.page import write_report
from llmchain_fl.report.readings import Readings
from llmchain_fl.run_dir import RunDir

Rows = list[dict[str, Any]]
Maker = Callable[..., Rows]
VOID = {"meta", "link", "img", "br", "hr", "input"}
HOSTILE = "<script>alert(1)</script>\"' & $\\frac{x --> \x01 {{ 7 * 7 }}"


class Page(HTMLParser):
    """A page taken apart: its tags with their attributes, its text, and whether every tag was closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text, self.open, self.faults = "", list[str](), list[str]()
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.faults.append(tag)

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.text += data

    def ids(self, tag: str) -> list[str | None]:
        return [attrs["id"] for name, attrs in self.tags if name == tag and "id" in attrs]


@pytest.fixture
def publish(tmp_path: Path, config_toml: str) -> Callable[[Rows, dict[str, Any]], str]:
    def _publish(rows: Rows, privacy: dict[str, Any]) -> str:
        run = RunDir.create(tmp_path / "demo-1", config_toml)
        run.append_rows(rows)
        if privacy:
            run.write_privacy(privacy)
        assert write_report(run) == run.report
        return run.report.read_text(encoding="utf-8")

    return _publish


Publish = Callable[[Rows, dict[str, Any]], str]
Privacy = Callable[[Rows], dict[str, Any]]


@pytest.fixture(scope="module")
def standard(
    tmp_path_factory: pytest.TempPathFactory, config_toml: str, make_rows: Maker, make_privacy: Privacy
) -> str:
    """The page of the whole, private run."""
    run = RunDir.create(tmp_path_factory.mktemp("runs") / "demo-1", config_toml)
    rows = make_rows()
    run.append_rows(rows)
    run.write_privacy(make_privacy(rows))
    return write_report(run).read_text(encoding="utf-8")


def test_the_page_is_whole_and_has_every_section(standard: str) -> None:
    page = Page(standard)
    assert page.faults == []
    assert page.open == []
    assert page.ids("section") == [
        "answers", "numbers", "kept", "sites", "privacy", "traffic", "refused", "settings",
    ]  # fmt: skip
    assert sum(tag == "svg" for tag, _ in page.tags) == 5
    for words in (
        "Bank assistant: three departments, one after the other",  # the title of the run
        "Is it good enough to use?",
        "Is it better than my site alone?",
        "Who took part?",
        "Is it private enough, and who says so?",
        "What next?",
        "Stage 2 (travel), learned: 89.5% ±",
        "23.0 points better than the untrained adapter (66.5%, margin",
        "delta 1e-5, per record, PLD accountant, noise added at each site",
        "within",
        "norm 41.2 above the bound 10",
        "epsilon = 8.0",  # the settings
        "numpy",
    ):
        assert words in page.text


def test_the_page_of_a_run_that_ended_early_says_so_before_anything_else(
    publish: Publish, make_rows: Maker, make_privacy: Privacy
) -> None:
    rows = make_rows(rounds=5)
    ended = {**rows[-1], "scope": "run", "site": None, "metric": "stopped", "value": 5.0, "planned": 9, "stage": -1}
    text = publish(
        [*rows, {**ended, "round": 5, "reason": "every <b>site</b> has used up its budget"}], make_privacy(rows)
    )
    first = '<p class="lead off">STOPPED after 5 of 9 rounds: every &lt;b&gt;site&lt;/b&gt; has used up its budget.</p>'
    assert first in text
    assert text.index(first) < text.index("After 5 rounds")
    assert Page(text).faults == []


def test_the_page_of_a_run_that_went_to_its_end_has_no_such_mark(standard: str) -> None:
    assert 'class="lead off"' not in standard
    assert "STOPPED" not in standard


def test_the_page_loads_nothing(standard: str) -> None:
    page, text = Page(standard), standard
    for tag, attrs in page.tags:
        assert tag not in {"script", "link", "iframe", "img", "object", "embed", "base", "image"}
        for name in ("src", "href", "xlink:href", "action", "data", "srcset"):
            assert (attrs.get(name) or "#").startswith("#")
    assert "http://" not in text
    assert "https://" not in text
    assert all(target.startswith("#") for target in re.findall(r"url\(\s*['\"]?([^)]*)", text))
    assert "@import" not in text
    policies = [attrs["content"] for tag, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy"]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'"]


def test_every_reference_inside_the_page_has_one_target(standard: str) -> None:
    ids = re.findall(r'\sid="([^"]*)"', standard)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:href="|url\()#([^")]*)', standard)) <= set(ids)


def test_a_hostile_name_is_text_and_nothing_else(publish: Publish, make_rows: Maker, make_privacy: Privacy) -> None:
    rows = [row | {"site": HOSTILE} if row["site"] == "site-05" else row for row in make_rows()]
    rows = [row | {"task": HOSTILE} if row["task"] == "cards" else row for row in rows]
    rows = [row | {"reason": HOSTILE} if row["metric"] == "refused" else row for row in rows]
    page = Page(publish(rows, make_privacy(rows) | {"unit": HOSTILE}))
    assert page.faults == []
    assert page.open == []
    assert "script" not in {tag for tag, _ in page.tags}
    assert "alert" not in " ".join(str(attrs) for _, attrs in page.tags)
    assert page.text.count("<script>alert(1)</script>") > 5
    assert "{{ 7 * 7 }}" in page.text


def test_a_run_without_privacy_says_so_and_draws_no_epsilon(publish: Publish, make_rows: Maker) -> None:
    page = Page(publish(make_rows(private=False), {"private": False, "sites": {}}))
    assert "No privacy was asked for." in page.text
    assert "updates are not protected" in page.text
    assert sum(tag == "svg" for tag, _ in page.tags) == 4


def test_a_run_of_one_task_and_one_round_has_a_page(publish: Publish, make_rows: Maker, make_privacy: Privacy) -> None:
    rows = make_rows(tasks=("all",), rounds=1)
    page = Page(publish(rows, make_privacy(rows)))
    assert page.faults == []
    assert "After 1 round at 6 sites, the accuracy on held-out records is 75.0%" in page.text
    assert "No update was refused." in page.text


def test_a_run_that_wrote_nothing_still_has_a_page(publish: Publish) -> None:
    page = Page(publish([], {}))
    assert page.faults == []
    assert "Nothing has been scored yet" in page.text
    assert "No score was measured." in page.text


def test_a_loss_run_and_values_that_were_not_measured_have_a_page(publish: Publish, make_rows: Maker) -> None:
    rows = [row | {"value": math.nan} if row["round"] in (2, 9) else row for row in make_rows("loss")]
    page = Page(publish(rows, {}))
    assert page.faults == []
    assert "lower is better" in page.text
    assert " nan" not in page.text


def test_a_site_over_its_target_stands_out(publish: Publish, make_rows: Maker, make_privacy: Privacy) -> None:
    rows = make_rows()
    page = Page(publish(rows, make_privacy(rows) | {"target_epsilon": 5.5}))
    assert page.text.count("OVER THE TARGET") == 1
    assert [attrs.get("class") for tag, attrs in page.tags if tag == "div"].count("answer no") == 1
    assert [attrs.get("class") for tag, attrs in page.tags if tag == "tr"].count("over") == 1


def test_the_meaning_of_epsilon_is_the_odds_of_a_guess(publish: Publish, make_rows: Maker) -> None:
    plan = {"private": True, "delta": 1e-5, "unit": "record", "accountant": "pld"}
    text = publish(make_rows(private=False), plan | {"sites": {"a": {"epsilon": math.log(7)}}})
    assert "by a factor of at most 7.00" in " ".join(Page(text).text.split())


def test_a_page_written_again_is_the_same_page(publish: Publish, make_rows: Maker, tmp_path: Path) -> None:
    first = publish(make_rows(rounds=2), {})
    write_report(RunDir.open(tmp_path / "demo-1"))
    assert (tmp_path / "demo-1" / "report.html").read_text(encoding="utf-8") == first


def test_settings_that_are_no_toml_are_shown_as_they_are(tmp_path: Path, make_rows: Maker) -> None:
    run = RunDir.create(tmp_path / "odd-1", "title = <b>")
    run.append_rows(make_rows(rounds=1))
    page = Page(write_report(run).read_text(encoding="utf-8"))
    assert "title = <b>" in page.text
    assert "odd-1" in page.text


def test_plots_of_nothing_are_empty(make_rows: Maker) -> None:
    nothing = Readings([])
    for plot in (plots.scores, plots.guards, plots.traffic, plots.site_scores, plots.update_norms):
        assert plot(nothing) == ""
    assert plots.epsilon(nothing, {}) == ""
    assert plots.epsilon(Readings(make_rows()), {"private": False}) == ""
    blind = [row | {"value": math.nan} for row in make_rows()]
    for plot in (plots.scores, plots.guards, plots.traffic, plots.site_scores, plots.update_norms):
        assert plot(Readings(blind)) == ""
    assert plots.epsilon(Readings(blind), {}) == ""


def test_the_epsilon_plot_names_its_terms_and_the_target(make_rows: Maker) -> None:
    text = Page(plots.epsilon(Readings(make_rows()), {"private": True, "target_epsilon": 8.0})).text
    assert "epsilon (delta 1e-5, per record, PLD accountant, noise added at each site)" in text
    assert "target 8" in text


def test_sites_with_the_same_epsilon_share_one_line(make_rows: Maker) -> None:
    rows = [row | {"value": 0.5 * row["round"]} if row["metric"] == "epsilon" else row for row in make_rows()]
    text = Page(plots.epsilon(Readings(rows), {})).text
    assert "site-00 and 5 more 4.50" in text
    assert "site-01" not in text


def test_many_sites_and_stages_are_drawn_without_crowding(make_rows: Maker) -> None:
    base = {"round": 1, "stage": 0, "scope": "site", "task": "all", "n": 5}
    rows = [base | {"scope": "global", "metric": "accuracy", "value": 0.5}]
    rows += [base | {"site": f"s{k:03d}", "metric": "accuracy", "value": k / 100} for k in range(60)]
    rows += [base | {"site": f"s{k:03d}", "metric": "update_norm", "value": 1.0 + k} for k in range(60)]
    bars = Page(plots.site_scores(Readings(rows))).text
    assert "the 24 worst served of 60 sites" in bars
    assert "s023" in bars
    assert "s024" not in bars
    named = re.findall(r"s\d{3}", Page(plots.update_norms(Readings(rows))).text.split("round")[-1])
    assert set(named) == {"s000", "s059"}


def test_drawing_leaves_matplotlib_as_it_was(make_rows: Maker) -> None:
    with mpl.rc_context():
        mpl.rcdefaults()
        before = dict(mpl.rcParams)
        plots.scores(Readings(make_rows()))
        assert dict(mpl.rcParams) == before


def test_dollar_signs_in_a_name_are_no_formula(make_rows: Maker) -> None:
    rows = [row | {"site": "a $\\frac$ b"} if row["site"] == "site-05" else row for row in make_rows()]
    assert "a $\\frac$ b" in Page(plots.site_scores(Readings(rows))).text
    assert "a $\\frac$ b" in Page(plots.epsilon(Readings(rows), {})).text


def test_a_page_can_be_dark_and_narrow_and_paper_is_always_light(standard: str) -> None:
    dark = standard[standard.index("@media screen and (prefers-color-scheme: dark)") :]
    assert all(f"--p{day[1:]}: {night};" in dark[: dark.index("* { box-sizing")] for day, night in NIGHT.items())
    assert standard.count("prefers-color-scheme") == 1  # for the screen alone
    assert "@media screen and (max-width: 40rem)" in standard
    assert "@page { size: A4;" in standard


def test_every_colour_of_a_plot_is_another_one_on_a_dark_page(standard: str) -> None:
    drawn = "".join(re.findall(r"<svg.*?</svg>", standard, re.S))
    used = set(re.findall(r"(?<!, )#[0-9a-f]{6}\b", drawn))
    assert used == set()
    assert set(re.findall(r"var\(--p[0-9a-f]{6}, (#[0-9a-f]{6})\)", drawn)) <= set(NIGHT)


def test_a_plot_by_itself_brings_its_own_colours(make_rows: Maker) -> None:
    alone = by_itself(plots.scores(Readings(make_rows())))
    assert "var(" not in alone
    assert "#0072b2" in alone
    assert "background: white" in alone


def test_scores_are_drawn_over_what_they_are_held_against(make_rows: Maker) -> None:
    rows = make_rows()
    base = {"round": 0, "stage": -1, "scope": "baseline", "n": 150}
    rows += [base | {"task": task, "metric": "majority", "value": 0.11} for task in ("cards", "travel", "utility")]
    rows += [base | {"task": "cards", "metric": "ridge_all", "value": 0.93}]
    text = Page(plots.scores(Readings(rows))).text
    assert text.count("majority 11.0%") == 3
    assert text.count("head on frozen base 93.0%") == 1
    assert "untrained 62.0%" in text
    assert "chance" not in text


def test_lines_differ_in_more_than_colour() -> None:
    looks = styles(7)
    assert len({(style.linestyle, style.marker) for style in looks}) == len(looks)


@given(st.lists(st.floats(-100, 100), max_size=12).map(sorted), st.floats(0.01, 50))
def test_labels_moved_apart_keep_their_order_their_distance_and_their_mean(wanted: list[float], step: float) -> None:
    places = apart(wanted, step)
    assert len(places) == len(wanted)
    assert all(b - a >= step - 1e-6 for a, b in pairwise(places))
    assert sum(places) == pytest.approx(sum(wanted), abs=1e-6)
    if all(b - a >= step for a, b in pairwise(wanted)):
        assert places == pytest.approx(wanted)


def test_ten_thousand_sites_are_told_together(publish: Callable[[Rows, dict[str, Any]], str]) -> None:
    rows: Rows = [
        {"round": 0, "stage": -1, "scope": "global", "site": None, "task": "all", "metric": "accuracy", "value": 0.5}
    ]
    base = {"stage": 0, "scope": "site", "task": "all", "n": None}
    terms = {"delta": 1e-5, "unit": "person", "accountant": "pld"}
    told: dict[str, Any] = {"bytes_up": {}, "update_norm": {}, "refused": {"reason": "norm"}, "epsilon": terms}
    for number in (1, 2, 3):
        for metric, more in told.items():
            rows += by_site(
                {**base, "round": number, "site": f"site-{n:05d}", "metric": metric, "value": number + n / 1e5, **more}
                for n in range(10_000)
            )
    spent = {f"site-{n:05d}": {"epsilon": 3 + n / 1e5, "rounds": 3} for n in range(10_000)}
    text = publish(rows, {"private": True, **terms, "sites": spent})
    page = Page(text)
    assert page.faults == []
    assert len(text) < 400_000
    assert text.count("\n") < 3_000
    assert "10,000 sites sent updates in 3 rounds" in page.text
    assert "highest of 10,000" in page.text
    assert "site-09999" in page.text  # where the most was spent
    assert "site-00001" not in page.text
    assert "and 9,900 more; privacy.json has them all" in page.text
