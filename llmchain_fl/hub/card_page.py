"""``README.md`` of a hub folder: the card as the Hugging Face hub shows it.

Every text that somebody chose is shown as letters: no HTML, no Markdown, no link, no picture, no end of a cell comes
out of a name, a label or a statement. The front matter is JSON, which is YAML.
"""

from __future__ import annotations

import json
import re
import string
from collections.abc import Mapping, Sequence

from llmchain_fl.core.printable import printable
from llmchain_fl.hub.card import Card, Number, Score
from llmchain_fl.report.wording import power

MOST_SHOWN = 30
_HTML = {"<": "&lt;", ">": "&gt;", "&": "&amp;", '"': "&quot;", "'": "&#39;"}
_MARKDOWN = frozenset(string.punctuation) - set(_HTML) - set(".,:;-%/() ")


def shown(text: str) -> str:
    r"""``text`` as letters on one line, whatever stands in it.

    ========================  ===============
    in the text               comes out as
    ========================  ===============
    ``<script>``              ``&lt;script&gt;``
    ``[a](b)``, ``*``, ``|``  ``\[a\](b)``, ``\*``, ``\|``
    a line break, ESC         a blank, ``\\x1b``
    ``http://a``              ``http:/ /a``: no link
    ========================  ===============
    """
    line = printable(" ".join(text.split())).replace("://", ":/ /")
    letters = "".join(_HTML.get(sign) or (f"\\{sign}" if sign in _MARKDOWN else sign) for sign in line)
    return re.sub(r"(?i)(www)\.", r"\1\\.", letters)


def page(card: Card) -> str:
    """The whole page."""
    privacy = card.privacy
    parts = [
        front_matter(card),
        f"# {shown(card.name)}, version {card.version}",
        f"LoRA adapter for {shown(card.base.name)}, trained over {_number(card.training.sites)} sites with "
        f"{shown(card.made_by)}. Signed: check it with `llmchain-fl hub verify FOLDER`, which computes these numbers "
        "anew. The file that each number comes from stands in `card.json`.",
        _section("Data, use, licence", [
            ("data", shown(card.data)),
            ("meant for", shown(card.intended_use)),
            ("not meant for", shown(card.refused_use)),
            ("licence of the adapter", shown(card.licence)),
            ("licence of the base model", shown(card.base.licence)),
            ("languages", shown(", ".join(card.languages))),
        ]),
        _section("How it was made", _made(card)),
        _section("Privacy", [
            ("promise", shown(privacy.promise)),
            ("unit, neighbours", shown(f"{privacy.unit}, {privacy.adjacency}") if privacy.private else ""),
            ("composition", shown(privacy.composition)),
            ("whom a site trusts", shown(privacy.trusts)),
            ("not covered", "; ".join(map(shown, privacy.not_covered))),
        ]),
        "## Scores\n\n" + _scores(card.evaluation),
        *(["## Beyond the score\n\n" + _suite(card.suite)] if card.suite else []),
        "## What was kept\n\n" + _stream(card),
        _section("Audit, lineage", _lineage(card)),
        "## Use\n\n```python\nfrom peft import PeftModel\n\n"
        'model = PeftModel.from_pretrained(base, "path/of/this/folder")\n```\n\n' + _served(card),
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def front_matter(card: Card) -> str:
    """What the Hugging Face hub reads."""
    kind = "text-classification" if card.task.labels else "text-generation"
    results = [
        {
            "task": {"type": kind},
            "dataset": {"name": score.task, "type": "public-test"},
            "metrics": [{"type": score.metric, "value": score.value.value}],
        }
        for score in card.evaluation
    ]
    fields: dict[str, object] = {
        "base_model": card.base.name,
        "library_name": "peft",
        "pipeline_tag": kind,
        "license": "other",
        "license_name": card.licence,
        "language": card.languages,
        "tags": ["lora", "federated-learning", "differential-privacy" if card.privacy.private else "not-private"],
        "model-index": [{"name": f"{card.name}-{card.version}", "results": results}] if results else [],
    }
    lines = [f"{key}: {_yaml(value)}" for key, value in fields.items() if value]
    return "\n".join(["---", *lines, "---"])


def _yaml(value: object) -> str:
    """JSON that is YAML and holds no letter that begins HTML or ends the front matter."""
    text = json.dumps(value, ensure_ascii=True)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _made(card: Card) -> list[tuple[str, str]]:
    made, variant = card.training, card.training.variant
    labels = card.task.labels
    more = f" and {len(labels) - MOST_SHOWN} more" if len(labels) > MOST_SHOWN else ""
    return [
        ("base model", shown(f"{card.base.name}, {card.base.digest}")),
        ("task", shown(f"{card.task.kind}, head {card.task.head}, cut to {_number(card.task.max_tokens)} tokens")),
        ("labels", f"{len(labels)}: {', '.join(map(shown, labels[:MOST_SHOWN]))}{more}" if labels else ""),
        ("variant", shown(f"LoRA, rank {_number(variant.rank)}, alpha {_number(variant.alpha)}")),
        ("layers", shown(f"named {', '.join(variant.targets)}; {_number(variant.parameters)} parameters")),
        ("rule, guards", shown(f"{made.rule} ({made.method}); {', '.join(made.guards) or 'no guards'}")),
        ("rounds, stages", shown(f"{_number(made.rounds)}; {', '.join(made.stages)}")),
    ]  # fmt: skip


def _lineage(card: Card) -> list[tuple[str, str]]:
    audit, line = card.audit, card.lineage
    log = f"{_number(audit.lines)} lines, head {audit.head}" if audit.lines is not None else "none was kept"
    gate = f"{_number(audit.gate_passed)} passed, {_number(audit.gate_failed)} failed" if audit.gate_passed else ""
    return [
        ("audit log of the coordinator", shown(log)),
        ("checks of the gate", shown(gate)),
        ("content", shown(line.content)),
        ("version before", shown(line.parent or "none: the first")),
        ("run", shown(f"{line.run}, round {_number(line.round)}, stage {line.stage}")),
    ]


def _scores(scores: Sequence[Score]) -> str:
    if not scores:
        return "None was measured."
    lines = ["| task | score | value | 95 % interval | records |", "|---|---|---|---|---|"]
    for one in scores:
        value, half = one.value.value, one.half_width.value
        margin = "not stated" if value is None or half is None else f"{value - half:.4f} to {value + half:.4f}"
        cells = [shown(one.task), shown(f"{one.metric} ({one.better} is better)"), _number(one.value)]
        lines.append(f"| {' | '.join([*cells, margin, _number(one.records)])} |")
    return "\n".join(lines)


def _suite(suite: Mapping[str, Number]) -> str:
    lines = ["| by `evaluate --suite` | value |", "|---|---|"]
    return "\n".join([*lines, *(f"| {shown(place)} | {_number(number)} |" for place, number in suite.items())])


def _stream(card: Card) -> str:
    stream = card.stream
    if not stream.tasks:
        return "One stage, or nothing was measured."
    lines = [f"| after | {' | '.join(map(shown, stream.tasks))} |", f"|---|{'---|' * len(stream.tasks)}"]
    lines += [
        f"| {shown(task)} | {' | '.join(map(_number, line))} |"
        for task, line in zip(stream.tasks, stream.r_matrix, strict=True)
    ]
    means = ", ".join(f"{shown(name)} {_number(number)}" for name, number in stream.summary.items())
    return "\n".join([*lines, "", means])


def _served(card: Card) -> str:
    if card.task.head == "trained":
        return (
            "Its trained head stands in `head.safetensors`, which peft leaves out: `llmchain_fl.Classifier` reads it."
        )
    if card.task.labels:
        return "peft gives token vectors; `llmchain_fl.Classifier` compares them with the label texts of `work.json`."
    return "peft serves what the run served."


def _section(title: str, rows: Sequence[tuple[str, str]]) -> str:
    lines = [f"| {name} | {value} |" for name, value in rows if value]
    return "\n".join([f"## {title}", "", "| | |", "|---|---|", *lines])


def _number(number: Number | None) -> str:
    if number is None or number.value is None:
        return "not measured"
    value = number.value
    if isinstance(value, int) or value == int(value):
        return f"{int(value):,}"
    return power(value) if abs(value) < 1e-3 else f"{value:.4f}"
