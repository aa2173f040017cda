r"""CSV and TSV: rows under a header line, each with the line on which it starts, or why it does not fit.

``csv.reader`` cannot be used where rows are left out: after an error it goes on at the next line, wherever the row that
failed would have ended, and its bound on a field belongs to the whole process. Rows without a fault are the same.

A row begins where the row before it ended, whatever that one held; so leaving one out changes no other. One thing no
reader can give back: where a quoted field is not closed properly, and more lines follow before that shows, nobody can
tell where that row ends and whose the next lines are.

=====================================================  ==========================================================
in a CSV file                                          then
=====================================================  ==========================================================
another number of fields than the header               the row does not fit
a field over ``MOST_CHARACTERS``, bytes not UTF-8      the row does not fit
something behind a closing quote, on the row's first   the row is this line and does not fit; the next line is
line (``"he said "no"",b``)                            the next row
... on a later line of the row                         the file is refused, naming the line where the row starts
the file ends within quotes                            the same
a quote within a field that does not begin with one    a character like any other
in a TSV file: a quote                                 a character like any other; a row is a line, always
=====================================================  ==========================================================

Encoding and delimiter are what the file's owner says (``Dialect``). What is left open is decided by the header line and
by nothing else: a file in which one record more, or one byte of a record, changed how the others are read would make
every record of the site depend on that one. The header is the same whoever is in the file. So a Latin-1 file whose
column names are all ASCII is read as UTF-8 until its owner says more, and records that are not UTF-8 are left out.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from llmchain_fl.core.data.lines import LONGEST_LINE, NOT_TEXT, UTF_8, Piece, has_bad_bytes, pieces
from llmchain_fl.core.data.readers import Dialect
from llmchain_fl.core.data.rows import Found, Line, Located, Misfit
from llmchain_fl.core.errors import DataError

log = logging.getLogger("llmchain_fl.data")
MOST_CHARACTERS = 2**20
"""Of one field; the csv module has 131,072, which a long report exceeds. An unclosed quote must not swallow a file."""
WINDOWS = "windows-1252"
"""What a file is read as that is not UTF-8: Latin-1, and the quotes and dashes that Windows adds."""
DELIMITERS = ",;\t|"
_UTF_16 = ("\udcff\udcfe", "\udcfe\udcff")

_QUOTE_REMEDY = 'inside a quoted field write a quote as "", or use JSON lines'


class Row(NamedTuple):
    """One row: the line it starts on, its fields, and what is wrong with it (mostly nothing)."""

    line: int
    fields: list[str]
    fault: str


def read_csv(path: Path, dialect: Dialect) -> Found:
    """Separated under a header row (RFC 4180): a field in double quotes may hold delimiters and line ends.

    Raises:
        DataError: missing file, no proper header; while the rows are read, a row that has no end (see above).
    """
    return _read_table(path, _told(path, dialect), ",", quotes=True)


def read_tsv(path: Path, dialect: Dialect) -> Found:
    """Tab separated under a header row, as IANA text/tab-separated-values: a quote is a character like any other.

    Raises:
        DataError: missing file, no proper header.
    """
    complete = _told(path, dialect._replace(delimiter=dialect.delimiter or "\t"))
    return _read_table(path, complete, "\t", quotes=False)


def _told(path: Path, dialect: Dialect) -> Dialect:
    """``dialect``, and what it leaves open from the file's first line: see the module."""
    if all(dialect):
        return dialect
    head = next(pieces(path, ends="any", most=MOST_CHARACTERS, encoding=dialect.encoding), Piece(1, "")).text
    encoding = dialect.encoding or (WINDOWS if has_bad_bytes(head) and not head.startswith(_UTF_16) else UTF_8)
    return Dialect(encoding, dialect.delimiter or delimiter_of(head))


def delimiter_of(header: str) -> str:
    """The delimiter that a header line has most of outside quotes; a comma where it has none, and of equals."""
    bare = re.sub('"[^"]*"?', "", header)
    return max(DELIMITERS, key=bare.count)


def check_header(names: Sequence[str], where: str) -> tuple[str, ...]:
    """The column names of a source, each once.

    Raises:
        DataError: two of one name; it is not quoted, for it may be a cell of a record.
    """
    first = {name: number for number, name in reversed(list(enumerate(names, start=1)))}
    for number, name in enumerate(names, start=1):
        if first[name] < number:
            raise DataError(
                f"column {number} of {len(names)} has the name of an earlier column",
                where=where,
                remedy="give every column its own name; if the file has no header line, add one",
            )
    return tuple(names)


def _read_table(path: Path, dialect: Dialect, usual: str, *, quotes: bool) -> Found:
    if dialect != (UTF_8, usual):
        log.warning("%s: read as %s with %r", path, dialect.encoding, dialect.delimiter)
    lines = pieces(path, ends="any", most=MOST_CHARACTERS, encoding=dialect.encoding)
    rows = split_rows(lines, str(path), delimiter=dialect.delimiter, quotes=quotes)
    head = next(rows, None)
    if head is None:
        return Found(str(path), None, ())
    if head.fault:
        raise DataError(f"header {head.fault}", where=f"{path}:{head.line}", remedy='save it as "CSV UTF-8"')
    header = check_header([name.strip() for name in head.fields], f"{path}:{head.line}")
    return Found(str(path), header, _under(header, rows, str(path)))


def _under(header: tuple[str, ...], rows: Iterator[Row], file: str) -> Iterator[Located | Misfit]:
    for row in rows:
        line = Line(file, row.line)
        if row.fault:
            remedy = _QUOTE_REMEDY if "quote" in row.fault else "correct the line"
            yield Misfit(line, f"line {row.fault}", remedy)
        elif len(row.fields) != len(header):
            yield Misfit(
                line,
                "line has another number of fields than the header",
                "quote a CSV field that holds a comma; a TSV field may hold neither tab nor line end",
                f"line has {len(row.fields)} fields, the header has {len(header)}",
            )
        else:
            yield Located(dict(zip(header, row.fields, strict=True)), line)


@dataclass
class _Row:
    """A row that is being read: its closed fields, and the open one in parts."""

    line: int
    delimiter: str
    quotes: bool
    state: Literal["start", "plain", "quoted", "closing", "lost", "endless"] = "start"
    """Before a field, in one, within quotes, behind a quote within quotes; skipping to the line's end; no end known."""
    fields: list[str] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)
    length: int = 0
    size: int = 0
    fault: str = ""

    def take(self, number: int, text: str) -> bool:
        """Take in a line or a piece of one; whether the row ends with it."""
        if has_bad_bytes(text):
            self.fault = self.fault or NOT_TEXT
        at = 0
        while at < len(text) and (self.state == "quoted" or text[at] not in "\r\n"):
            at = self._step(number, text, at)
            if self.state == "endless":
                return True
        return at < len(text)

    def _step(self, number: int, text: str, at: int) -> int:
        """One field, part of a field, or character from ``at``; where the next one begins."""
        if self.state == "quoted":
            end = text.find('"', at)
            self._add(text[at : end if end >= 0 else None])
            self.state = "closing" if end >= 0 else "quoted"
            return end + 1 if end >= 0 else len(text)
        if self.state == "lost":
            return len(text.rstrip("\r\n"))
        if text[at] == self.delimiter:
            self._close()
            return at + 1
        if self.state == "closing" and text[at] == '"':
            self._add('"')
            self.state = "quoted"
            return at + 1
        if self.state == "closing":
            self.fault = "has a stray quote"
            self.state = "lost" if number == self.line else "endless"
            return at
        if self.state == "start" and self.quotes and text[at] == '"':
            self.state = "quoted"
            return at + 1
        end = text.find(self.delimiter, at)
        end = end if end >= 0 else len(text.rstrip("\r\n"))
        self._add(text[at:end])
        self.state = "plain"
        return end

    def done(self) -> Row:
        """The row, closed."""
        self._close()
        return Row(self.line, self.fields, self.fault)

    def _add(self, text: str) -> None:
        self.length += len(text)
        self.size += len(text)
        if self.length > MOST_CHARACTERS or self.size > LONGEST_LINE:
            self.fault = self.fault or f"has a field over {MOST_CHARACTERS:,} characters, or is too long as a whole"
            self.parts = []
        elif text:
            self.parts.append(text)

    def _close(self) -> None:
        self.size += 1
        if self.size <= LONGEST_LINE:
            self.fields.append("".join(self.parts))
        self.parts, self.length, self.state = [], 0, "start"


def split_rows(lines: Iterable[Piece], file: str, *, delimiter: str, quotes: bool) -> Iterator[Row]:
    """The rows of a table, header and all; empty lines are skipped.

    Raises:
        DataError: a row has no end that anybody could tell (see the module's table).
    """
    row: _Row | None = None
    for number, text in lines:
        if row is None:
            line = text.rstrip("\r\n")
            if len(line) < len(text) and not (quotes and '"' in line) and not has_bad_bytes(line):
                if line:
                    yield Row(number, line.split(delimiter), "")
                continue
            row = _Row(number, delimiter, quotes)
        if row.take(number, text):
            if row.state == "endless":
                raise _no_end(file, row.line)
            yield row.done()
            row = None
    if row is not None:
        if row.state == "quoted":
            raise _no_end(file, row.line)
        yield row.done()


def _no_end(file: str, line: int) -> DataError:
    return DataError(
        "the record that starts here has a stray or unclosed quote, and nobody can tell where it ends",
        where=f"{file}:{line}",
        remedy=_QUOTE_REMEDY,
    )
