"""A new anchor for a ledger whose own is gone: at a desk, by the data holder, never in a round."""

from __future__ import annotations

from llmchain_fl.core.errors import PrivacyError
from llmchain_fl.core.privacy.anchor import read_anchor
from llmchain_fl.core.privacy.durable import disk_errors, locked
from llmchain_fl.core.privacy.store import Store


class AnchorRenewal(Store):
    """The folder of a ledger whose anchor is to be renewed."""

    def renew(self) -> None:
        """Make a new anchor where it is gone or damaged: the data holder vouches that the ledger is the latest.

        The log's chain, site, unit and key are verified, and an ``anchor-renewed`` line tells for ever what was done.
        A good anchor is left alone, and a ledger that does not contain what a good anchor names stays refused.

        Raises:
            PrivacyError: the log is gone, damaged, rolled back or of another site.
        """
        with disk_errors(), locked(self._path / "lock"):
            try:
                was = "gone" if read_anchor(self._anchor) is None else ""
            except PrivacyError:
                was = "damaged"
            if not was:
                self._verified()
                return
            self._read_log()
            self._check_owner(self._book)
            self._check_files(self._book)
            self.append(self._book, "anchor-renewed", was=was)
