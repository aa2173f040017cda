"""The store's file: SQLite with a write-ahead log, for its owner alone."""

from __future__ import annotations

import os
import sqlite3
import stat
from pathlib import Path

from llmchain_fl.core.errors import DataError
from llmchain_fl.core.privacy.durable import make_folder

FORMAT = 1
_TABLES = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE rows (
  id INTEGER PRIMARY KEY,
  tenant TEXT NOT NULL, person TEXT NOT NULL, model TEXT NOT NULL, adapter TEXT NOT NULL, task TEXT NOT NULL,
  request TEXT NOT NULL, input TEXT NOT NULL, output TEXT NOT NULL, kind TEXT NOT NULL, correction TEXT NOT NULL,
  at REAL NOT NULL, state TEXT NOT NULL, edition INTEGER NOT NULL DEFAULT 0, answer TEXT NOT NULL,
  UNIQUE (tenant, request, answer));
CREATE INDEX rows_of_person ON rows (tenant, person);
CREATE INDEX rows_of_edition ON rows (edition);
CREATE TABLE consents (
  tenant TEXT NOT NULL, person TEXT NOT NULL, scope TEXT NOT NULL, version TEXT NOT NULL, at REAL NOT NULL,
  PRIMARY KEY (tenant, person, scope)) WITHOUT ROWID;
CREATE TABLE tombstones (mark TEXT PRIMARY KEY, at REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE editions (
  number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, file TEXT NOT NULL, task TEXT NOT NULL, at REAL NOT NULL,
  with_up INTEGER NOT NULL, written INTEGER NOT NULL);
"""


def open_file(path: Path) -> sqlite3.Connection:
    """The store at ``path``, made where there is none.

    =======================================  ==================================================
    the file                                 result
    =======================================  ==================================================
    not there                                made, mode 600, in a folder that is made too
    open to others than its owner            DataError: the remedy says chmod
    a link, a folder, another program's      DataError
    =======================================  ==================================================

    Raises:
        DataError: see the table; or the disk failed.
    """
    try:
        make_folder(path.absolute().parent)
        fresh = not os.path.lexists(path)
        if fresh:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        seen = os.lstat(path)
        if not stat.S_ISREG(seen.st_mode):
            raise DataError("is no plain file", where=str(path), remedy="name a file that is to hold the feedback")
        if seen.st_mode & 0o077:
            raise DataError("others than its owner may read it", where=str(path), remedy=f"chmod 600 {path}")
        made = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30)
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "secure_delete = ON", "trusted_schema = OFF"):
            made.execute(f"PRAGMA {pragma}")
        _prepare(made)
    except (OSError, sqlite3.Error) as error:
        reason = type(error).__name__
        raise DataError(
            f"no feedback store ({reason})", where=str(path), remedy="free the disk, or name another file"
        ) from None
    return made


def _prepare(made: sqlite3.Connection) -> None:
    made.execute("BEGIN IMMEDIATE")
    try:
        version = made.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            for statement in _TABLES.split(";\n"):
                made.execute(statement)
            made.execute("INSERT INTO meta VALUES ('key', ?)", (os.urandom(32),))
            made.execute(f"PRAGMA user_version = {FORMAT}")
        elif version != FORMAT:
            raise sqlite3.DatabaseError
        made.execute("COMMIT")
    except BaseException:
        made.execute("ROLLBACK")
        raise
