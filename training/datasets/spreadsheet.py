"""What is in the cells of a spreadsheet? Rows of an ``.xlsx`` or ``.csv`` file as text, without a package for it."""

from __future__ import annotations

import csv
import re
import zipfile
from pathlib import Path
from xml.etree import ElementTree

from pipeline.errors import InputError

Row = list[str]
_NAMESPACE = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
_MOST_BYTES = 64 << 20


def delimiter_of(text: str) -> str:
    """Comma, semicolon or tab: the one that the first line has most of."""
    first = text.partition("\n")[0]
    return max(",;\t", key=first.count)


def read_rows(path: Path) -> list[Row]:
    """Rows of the first sheet, or of a CSV; trailing empty cells may be missing.

    Raises
    ------
    InputError
        When it cannot be read.
    """
    try:
        if path.suffix.lower() == ".csv":
            text = path.read_text(encoding="utf-8-sig")
            return list(csv.reader(text.splitlines(), delimiter=delimiter_of(text)))
        with zipfile.ZipFile(path) as book:
            shared = _shared_strings(book)
            return [_row(row, shared) for row in _parse(book, _first_sheet(book)).iter(f"{_NAMESPACE}row")]
    except (OSError, ValueError, IndexError, KeyError, zipfile.BadZipFile, ElementTree.ParseError) as error:
        raise InputError(f"cannot be read as a spreadsheet ({error})", where=str(path)) from error


def _first_sheet(book: zipfile.ZipFile) -> str:
    return sorted(n for n in book.namelist() if re.fullmatch(r"xl/worksheets/sheet\d+\.xml", n))[0]


def _parse(book: zipfile.ZipFile, name: str) -> ElementTree.Element:
    if book.getinfo(name).file_size > _MOST_BYTES:
        raise ValueError(f"{name} is too large")
    return ElementTree.fromstring(book.read(name))  # noqa: S314 - see the import


def _shared_strings(book: zipfile.ZipFile) -> list[str]:
    if "xl/sharedStrings.xml" not in book.namelist():
        return []
    items = _parse(book, "xl/sharedStrings.xml").iter(f"{_NAMESPACE}si")
    return ["".join(t.text or "" for t in item.iter(f"{_NAMESPACE}t")) for item in items]


def _row(row: ElementTree.Element, shared: list[str]) -> Row:
    cells: Row = []
    for cell in row.iter(f"{_NAMESPACE}c"):
        letters = re.match(r"[A-Z]+", cell.get("r", ""))
        column = len(cells)
        if letters:
            column = 0
            for letter in letters[0]:
                column = 26 * column + ord(letter) - ord("A") + 1
            column -= 1
        cells += [""] * (column - len(cells))
        cells.append(_value(cell, shared))
    return cells


def _value(cell: ElementTree.Element, shared: list[str]) -> str:
    if cell.get("t") == "inlineStr":
        return "".join(t.text or "" for t in cell.iter(f"{_NAMESPACE}t"))
    value = cell.find(f"{_NAMESPACE}v")
    text = "" if value is None else value.text or ""
    return shared[int(text)] if cell.get("t") == "s" and text else text
