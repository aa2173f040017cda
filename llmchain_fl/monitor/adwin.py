"""ADWIN, for changes of a size that nobody named (river; the extra ``monitor``)."""

from __future__ import annotations

from collections.abc import Iterable

from llmchain_fl.extras import need


class Adwin:
    """Adaptive windowing over yes and no (Bifet and Gavalda 2007, SIAM Data Mining).

    Keeps the longest stretch of the stream of which no two parts have means that differ by more than chance at
    ``delta`` explains; where they do, the older part is dropped, and that is a change. River's own code.

    | case | :meth:`see` |
    |---|---|
    | a constant stream | never True |
    | a change down | False: only rises speak here |

    Raises:
        ConfigError: river is not installed.
    """

    def __init__(self, delta: float) -> None:
        need("monitor", "adwin_delta above 0")
        from river.drift import ADWIN

        self._adwin = ADWIN(delta=delta)

    def see(self, yes: Iterable[bool]) -> bool:
        """Take one window's texts, in order; whether the rate has risen in it."""
        rose = False
        for one in yes:
            before = float(self._adwin.estimation)
            self._adwin.update(float(one))
            rose |= bool(self._adwin.drift_detected) and float(self._adwin.estimation) > before
        return rose
