"""Text files of instruments -> columns of numbers.

Diffractometers write two or three columns (x, intensity, and perhaps its standard deviation) below any number
of header lines, with any of the usual separators, line ends, encodings and number formats. This module finds
the block of numbers and refuses, with the line, everything that could be read in two ways: a wrong number is
worse than none.

A line is a comment when it starts with ``#``, ``!``, ``'``, ``;``, ``%`` or ``//``, and part of the header
when it stands above the first line of two or more numbers. Below that line only numbers, comments and blank
lines may follow.
"""

import gzip
import re
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

__all__ = ["Columns", "FileError", "read_columns"]

_COMMENT = re.compile(r"\s*(#|!|'|;|%|//)")
_INLINE_COMMENT = re.compile(r"\s*(#|!|//).*$")
_NUMBER = re.compile(
    r"[+-]?(\d+(,\d{3})*([.,]\d*)?|[.,]\d+)([eEdD][+-]?\d+)?|[+-]?(nan|inf(inity)?)", re.IGNORECASE
)
_GAP = re.compile(r"\s*[,;]\s*|\s+")
_GAP_DECIMAL_COMMA = re.compile(r"\s*;\s*|\s+")
_FORTRAN_EXPONENT = str.maketrans("dD", "ee")


class FileError(ValueError):
    """A measured file that cannot be used; the message names file, line, what was expected and what came."""

    def __init__(self, path: Path, problem: str, *, line: int | None = None) -> None:
        super().__init__(f"{path}{'' if line is None else f', line {line}'}: {problem}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """The numbers of one text file."""

    values: np.ndarray
    """(row, column) float64; two or three columns."""
    lines: np.ndarray
    """(row,) int64: the line of the file, counted from 1, that each row stood on."""
    header: tuple[str, ...]
    """Comment and header lines, as they are."""
    notes: tuple[str, ...]
    """What was done to the text that a reader may want to know."""


def read_columns(path: Path) -> Columns:
    """Read the block of numbers of a text file, plain or gzip.

    Args:
        path: the file.

    Returns:
        two or three columns of finite numbers.

    Raises:
        FileError: the file cannot be read, is not text, is cut off, holds something else than numbers below
            its header, changes its number of columns, or its commas could be decimal marks as well as
            separators.
    """
    text = _decode(path, _read_bytes(path))
    header: list[str] = []
    data: list[tuple[int, str]] = []
    for number, raw in enumerate(re.split(r"\r\n|\r|\n", text), start=1):
        line = "" if _COMMENT.match(raw) else _INLINE_COMMENT.sub("", raw).strip()
        if not line or (not data and not _looks_like_data(line)):
            if raw.strip():
                header.append(raw.strip())
            continue
        data.append((number, line))
    if not data:
        raise FileError(
            path,
            "expected lines of two or three numbers (x, intensity, sigma), found none; export the pattern "
            "as text columns",
        )

    decimal_comma = _has_decimal_commas(path, [line for _, line in data])
    rows = [_split(line, decimal_comma) for _, line in data]
    values = _parse(path, data, rows)
    if not text.endswith(("\n", "\r")) and _looks_cut(rows):
        raise FileError(
            path,
            f"the last line, {data[-1][1]!r}, looks cut off: it has no line end and is shorter than the "
            "lines before; copy the file again (if it is whole, end it with an empty line)",
            line=data[-1][0],
        )
    notes = ["commas were read as decimal marks"] if decimal_comma else []
    return Columns(
        values=values,
        lines=np.array([number for number, _ in data], dtype=np.int64),
        header=tuple(header),
        notes=tuple(notes),
    )


def _read_bytes(path: Path) -> bytes:
    """The content of a plain or gzip file."""
    if path.is_dir():
        raise FileError(path, "expected a file, got a folder; name the files in it")
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    except FileNotFoundError:
        raise FileError(path, "no such file; check the name") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise FileError(path, f"the gzip file is damaged or cut off ({error}); copy it again") from None
    except OSError as error:
        raise FileError(path, f"cannot be read: {error.strerror or error}") from None


def _decode(path: Path, content: bytes) -> str:
    """Text of UTF-8 (with or without byte order mark), UTF-16 (with one) or Latin-1 bytes."""
    if not content.strip():
        raise FileError(path, "the file is empty; export the pattern again")
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return content.decode("utf-16", errors="replace")
    if b"\0" in content:
        raise FileError(
            path, "expected text, got binary data; export the pattern as text columns (.xy, .xye, .csv)"
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def _looks_like_data(line: str) -> bool:
    """Whether a line holds two or more numbers and nothing else."""
    tokens = [token for token in re.split(r"[\s;]+", line.strip(" \t,;")) if token != ","]
    if len(tokens) == 1:
        tokens = tokens[0].split(",")
    return len(tokens) > 1 and all(_NUMBER.fullmatch(token.strip(",")) for token in tokens)


def _has_decimal_commas(path: Path, lines: list[str]) -> bool:
    """Whether commas are decimal marks (True) or separators (False); refused where they could be both."""
    if not any("," in line for line in lines):
        return False
    fields = [_GAP_DECIMAL_COMMA.split(line.rstrip(",; \t")) for line in lines]
    dots = any("." in line for line in lines)
    inside = any("," in field.strip(",") for row in fields for field in row)
    at_edge = any(field != field.strip(",") for row in fields for field in row)
    if max(map(len, fields)) == 1:
        if dots or max(row[0].count(",") for row in fields) == 1:
            return False
    elif not inside:
        return False
    elif not dots and not at_edge:
        return True
    example = next(line for line in lines if "," in line)
    raise FileError(
        path,
        f"the commas in {example!r} could be decimal marks, thousands marks or separators; write decimal "
        "points, and separate the columns by spaces",
    )


def _split(line: str, decimal_comma: bool) -> list[str]:
    """The columns of a line, as text that `float` understands."""
    line = line.translate(_FORTRAN_EXPONENT)
    if decimal_comma:
        return [
            field.replace(",", ".") for field in _GAP_DECIMAL_COMMA.split(line.removesuffix(";").rstrip())
        ]
    return _GAP.split(re.sub(r"[,;]$", "", line).rstrip())


def _parse(path: Path, data: list[tuple[int, str]], rows: list[list[str]]) -> np.ndarray:
    """Rows of text -> (row, column) float64, every row as long as the first, every number finite."""
    n_columns = len(rows[0])
    if n_columns not in (2, 3):
        raise FileError(
            path,
            f"expected two or three columns (x, intensity, sigma), got {n_columns} in {data[0][1]!r}; keep "
            "those columns only",
            line=data[0][0],
        )
    values = np.empty((len(rows), n_columns))
    for i, ((number, line), row) in enumerate(zip(data, rows, strict=True)):
        last = i == len(rows) - 1
        hint = "the file looks cut off here, copy it again" if last else "correct or remove the line"
        if len(row) != n_columns:
            raise FileError(
                path,
                f"expected {n_columns} columns as in line {data[0][0]}, got {len(row)} in {line!r}; {hint}",
                line=number,
            )
        try:
            values[i] = [float(field) for field in row]
        except ValueError:
            raise FileError(
                path, f"expected {n_columns} numbers, got {line!r}; {hint}", line=number
            ) from None
        if not np.isfinite(values[i]).all():
            raise FileError(
                path,
                f"expected finite numbers, got {line!r}; remove the points that were not measured",
                line=number,
            )
    return values


def _looks_cut(rows: list[list[str]]) -> bool:
    """Whether the last row, which has no line end, lost characters.

    Instruments write a column with a fixed number of decimals, or its whole numbers change slowly. A last
    number with fewer decimals than any before, without the exponent that all others have, or with fewer
    digits before the decimal point than each of the twenty before it, has been cut.
    """

    def shape(field: str) -> tuple[int, int, int]:
        mantissa, _, exponent = field.lower().partition("e")
        whole, _, decimals = mantissa.partition(".")
        return len(exponent), len(decimals), len(whole)

    *before, last = [[shape(field) for field in row] for row in rows[-2000:]]
    for column, (exponent, decimals, whole) in enumerate(last):
        earlier = [row[column] for row in before]
        if not earlier:
            return False
        if exponent < min(e for e, _, _ in earlier) or decimals < min(d for _, d, _ in earlier):
            return True
        if whole < min(w for _, _, w in earlier[-20:]):
            return True
    return False
