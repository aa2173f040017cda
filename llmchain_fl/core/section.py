"""What every group of settings has in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
"""What may name a stage or a site: it can stand in a path and cannot lead out of a folder."""


class Section(BaseModel):
    """A group of settings: frozen, no unknown keys, descriptions taken from the docstrings under the fields."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True, allow_inf_nan=False
    )
