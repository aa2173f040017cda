"""Questions to public passages: a run, its adapter published and served, answered with the passage or not at all.

::

    OUT/run/             the run
    OUT/desk/            hub, key, adapter and serve.toml, as `llmchain-fl serve new` makes them, with the passages
    OUT/outcome.json     what came of the questions

Half of the questions are public ones from which ``abstain_below`` is found (:func:`abstain_below`: the share of right
answers among those that are given); a question that no passage answers is right if nothing is answered, so whatever is
answered to it is wrong. What is new in the other half is asked of the server with that threshold, as anybody would.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import pydantic
from pydantic import Field

from llmchain_fl.api.run import run as simulate
from llmchain_fl.atomic_file import write_json
from llmchain_fl.config.read import build
from llmchain_fl.config.schema import RunConfig
from llmchain_fl.core.data.lists import Listed, items_of
from llmchain_fl.core.errors import ConfigError
from llmchain_fl.core.section import NAME, Section, faults_in
from llmchain_fl.core.tasks.answers import exact
from llmchain_fl.core.tasks.kind import task_kind
from llmchain_fl.core.toml_file import read_toml
from llmchain_fl.data.source import read_rows
from llmchain_fl.evaluation.abstain import abstain_below
from llmchain_fl.feedback.teller import Teller
from llmchain_fl.hub.evidence import Statement
from llmchain_fl.loop.desk import bare_base, listening, rounds_told
from llmchain_fl.loop.people import passages_of
from llmchain_fl.loop.settings import loop_tree
from llmchain_fl.serve.new import make_server, write_serve_file
from llmchain_fl.serve.settings import read_settings

Say = Callable[[str], None]
PLACE = "answer_start"
"""The column of a kind of task whose answers are pieces of a passage."""
PERSON = "nurse"
"""To whom the token of the server belongs."""


class AnswersConfig(Section):
    """What is done with what the run has learned."""

    name: Annotated[str, Field(pattern=NAME)]
    """Of the adapter, in the hub."""
    passages: str
    """Public passages: records with `text` and `id`, or `generated:leaflets`."""
    questions: str
    """Public questions with `answers` that stand in the passages (split `test`)."""
    unanswerable: str
    """Public questions that no passage answers (split `test`)."""
    count: Annotated[int, Field(ge=20, le=100_000)] = 120
    """Of each kind of question; half of them find the threshold, half are asked of it."""
    accuracy: Annotated[float, Field(ge=0, lt=1)] = 0.8
    """Of the answers that are given, with 95 % confidence: `abstain_below` follows from it."""
    statement: dict[str, Any]
    """What the card says of data and use (docs/hub.md)."""


@dataclass(frozen=True)
class Question:
    """``right``: answers that count; none: no passage answers it."""

    text: str
    right: tuple[str, ...]


@dataclass(frozen=True)
class Asked:
    """A question as the server answered it. ``piece``: None: it abstained; ``passage``: its id, "": none was shown."""

    question: Question
    piece: str | None
    chance: float
    passage: str

    @property
    def correct(self) -> bool:
        """Whether what was answered is one of the right answers."""
        return self.piece is not None and exact(self.piece, self.question.right) == 1.0


@dataclass(frozen=True)
class Outcome:
    """Of the questions that were not used to find ``threshold``. ``right`` of ``answered``; both kinds of silence."""

    threshold: float
    answerable: int
    unanswerable: int
    answered: int
    right: int
    abstained_answerable: int
    abstained_unanswerable: int


@dataclass(frozen=True)
class Answers:
    """A whole file, checked."""

    config: RunConfig
    answers: AnswersConfig
    statement: Statement


def read_answers(name: str, given: Sequence[str] = ()) -> Answers:
    """A shipped file with a table ``[answers]``, or one by its path, with ``--set`` values laid over it.

    Raises:
        ConfigError: there is none of this name, or it has faults.
    """
    tree = loop_tree(name, given)
    config = build({key: value for key, value in tree.items() if key != "answers"})
    try:
        answers = AnswersConfig.model_validate(tree.get("answers", {}))
        statement = Statement.model_validate(answers.statement)
    except pydantic.ValidationError as error:
        raise ConfigError(faults_in(error, (AnswersConfig, Statement), f"{name}: [answers]")) from None
    if PLACE not in task_kind(config.task.kind).columns:
        raise ConfigError([f"task.kind = {config.task.kind!r}: answers must be pieces of passages (column {PLACE})"])
    return Answers(config, answers, statement)


def play(spec: Answers, out: Path, say: Say = lambda line: None) -> tuple[Outcome, str]:
    """Train, publish, find the threshold, serve, ask. What came of it, and the token of the server that is left.

    Raises:
        ConfigError: no threshold makes answers so often right.
        LlmchainError: what is wrong and what to do; whatever was done until then stays.
    """
    asks, desk = spec.answers, out / "desk"
    out.mkdir(parents=True, exist_ok=True)
    run = simulate(spec.config, out=out / "run", callbacks=[rounds_told(say)]).run
    token = make_server(run, desk, asks.name, spec.statement, PERSON)
    passages, _ = passages_of(asks.passages, desk / "passages.jsonl")
    file = desk / "serve.toml"
    tree = {**read_toml(file, "serve file", remedy="play it again"), "passages": {"file": passages}}
    tree["threads"] = spec.config.model.threads
    write_serve_file(desk, tree)
    known = questions_of(spec, asks.questions, ("question", Listed("answers")))
    unknown = questions_of(spec, asks.unanswerable, ("question",))
    load = bare_base()
    first = [*known[::2], *unknown[::2]]
    public, seen = _ask(file, token, first, load), {one.text for one in first}
    choice = abstain_below([one.chance for one in public], [one.correct for one in public], asks.accuracy)
    tree["adapter"] = [{**tree["adapter"][0], "abstain_below": choice.threshold}]
    write_serve_file(desk, tree)
    say(f"abstain_below = {choice.threshold:.4f}: {choice.accuracy:.1%} of {choice.coverage:.1%} answered rightly")
    others = [one for one in (*known[1::2], *unknown[1::2]) if one.text not in seen]
    outcome = outcome_of(choice.threshold, _ask(file, token, others, load, say))
    write_json(out / "outcome.json", asdict(outcome))
    return outcome, token


def questions_of(spec: Answers, source: str, columns: tuple[str, ...]) -> list[Question]:
    """Public questions of one kind; without ``answers`` among ``columns`` they have none.

    Raises:
        DataError: it cannot be read.
    """
    size, seed = spec.answers.count, spec.config.seed
    source_rows = read_rows(source, mapping={}, required=columns, split="test", seed=seed, size=size, private=False)
    rows = source_rows.records
    return [Question(row["question"], tuple(map(str, items_of(row.get("answers", "[]"))))) for row in rows]


def outcome_of(threshold: float, asked: Sequence[Asked]) -> Outcome:
    """Counts of what the server said."""
    known = [one for one in asked if one.question.right]
    unknown = [one for one in asked if not one.question.right]
    answered = [one for one in asked if one.piece is not None]
    return Outcome(
        threshold,
        len(known),
        len(unknown),
        len(answered),
        sum(one.correct for one in answered),
        sum(one.piece is None for one in known),
        sum(one.piece is None for one in unknown),
    )


def _ask(file: Path, token: str, questions: Sequence[Question], load: Any, say: Say = lambda line: None) -> list[Asked]:
    """Each question, of a server over ``file`` on a free port; ``say`` is told the first of each kind."""
    settings = read_settings(file).model_copy(update={"port": 0})
    with listening(settings, load) as address:
        teller = Teller(address, token)
        asked = [_asked(one, teller.post("/v1/answer", {"question": one.text, "passages": 1})) for one in questions]
    first = {bool(one.question.right): one for one in reversed(asked)}
    for one in first.values():
        say(f"{one.question.text}\n  {one.piece or 'no answer'} ({one.chance:.2f}), passage {one.passage or 'none'}")
    return asked


def _asked(question: Question, answer: Mapping[str, Any]) -> Asked:
    shown = answer["passage"] or {}
    return Asked(question, answer["answer"], float(answer["probability"]), str(shown.get("id", "")))
