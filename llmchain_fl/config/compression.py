"""Fewer bytes on the way from the sites to the server."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from llmchain_fl.core.section import Section


class CompressionConfig(Section):
    """How updates travel up: after the noise, so that it costs no epsilon. What is sent down stays float32."""

    up: Literal["none", "bf16", "int8", "int4", "top-k"] = "none"
    """How a site's update travels: as it is (float32), rounded by chance (`bf16`, `int8`, `int4`: unbiased), or its
    largest values only (`top-k`)."""
    block: Annotated[int, Field(ge=1, le=65_536)] = 64
    """Values that share one scale (`int8`, `int4`, the values of `top-k`)."""
    share: Annotated[float, Field(gt=0, le=1)] = 0.05
    """`top-k`: share of each array's values that is sent."""
    feedback: bool = False
    """The site remembers what compression left out, on its own disk, and adds it to its next update."""
    link_kbit: Annotated[float, Field(ge=0, le=1e9)] = 0.0
    """The slowest site's upload, in thousand bits a second; 0: not checked."""
    max_seconds: Annotated[float, Field(gt=0, le=604_800)] = 60.0
    """With `link_kbit`: refuse a run in which one upload would take longer."""
