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
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from featlib.text.labels import Span, Spans, Token

KEYWORDS = frozenset(keyword.kwlist)
_EXCEPTION = frozenset({"raise", "try", "except", "finally"})


def read_tokens(text: str) -> list[Token] | None:
    """Tokens of a Python source, comments among them, an f-string as one; None: does not parse."""
    return None if (source := _read(text)) is None else source[1]


@lru_cache(maxsize=1)  # the labels of one text are asked for one after the other
def find_spans(text: str) -> Spans | None:
    """Spans of each kind in a Python source, in order; None where it does not parse."""
    if (source := _read(text)) is None:
        return None
    tree, tokens, starts = source
    equals: list[tuple[tuple[int, int], Span]] = []  # where `ast` sees each = and +=, and its span
    for kind, span, word in tokens:
        if kind == "op" and word.endswith("="):
            line = bisect_right(starts, span[0])
            # `ast` counts columns in bytes of UTF-8, `tokenize` counts them in characters.
            equals.append(((line, len(text[starts[line - 1] : span[0]].encode())), span))
    assignments: set[Span] = set()
    for node in ast.walk(tree):
        for before, after in _around_equals(node):
            first = bisect_left(equals, ((before.end_lineno or 0, before.end_col_offset or 0),))
            last = bisect_left(equals, ((after.lineno, after.col_offset),))
            assignments.update(span for _, span in equals[first:last])
    return {
        # Reserved words: wherever one of them stands as a name, it is the statement's.
        "exception_keyword": tuple(
            span for kind, span, word in tokens if kind == "name" and word in _EXCEPTION
        ),
        "assignment": tuple(sorted(assignments)),
    }


@lru_cache(maxsize=1)  # read for its labels, then for its token classes
def _read(text: str) -> tuple[ast.Module, list[Token], list[int]] | None:
    """Tree, tokens, and where in the text each line starts."""
    # Python ends lines at \n, \r\n and \r and nowhere else; str.splitlines knows more ends. A
    # byte-order mark is no part of line one.
    ends = re.compile(r"([^\r\n]*)(?:\r\n|\r|\n|\Z)")
    lines = list(ends.finditer(text, 1 if text.startswith("\ufeff") else 0))
    source = "\n".join(line.group(1) for line in lines)
    starts = [line.start() for line in lines]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "invalid escape sequence" is the source's business
            tree = ast.parse(source)
        return tree, list(_python_tokens(source, starts)), starts
    except (SyntaxError, ValueError, tokenize.TokenError, RecursionError, MemoryError):
        return None


def _python_tokens(source: str, starts: list[int]) -> Iterator[Token]:
    """From Python 3.12 on f-strings come in parts, which are joined to one token again here."""
    depth, start = 0, 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        kind = tokenize.tok_name[token.type]
        if kind in ("NL", "NEWLINE", "INDENT", "DEDENT", "ENDMARKER"):
            continue
        low, high = (starts[line - 1] + column for line, column in (token.start, token.end))
        if kind in ("FSTRING_START", "TSTRING_START"):
            start = low if depth == 0 else start
            depth += 1
        elif kind in ("FSTRING_END", "TSTRING_END"):
            depth -= 1
            if depth == 0:
                yield "string", (start, high), ""
        elif depth == 0:
            yield kind.lower(), (low, high), token.string


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
