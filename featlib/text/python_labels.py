"""What the characters of a Python source are, told by `tokenize` and `ast`: nothing guesses.

A text that is not valid source gets None, so that it can be left out and counted. Valid is what the
running Python accepts: an older interpreter skips newer syntax. Where a choice had to be made:

- *exception keyword*: `raise`, `try`, `except` (the word, not the `*` of `except*`), `finally`.
- *assignment*: the `=` of an assignment statement, annotated ones with a value and augmented ones
  (`+=`) included, one per target in `a = b = 0`. Not `:=`, which is an expression; not keyword
  arguments, defaults, comparisons, or the `=` of an f-string.
"""

from __future__ import annotations

import ast
import io
import itertools
import keyword
import re
import tokenize
import warnings
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from featlib.text.labels import Span, Spans, Token

KEYWORDS = frozenset(keyword.kwlist)
_EXCEPTION = frozenset({"raise", "try", "except", "finally"})


def python_tokens(text: str) -> list[Token] | None:
    """Tokens of a Python source, comments among them, an f-string as one; None: does not parse."""
    source = _read(text)
    return None if source is None else source.tokens


@lru_cache(maxsize=1)  # the labels of one text are asked for one after the other
def python_spans(text: str) -> Spans | None:
    """Spans of each kind in a Python source, in order; None where it does not parse."""
    source = _read(text)
    if source is None:
        return None
    equals = [span for kind, span, word in source.tokens if kind == "op" and word.endswith("=")]
    assignments: set[Span] = set()
    for node in ast.walk(source.tree):
        for before, after in _around_equals(node):
            first = bisect_left(equals, (source.end(before),))
            assignments.update(equals[first : bisect_left(equals, (source.start(after),))])
    return {
        # Reserved words: wherever one of them stands as a name, it is the statement's.
        "exception_keyword": tuple(
            span for kind, span, word in source.tokens if kind == "name" and word in _EXCEPTION
        ),
        "assignment": tuple(sorted(assignments)),
    }


class _Lines:
    """Where each line starts, so that (line, column) becomes an index into the text."""

    def __init__(self, text: str) -> None:
        self.lines: list[str] = []
        self.starts: list[int] = []
        start = 1 if text.startswith("\ufeff") else 0  # a byte-order mark is no part of line one
        # Python ends lines at \n, \r\n and \r and nowhere else; str.splitlines knows more ends.
        for match in re.compile(r"([^\r\n]*)(?:\r\n|\r|\n|\Z)").finditer(text, start):
            self.lines.append(match.group(1))
            self.starts.append(match.start())

    def of_characters(self, line: int, column: int) -> int:
        return self.starts[line - 1] + column

    def of_bytes(self, line: int, column: int) -> int:
        """`ast` counts columns in bytes of UTF-8, `tokenize` counts them in characters."""
        source = self.lines[line - 1]
        if not source.isascii():
            column = len(source.encode()[:column].decode())
        return self.starts[line - 1] + column


@dataclass(frozen=True)
class _Source:
    tree: ast.Module
    tokens: list[Token]
    lines: _Lines

    def start(self, node: ast.expr) -> int:
        return self.lines.of_bytes(node.lineno, node.col_offset)

    def end(self, node: ast.expr) -> int:
        return self.lines.of_bytes(node.end_lineno or 0, node.end_col_offset or 0)


@lru_cache(maxsize=1)  # read for its labels, then for its token classes
def _read(text: str) -> _Source | None:
    lines = _Lines(text)
    source = "\n".join(lines.lines)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "invalid escape sequence" is the source's business
            tree = ast.parse(source)
        return _Source(tree, list(_python_tokens(source, lines)), lines)
    except (SyntaxError, ValueError, tokenize.TokenError, RecursionError, MemoryError):
        return None


def _python_tokens(source: str, lines: _Lines) -> Iterator[Token]:
    """From Python 3.12 on f-strings come in parts, which are joined to one token again here."""
    depth, start = 0, 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        kind = tokenize.tok_name[token.type]
        if kind in ("NL", "NEWLINE", "INDENT", "DEDENT", "ENDMARKER"):
            continue
        span = (lines.of_characters(*token.start), lines.of_characters(*token.end))
        if kind in ("FSTRING_START", "TSTRING_START"):
            start = span[0] if depth == 0 else start
            depth += 1
        elif kind in ("FSTRING_END", "TSTRING_END"):
            depth -= 1
            if depth == 0:
                yield "string", (start, span[1]), ""
        elif depth == 0:
            yield kind.lower(), span, token.string


def _around_equals(node: ast.AST) -> list[tuple[ast.expr, ast.expr]]:
    """Pairs of expressions with nothing but brackets, comments and one `=` between them."""
    match node:
        case ast.Assign():
            return list(itertools.pairwise([*node.targets, node.value]))
        case ast.AnnAssign(value=ast.expr() as value):
            return [(node.annotation, value)]
        case ast.AugAssign():
            return [(node.target, node.value)]
    return []
