"""What the characters of a Python or a Lua source are, told by the languages themselves.

For Python the spans come from `tokenize` and `ast`, for Lua from a lexer of our own; neither
guesses: a text that is not valid source gets None, so that it can be left out and counted.

What counts as each of `NAMES`, where a choice had to be made:

- *exception keyword*: `raise`, `try`, `except` (the word, not the `*` of `except*`), `finally`. In
  Lua, which has no such keywords, the called name in `error(...)`, `assert(...)`, `pcall(...)`,
  `xpcall(...)`: the global function when it is called, not `log.error(...)`, not a definition of
  that name, not the name passed on as a value (`pcall(error, 1)` counts `pcall` alone).
- *exception type*: every name in an `except` header; in a `raise` header, and behind its `from`,
  the name that is called (`raise ValueError(...)`) or stands alone with a capital letter (`raise
  StopIteration`). `raise error` raises a value again and names no type. Of a dotted name only the
  last part counts (`Timeout` in `socket.Timeout`). Lua's errors have no types: no spans.
- *exception message*: string literals, quotes and prefix included, among the arguments of the
  raised call, nested calls and formatting included (`"%s: %s" % (a, "b")`), but not an index
  (`names["key"]`), the condition of an `if` expression, or a lambda. In Lua the same for
  `error(...)`, and for the arguments of `assert(...)` behind its first.
- *exception*: any of these three. *exception header*: the keywords that a type follows, `raise`
  and `except`; in Lua those that a message follows, `error` and `assert`.
- *assignment*: the `=` of an assignment statement, annotated ones with a value and augmented ones
  (`+=`) included, one per target in `a = b = 0`. Not `:=`, which is an expression; not keyword
  arguments, defaults, comparisons, or the `=` of an f-string. In Lua the `=` of `x, y = 1, 2`,
  `local x = 1` and `t.a["b"] = 2`; not of a table's field `{a = 1}` or of a loop `for i = 1, 9`.
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

Span = tuple[int, int]  # [start, end) in characters of the text
Token = tuple[str, Span, str]  # kind, span, text

PARTS = ("exception_keyword", "exception_type", "exception_message")
NAMES = (*PARTS, "exception", "exception_header", "assignment")
PYTHON_KEYWORDS = frozenset(keyword.kwlist)
LUA_KEYWORDS = frozenset(
    (
        *("and", "break", "do", "else", "elseif", "end", "false", "for", "function", "goto", "if"),
        *("in", "local", "nil", "not", "or", "repeat", "return", "then", "true", "until", "while"),
    )
)
EXCEPTION_KEYWORDS = frozenset({"raise", "try", "except", "finally"})
EXCEPTION_CALLS = frozenset({"error", "assert", "pcall", "xpcall"})
HEADER_WORDS = frozenset({"raise", "except", "error", "assert"})


def label_python(text: str) -> dict[str, list[Span]] | None:
    """Spans of each of `NAMES` in a Python source, in order; None where it does not parse.

    Valid is what the running Python accepts: an older interpreter skips newer syntax.
    """
    found = _label_python(text)
    return None if found is None else {name: list(spans) for name, spans in found.items()}


def label_lua(text: str) -> dict[str, list[Span]] | None:
    """Spans of each of `NAMES` in a Lua source (5.1 to 5.4, LuaJIT); None where it is not valid.

    Valid means that it splits into Lua's tokens, that brackets and blocks close, and that each
    `=` stands where one may; no full parse is made.
    """
    found = _label_lua(text)
    return None if found is None else {name: list(spans) for name, spans in found.items()}


# ------------------------------------------------------------------------------ Python


def python_tokens(text: str) -> list[Token] | None:
    """Tokens of a Python source, comments among them, an f-string as one; None: does not parse."""
    source = _read_python(text)
    return None if source is None else source.tokens


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
class _PythonSource:
    tree: ast.Module
    tokens: list[Token]
    lines: _Lines

    def start(self, node: ast.expr) -> int:
        return self.lines.of_bytes(node.lineno, node.col_offset)

    def end(self, node: ast.expr) -> int:
        return self.lines.of_bytes(node.end_lineno or 0, node.end_col_offset or 0)


@lru_cache(maxsize=1)  # read for its labels, then for its token classes
def _read_python(text: str) -> _PythonSource | None:
    lines = _Lines(text)
    source = "\n".join(lines.lines)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "invalid escape sequence" is the source's business
            tree = ast.parse(source)
        return _PythonSource(tree, list(_python_tokens(source, lines)), lines)
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


@lru_cache(maxsize=4)  # the labels of one text are asked for one after the other
def _label_python(text: str) -> dict[str, list[Span]] | None:
    source = _read_python(text)
    if source is None:
        return None
    names = {span[1]: span for kind, span, _ in source.tokens if kind == "name"}
    strings = [span for kind, span, _ in source.tokens if kind == "string"]
    equals = [span for kind, span, word in source.tokens if kind == "op" and word.endswith("=")]
    found: dict[str, set[Span]] = {name: set() for name in NAMES}
    # Reserved words: wherever one of them stands as a name, it is the statement's.
    found["exception_keyword"] = {
        span for kind, span, word in source.tokens if kind == "name" and word in EXCEPTION_KEYWORDS
    }
    found["exception_header"] = {
        span for span in found["exception_keyword"] if text[slice(*span)] in HEADER_WORDS
    }
    types: list[ast.expr] = []
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Raise):
            types += [*_raised_names(node.exc), *_raised_names(node.cause)]
            for literal in _message_literals(node.exc):
                inside = _within(strings, source.start(literal), source.end(literal))
                found["exception_message"].update(inside)
        elif isinstance(node, ast.ExceptHandler) and node.type is not None:
            types += _caught_names(node.type)
        elif isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
            for before, after in _around_equals(node):
                found["assignment"].update(_within(equals, source.end(before), source.start(after)))
    # A dotted name's node ends where its last part ends.
    found["exception_type"] = {names[end] for node in types if (end := source.end(node)) in names}
    found["exception"] = set().union(*(found[part] for part in PARTS))
    return {name: sorted(spans) for name, spans in found.items()}


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


# ------------------------------------------------------------------------------ Lua

# Lua's tokens (reference manual 5.4, section 3.1), LuaJIT's number suffixes and non-ASCII names.
# A long bracket that does not close, or a quote that does not, matches `bad` alone.
_LUA_TOKEN = re.compile(
    r"""
    (?P<comment> --\[(?P<c>=*)\[ .*? \](?P=c)\] | --(?!\[=*\[)[^\r\n]* )
  | (?P<string>  \[(?P<s>=*)\[ .*? \](?P=s)\]
      | "(?: [^"\\\r\n] | \\(?: z\s*+ | \r\n | \n\r | . ) )*+"
      | '(?: [^'\\\r\n] | \\(?: z\s*+ | \r\n | \n\r | . ) )*+' )
  | (?P<bad>     --\[=*\[ | \[=*\[ | ["'] )
  | (?P<number>  (?: 0[xX](?:[0-9a-fA-F]+\.?[0-9a-fA-F]*|\.[0-9a-fA-F]+)(?:[pP][+-]?[0-9]+)?
      | (?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)? ) [uUlLiI]* )
  | (?P<name>    [A-Za-z_\x80-\U0010ffff][A-Za-z0-9_\x80-\U0010ffff]* )
  | (?P<op>      \.\.\. | \.\. | :: | // | << | >> | [=~<>]= | [-+*/%^\#&~|<>=(){}\[\];:,.] )
  | (?P<space>   [ \t\r\n\v\f]+ )
    """,
    re.VERBOSE | re.DOTALL,
)
_LUA_BEGINNINGS = frozenset(("(", "[", "{", "function", "if", "do", "repeat"))
_LUA_ENDS = {
    ")": ("(",), "]": ("[",), "}": ("{",), "end": ("function", "if", "do"), "until": ("repeat",)
}  # fmt: skip


def lua_tokens(text: str) -> list[Token] | None:
    """Tokens of a Lua source, comments among them; None where the text holds something else."""
    position = 1 if text.startswith("\ufeff") else 0
    tokens: list[Token] = []
    if text.startswith("#", position):  # "#!/usr/bin/lua": Lua skips a first line like this
        position = re.compile(r"[^\r\n]*").match(text, position).end()  # type: ignore[union-attr]
    while position < len(text):
        match = _LUA_TOKEN.match(text, position)
        if match is None or match.lastgroup in (None, "bad"):
            return None
        if match.lastgroup != "space":
            tokens.append((str(match.lastgroup), match.span(), match.group()))
        position = match.end()
    return tokens


@lru_cache(maxsize=4)
def _label_lua(text: str) -> dict[str, list[Span]] | None:
    tokens = lua_tokens(text)
    if tokens is None:
        return None
    tokens = [token for token in tokens if token[0] != "comment"]
    # What a string holds is no syntax; three words before the first, and one after the last.
    words = ["", "", "", *('"' if kind == "string" else word for kind, _, word in tokens), ""]
    found: dict[str, list[Span]] = {name: [] for name in NAMES}
    open_: list[str] = []  # brackets, and the words that begin a block
    for index, (_, span, _) in enumerate(tokens):
        third, second, before, word, after = words[index : index + 5]
        if word in _LUA_BEGINNINGS:
            open_.append(word)
        elif word in _LUA_ENDS:
            if not open_ or open_.pop() not in _LUA_ENDS[word]:
                return None
        elif word == "=":
            inside = open_[-1] if open_ else ""
            attribute = third == "<" and before == ">"  # local x <const> = 1
            name = before not in LUA_KEYWORDS and re.match(r"[^\W\d]|[^\x00-\x7f]", before)
            if inside in ("(", "[") or not (name or attribute or before == "]"):
                return None
            if inside != "{" and second != "for":
                found["assignment"].append(span)
        elif (
            word in EXCEPTION_CALLS
            and before not in (".", ":", "function")
            and after in ("(", "{", '"')
        ):
            found["exception_keyword"].append(span)
            if word in HEADER_WORDS:
                found["exception_header"].append(span)
            found["exception_message"] += _lua_message(tokens[index + 1 :], word)
    if open_:
        return None
    found["exception"] = sorted({span for part in PARTS for span in found[part]})
    return {name: sorted(set(spans)) for name, spans in found.items()}


def _lua_message(behind: list[Token], called: str) -> list[Span]:
    """String literals in the arguments of a call of error, and of assert behind its first."""
    kind, span, word = behind[0]
    if called == "error" and kind == "string":  # error "message"
        return [span]
    if called not in ("error", "assert") or word != "(":
        return []
    found: list[Span] = []
    open_: list[str] = []
    argument = 0
    for kind, span, word in behind:
        if kind == "string":
            if not {"[", "function"} & set(open_) and (called == "error" or argument > 0):
                found.append(span)
        elif word in _LUA_BEGINNINGS:
            open_.append(word)
        elif word in _LUA_ENDS:
            open_.pop()
            if not open_:
                break
        elif word == "," and len(open_) == 1:
            argument += 1
    return found
