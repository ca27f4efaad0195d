"""What the characters of a Lua source (5.1 to 5.4, LuaJIT) are, told by a lexer of our own.

A text that is not valid source gets None, so that it can be left out and counted. Valid means that
it splits into Lua's tokens, that brackets and blocks close, and that each `=` stands where one may;
no full parse is made. Where a choice had to be made:

- *exception keyword*: Lua has none; it is the called name in `error(...)`, `assert(...)`,
  `pcall(...)`, `xpcall(...)`: the global function when it is called, not `log.error(...)`, not a
  definition of that name, not the name passed on as a value (`pcall(error, 1)` counts `pcall`
  alone).
- *assignment*: the `=` of `x, y = 1, 2`, `local x = 1` and `t.a["b"] = 2`; not of a table's field
  `{a = 1}` or of a loop `for i = 1, 9`.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from featlib.text.labels import Span, Spans, Token

KEYWORDS = frozenset([
    "and", "break", "do", "else", "elseif", "end", "false", "for", "function", "goto", "if", "in",
    "local", "nil", "not", "or", "repeat", "return", "then", "true", "until", "while",
])  # fmt: skip
_CALLS = frozenset({"error", "assert", "pcall", "xpcall"})

# Lua's tokens (reference manual 5.4, section 3.1), LuaJIT's number suffixes and non-ASCII names.
# A long bracket that does not close, or a quote that does not, matches `bad` alone.
_TOKEN = re.compile(
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
_BEGINNINGS = frozenset(("(", "[", "{", "function", "if", "do", "repeat"))
_ENDS = {
    ")": ("(",), "]": ("[",), "}": ("{",), "end": ("function", "if", "do"), "until": ("repeat",)
}  # fmt: skip


def read_tokens(text: str) -> list[Token] | None:
    """Tokens of a Lua source, comments among them; None where the text holds something else."""
    position = 1 if text.startswith("\ufeff") else 0
    tokens: list[Token] = []
    if text.startswith("#", position):  # "#!/usr/bin/lua": Lua skips a first line like this
        position = re.compile(r"[^\r\n]*").match(text, position).end()  # type: ignore[union-attr]
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None or match.lastgroup in (None, "bad"):
            return None
        if match.lastgroup != "space":
            tokens.append((str(match.lastgroup), match.span(), match.group()))
        position = match.end()
    return tokens


@lru_cache(maxsize=1)  # the labels of one text are asked for one after the other
def find_spans(text: str) -> Spans | None:
    """Spans of each kind in a Lua source, in order; None where it is not valid."""
    if (lexed := read_tokens(text)) is None:
        return None
    tokens = [token for token in lexed if token[0] != "comment"]
    # What a string holds is no syntax; three words before the first, and one after the last.
    words = ["", "", "", *('"' if kind == "string" else word for kind, _, word in tokens), ""]
    calls: list[Span] = []
    assignments: list[Span] = []
    open_: list[str] = []  # brackets, and the words that begin a block
    for index, (_, span, _) in enumerate(tokens):
        third, second, before, word, after = words[index : index + 5]
        if word in _BEGINNINGS:
            open_.append(word)
        elif word in _ENDS:
            if not open_ or open_.pop() not in _ENDS[word]:
                return None
        elif word == "=":
            inside = open_[-1] if open_ else ""
            attribute = third == "<" and before == ">"  # local x <const> = 1
            name = before not in KEYWORDS and re.match(r"[^\W\d]|[^\x00-\x7f]", before)
            if inside in ("(", "[") or not (name or attribute or before == "]"):
                return None
            if inside != "{" and second != "for":
                assignments.append(span)
        elif word in _CALLS and before not in (".", ":", "function") and after in ("(", "{", '"'):
            calls.append(span)
    if open_:
        return None
    return {"exception_keyword": tuple(calls), "assignment": tuple(assignments)}
