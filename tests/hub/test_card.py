"""The card: every number names its file, nothing of it is HTML, and the Hugging Face hub reads it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from llmchain_fl.core.errors import ConfigError
from llmchain_fl.hub import HubError, Trust, layout, verified
from llmchain_fl.hub.card import Card, read_card
from llmchain_fl.hub.card_page import page, shown
from llmchain_fl.hub.evidence import read_statement
from llmchain_fl.hub.recompute import recomputed
from llmchain_fl.hub.strict_json import parse_object

HOSTILE = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[a](javascript:alert(1))",
    "![a](http://x.org/a.png)",
    "http://x.org www.x.org a@x.org <http://x.org>",
    "| a | b |\n|---|---|\n# big",
    "---\nlicense: mit\n---",
    "`code` ``` ~~~ **b** _i_ &lt;b&gt; &#60;b&#62;",
    "\x1b[31m \u202e \x00 \ud800",
    "- item\n1. item\n> quote\n    code",
)


@pytest.fixture(scope="module")
def card(published: Any) -> Card:
    return read_card((published.folder() / layout.CARD).read_bytes())


def rendered(text: str) -> str:
    from markdown_it import MarkdownIt

    body = text.split("\n---\n", 1)[1]
    return str(MarkdownIt("gfm-like", {"html": True, "linkify": False}).render(body))


def with_text(tree: Any, text: str) -> Any:
    """The same card with every text, but for those of a file or a choice, replaced."""
    if isinstance(tree, dict):
        return {key: value if key in ("source", "at") else with_text(value, text) for key, value in tree.items()}
    if isinstance(tree, list):
        return [with_text(value, text) for value in tree]
    return text if isinstance(tree, str) else tree


@pytest.mark.parametrize("text", HOSTILE)
def test_no_shown_field_can_hold_html_markdown_or_front_matter(card: Card, text: str) -> None:
    plain = Card.model_validate(with_text(card.model_dump(), "plain"))
    hostile = Card.model_validate(with_text(card.model_dump(), text))
    made = page(hostile)
    made.encode()
    assert len(re.findall(r"^---$", made, re.M)) == 2
    tags = [re.sub(r"\s.*", "", tag) for tag in re.findall(r"<[^>]*>", rendered(made))]
    assert tags == [re.sub(r"\s.*", "", tag) for tag in re.findall(r"<[^>]*>", rendered(page(plain)))]
    front = yaml.safe_load(made.split("---\n")[1])
    assert set(front) == set(yaml.safe_load(page(plain).split("---\n")[1]))
    assert front["license"] == "other"
    assert not re.search(r"https?://|www\.\w|[\x00-\x08\x0b-\x1f\u202e]", made.split("\n---\n", 1)[1])


@given(st.text(max_size=60))
@example("a\nb")
@example("\\|")
def test_a_shown_text_is_one_line_without_a_bare_sign_of_html_or_markdown(text: str) -> None:
    found = shown(text)
    assert not re.search(r"[\n\r<>\"']", found)
    assert not re.search(r"(?<!\\)(?:\\\\)*[`*_\[\]|!#~@]", re.sub(r"&#39;", "", found))


def test_the_hugging_face_hub_reads_the_front_matter(published: Any) -> None:
    from huggingface_hub import ModelCard

    read = ModelCard.load(published.folder() / layout.README)
    assert read.data.base_model == "tiny-bert"
    assert read.data.library_name == "peft"
    assert read.data.eval_results
    assert {one.metric_type for one in read.data.eval_results} >= {"accuracy"}


def test_plain_peft_opens_the_folder(published: Any, small: Any) -> None:
    from peft import PeftModel
    from transformers import AutoModel

    model = PeftModel.from_pretrained(AutoModel.from_pretrained(small.bert), str(published.folder()))
    own = verified(published.folder(), Trust({"n": published.own.public})).arrays
    theirs = {name: value for name, value in model.named_parameters() if "lora_" in name}
    assert len(theirs) == sum("lora_" in name for name in own)
    for name, value in theirs.items():
        short = name.removeprefix("base_model.model.").replace(".default.weight", "")
        assert (value.detach().numpy() == own[short]).all()


def test_every_number_names_a_file_of_the_folder_that_holds_it(published: Any, card: Card) -> None:
    numbers = []

    def collect(tree: Any) -> None:
        if isinstance(tree, dict) and set(tree) == {"value", "source", "at"}:
            numbers.append(tree)
        for inner in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ():
            collect(inner)

    collect(card.model_dump())
    bare = re.findall(r": (-?\d[\d.e-]*)", json.dumps(with_text(card.model_dump(), "")))
    assert len(numbers) > 20
    assert len(bare) == sum(number["value"] is not None for number in numbers) + 2, "format and version alone are bare"
    for number in numbers:
        data = (published.folder() / number["source"]).read_bytes()
        if number["source"].endswith(".json") and number["at"] in ("round", "delta", "lines"):
            assert json.loads(data)[number["at"]] == number["value"]
        if number["at"].startswith("r_matrix"):
            assert json.dumps(number["value"]).encode() in data


def test_everything_that_can_be_computed_anew_holds_for_a_real_run(published: Any) -> None:
    found = {
        check.name: check for check in recomputed(verified(published.folder(), Trust({"n": published.own.public})))
    }
    assert all(check.holds is not False for check in found.values()), found
    assert {name for name, check in found.items() if check.holds} >= {
        "card", "page", "epsilon", "epsilon over rounds", "accuracy", "R", "means of R", "intervals", "rounds"
    }  # fmt: skip


def test_the_card_says_what_the_promise_is_and_what_it_is_not(card: Card) -> None:
    privacy = card.privacy
    assert privacy.private
    assert "delta 1e-5" in privacy.promise
    assert (privacy.unit, privacy.accountant, privacy.adjacency) == ("person", "pld", "add-or-remove-one")
    assert "need not trust the server" in privacy.trusts
    assert privacy.epsilon is not None
    assert privacy.epsilon.value is not None
    assert privacy.epsilon.value > 0
    assert len(privacy.not_covered) == 3
    assert card.stream.tasks == ["first", "second"]
    assert {"forgetting", "bwt"} <= set(card.stream.summary)


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b'{"data":""}', "data"),
        (b'{"data":"a","intended_use":"b","refused_use":"c","licence":"d","more":1}', "more"),
        (b'{"data":1,"intended_use":"b","refused_use":"c","licence":"d"}', "data"),
        (b'{"data":"a"}', "licence"),
    ],
)
def test_a_statement_that_lacks_something_is_named(data: bytes, word: str) -> None:
    with pytest.raises(ConfigError, match=rf"the statement: {word} is"):
        read_statement(data)


@pytest.mark.parametrize(
    ("data", "word"),
    [(b"[]", "form"), (b"\xff", "form"), (b'{"a":1,"a":2}', "form"), (b'{"a":Infinity}', "form"),
     (b'{"a":1e999}', "form"), (b'{"a":' * 20 + b"1" + b"}" * 20, "size"), (b'{"a":' + b"9" * 5000 + b"}", "form"),
     (b"{}" + b" " * 100, "size")],
)  # fmt: skip
def test_each_row_of_the_table_of_strict_json(data: bytes, word: str) -> None:
    with pytest.raises(HubError) as refused:
        parse_object(data, "it", 100 if word == "size" and data[:2] == b"{}" else 10_000)
    assert refused.value.check == word


def test_a_folder_name_is_shown_whole_in_a_refusal_but_moves_no_cursor(tmp_path: Path) -> None:
    with pytest.raises(HubError) as refused:
        layout.read_inside(tmp_path, "a\x1b[2J", 10)
    assert "\x1b" not in str(refused.value)
