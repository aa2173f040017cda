"""What of a run is published beside its adapter, so that the card's numbers can be computed by whoever reads it.

Nothing of it is a record. Sites are numbered, not named; of the settings only public constants of the method go along,
no path and no name of a file; of the measurements those of the global adapter on public records, and each site's
epsilon. The audit log itself stays (it names sites): its length and head go, by which it can be held to account later.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pydantic

from llmchain_fl.atomic_file import finite
from llmchain_fl.audit_log import read_log
from llmchain_fl.config.read import read_config
from llmchain_fl.core.audit import FILE
from llmchain_fl.core.errors import ConfigError
from llmchain_fl.hub import layout
from llmchain_fl.hub.strict_json import parse_object
from llmchain_fl.metrics_file import ALL_SITES
from llmchain_fl.report.suite import FILE as SUITE_FILE
from llmchain_fl.report.suite import read_suite
from llmchain_fl.run_dir import RunDir

ROW = ("round", "stage", "scope", "task", "metric", "value", "n", "half_width", "better", "unit", "bound", "label",
       "of", "delta", "accountant", "noise")  # fmt: skip
SCOPES = ("global", "run", "baseline", "probe", "trained")
LONGEST_TEXT = 4000


class Statement(pydantic.BaseModel):
    """What only the publisher can say. Texts of 1 to 4,000 characters."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, strict=True)

    data: str = pydantic.Field(min_length=1, max_length=LONGEST_TEXT)
    """Which records it was trained on: whose, from when, how they were collected."""
    intended_use: str = pydantic.Field(min_length=1, max_length=LONGEST_TEXT)
    refused_use: str = pydantic.Field(min_length=1, max_length=LONGEST_TEXT)
    licence: str = pydantic.Field(min_length=1, max_length=100)
    """Of the adapter: an identifier of SPDX."""
    base_licence: str = pydantic.Field(default="not stated", max_length=100)
    languages: list[str] = pydantic.Field(default_factory=list, max_length=50)
    """ISO 639 codes."""


def read_statement(data: bytes) -> Statement:
    """A statement.

    Raises:
        ConfigError: a field is missing, empty, too long, or unknown; it names the fields.
        HubError: form, size: no JSON.
    """
    tree = parse_object(data, "the statement", layout.BOUNDS[layout.STATEMENT])
    try:
        return Statement.model_validate(tree)
    except pydantic.ValidationError as error:
        fields = sorted({".".join(map(str, one["loc"])) for one in error.errors()})
    remedy = "say data, intended_use, refused_use, licence (and base_licence, languages): docs/hub.md"
    raise ConfigError(
        [f"the statement: {name} is missing, empty, too long or unknown" for name in fields], remedy=remedy
    )


def gathered(run: RunDir, statement: Statement, gate: Path | None = None) -> dict[str, bytes]:
    """File of the layout -> its bytes, of one run.

    Raises:
        RunError: the run, its log or its measurements are damaged.
    """
    settings = read_config(run.config, [])
    privacy = run.read_privacy() or {"private": False, "sites": {}}
    rows = run.rows()
    names = sorted({*privacy.get("sites", {}), *(str(row["site"]) for row in rows if row.get("site"))})
    number = {name: f"site-{place}" for place, name in enumerate(names, 1)}
    private = {**privacy, "sites": {number[name]: spent for name, spent in privacy.get("sites", {}).items()}}
    files = {
        layout.SETTINGS: _json(public_settings(settings.model_dump(mode="json"))),
        layout.STATEMENT: _json(statement.model_dump()),
        layout.METRICS: public_rows(rows, number),
        layout.PRIVACY: _json(private),
    }
    log = read_log(run.audit / FILE)
    if log:
        files[layout.AUDIT] = _json({"lines": len(log), "head": log[-1]["hash"]})
    suite = read_suite(run.path / SUITE_FILE)
    if suite and suite.get("content") == _content(run):
        files[layout.SUITE] = _json({key: suite[key] for key in ("format", "content", "records", "parts", "left_out")})
    if gate is not None:
        files[layout.GATE] = _json(parse_object(gate.read_bytes(), str(gate), layout.BOUNDS[layout.GATE]))
    return files


def _content(run: RunDir) -> object:
    """Of the adapter that is published."""
    file = run.adapter / layout.LINEAGE
    return json.loads(file.read_text(encoding="utf-8")).get("content") if file.is_file() else None


def public_settings(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The public constants of the method."""
    sections: dict[str, Sequence[str]] = {
        "aggregation": ("rule", "optimizer", "robust"),
        "continual": ("guards",),
        "train": ("method", "steps", "sampling_rate", "batch_size", "optimizer", "lr"),
        "sites": ("count",),
    }
    public: dict[str, Any] = {"seed": tree["seed"]}
    public |= {section: {key: tree[section][key] for key in keys} for section, keys in sections.items()}
    return {**public, "stages": [{"name": one["name"], "rounds": one["rounds"]} for one in tree["stage"]]}


def public_rows(rows: Sequence[Mapping[str, Any]], number: Mapping[str, str]) -> bytes:
    """Measurements of the global adapter, and each site's epsilon under its number."""
    lines = []
    for row in rows:
        site = number.get(str(row.get("site")))
        of_sites = row["metric"] == "epsilon" and (site or row.get("scope") == ALL_SITES)
        if row.get("scope", "global") not in SCOPES and not of_sites:
            continue
        public = {key: row[key] for key in ROW if key in row}
        lines.append(json.dumps(finite({**public, **({"site": site} if site else {})}), allow_nan=False))
    return "".join(f"{line}\n" for line in lines).encode()


def _json(value: object) -> bytes:
    return (json.dumps(finite(value), indent=1, sort_keys=True, allow_nan=False) + "\n").encode()
