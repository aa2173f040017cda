"""What every group of settings has in common."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, ValidationError

from llmchain_fl.core.words import nearest, one_line

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
"""What may name a stage or a site: it can stand in a path and cannot lead out of a folder."""


class Section(BaseModel):
    """A group of settings: frozen, no unknown keys, descriptions taken from the docstrings under the fields."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


def faults_in(error: ValidationError, parts: Sequence[type[BaseModel]], whole: str = "") -> list[str]:
    """What is wrong with a file of settings, one line each, with the nearest key of ``parts`` where one is not known.

    ``whole``: what a fault of no key is said of.
    """
    known, lines = [name for part in parts for name in part.model_fields], []
    for fault in error.errors():
        key = ".".join(str(part) for part in fault["loc"]) or whole
        hint = nearest(key.rsplit(".", 1)[-1], known) if fault["type"] == "extra_forbidden" else ""
        lines.append(one_line(f"{key}: {str(fault['msg']).removeprefix('Value error, ')}{hint}"))
    return lines
