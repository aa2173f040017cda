"""Whether the server sees each site's update, or their sum only."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from llmchain_fl.core.section import Section


class SecureConfig(Section):
    """Secure sums: sites mask what they send, and the masks cancel in the sum."""

    sum: bool = False
    """The server learns the sum over the sites of a round, and of no smaller set; needs 3 sites or more."""
    survivors: Annotated[int, Field(ge=0, le=65_536)] = 0
    """Fewest sites in a sum that is opened; shared noise is made for so many. 0: all, of more than 3 one in ten (at
    least one) may be missing."""
    largest: Annotated[float, Field(gt=0, le=1e9)] = 128.0
    """Numbers beyond it are cut off where no noise is shared; the grid of the sum is as fine as 32 bits allow."""
    grid: Annotated[int, Field(ge=8, le=20)] = 13
    """Shared noise: privacy.clip_norm is 2^grid units of the integers that are summed. 13 leaves 0.99 of it to ten
    million trained numbers."""
    counted_peers: Annotated[int, Field(ge=-1, le=65_536)] = -1
    """Simulated sites: how many of the others each trusts not to tell their noise; -1: all. A real site says so in its
    own file."""
