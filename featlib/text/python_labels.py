"""What the characters of a Python source are, told by `tokenize` and `ast`: nothing guesses.

A text that is not valid source gets None, so that it can be left out and counted. Valid is what the
running Python accepts: an older interpreter skips newer syntax. Where a choice had to be made:

- *exception keyword*: `raise`, `try`, `except` (the word, not the `*` of `except*`), `finally`.
- *exception type*: every name in an `except` header; in a `raise` header, and behind its `from`,
  the name that is called (`raise ValueError(...)`) or stands alone with a capital letter (`raise
  StopIteration`). `raise error` raises a value again and names no type. Of a dotted name only the
  last part counts (`Timeout` in `socket.Timeout`).
- *exception message*: string literals, quotes and prefix included, among the arguments of the
  raised call, nested calls and formatting included (`"%s: %s" % (a, "b")`), but not an index
  (`names["key"]`), the condition of an `if` expression, or a lambda.
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
    names = {span[1]: span for kind, span, _ in source.tokens if kind == "name"}
    strings = [span for kind, span, _ in source.tokens if kind == "string"]
    equals = [span for kind, span, word in source.tokens if kind == "op" and word.endswith("=")]
    types: list[ast.expr] = []
    messages: set[Span] = set()
    assignments: set[Span] = set()
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Raise):
            types += [*_raised_names(node.exc), *_raised_names(node.cause)]
            for literal in _message_literals(node.exc):
                messages.update(_within(strings, source.start(literal), source.end(literal)))
        elif isinstance(node, ast.ExceptHandler) and node.type is not None:
            types += _caught_names(node.type)
        elif isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
            for before, after in _around_equals(node):
                assignments.update(_within(equals, source.end(before), source.start(after)))
    return {
        # Reserved words: wherever one of them stands as a name, it is the statement's.
        "exception_keyword": tuple(
            span for kind, span, word in source.tokens if kind == "name" and word in _EXCEPTION
        ),
        # A dotted name's node ends where its last part ends.
        "exception_type": tuple(
            sorted({names[end] for node in types if (end := source.end(node)) in names})
        ),
        "exception_message": tuple(sorted(messages)),
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


def _within(spans: list[Span], start: int, end: int) -> list[Span]:
    """Those of the ordered `spans` that begin in [start, end)."""
    return spans[bisect_left(spans, (start, start)) : bisect_left(spans, (end, end))]


def _around_equals(
    node: ast.Assign | ast.AnnAssign | ast.AugAssign,
) -> list[tuple[ast.expr, ast.expr]]:
    """Pairs of expressions with nothing but brackets, comments and one `=` between them."""
    if isinstance(node, ast.Assign):
        return list(itertools.pairwise([*node.targets, node.value]))
    if isinstance(node, ast.AnnAssign):
        return [] if node.value is None else [(node.annotation, node.value)]
    return [(node.target, node.value)]


def _raised_call(raised: ast.expr | None) -> ast.expr | None:
    """`E("m")` out of `E("m").with_traceback(t)`; everything else as it is."""
    match raised:
        case ast.Call(func=ast.Attribute(value=ast.Call() as call, attr="with_traceback")):
            return call
    return raised


def _raised_names(raised: ast.expr | None) -> list[ast.expr]:
    match _raised_call(raised):
        case ast.Call(func=(ast.Name() | ast.Attribute()) as name):
            return [name]
        case (ast.Name(id=word) | ast.Attribute(attr=word)) as name:
            return [name] if word.lstrip("_")[:1].isupper() else []
    return []


def _caught_names(caught: ast.expr) -> list[ast.expr]:
    match caught:
        case ast.Name() | ast.Attribute():
            return [caught]
        case ast.Tuple(elts=elements):
            return [name for element in elements for name in _caught_names(element)]
        case ast.Starred(value=value):
            return _caught_names(value)
    return []


def _message_literals(raised: ast.expr | None) -> Iterator[ast.expr]:
    call = _raised_call(raised)
    if not isinstance(call, ast.Call):
        return
    # A stack and no recursion: a sum of a thousand strings is a tree a thousand deep.
    pending: list[ast.AST] = [*call.args, *(pair.value for pair in call.keywords)]
    while pending:
        node = pending.pop()
        match node:
            case ast.Constant(value=str()) | ast.JoinedStr():
                yield node
            case ast.Lambda():
                pass
            case ast.Subscript(value=value):
                pending.append(value)
            case ast.IfExp(body=body, orelse=orelse):
                pending += [body, orelse]
            case ast.expr() if type(node).__name__ == "TemplateStr":  # Python 3.14
                yield node
            case _:
                pending += ast.iter_child_nodes(node)
