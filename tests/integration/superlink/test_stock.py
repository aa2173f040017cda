"""The same app with Flower's own processes, one a message, which import what the bundle brings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.flower, pytest.mark.timeout(1800)]


def test_two_sites_learn_together_from_the_bundle_alone(
    stock: Any, learn_together: Callable[[Any, Path], str], tmp_path: Path
) -> None:
    learn_together(stock, tmp_path)
