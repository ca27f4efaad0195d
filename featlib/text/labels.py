"""Ground truth per token: labels decided from the source, and what kind of token each is.

A label is a function from a source text to spans of its characters; a token has the label if it
shares a character with a span. `LABELS` holds those of the case studies (`python_labels` and
`lua_labels` say exactly what counts); a reader adds one by writing such a function.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from featlib import FeatlibError
from featlib.text import lua_labels, python_labels
from featlib.text.tokens import SPECIAL_TOKENS, TokenBlocks, token_offsets, tokenize_documents

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

Span = tuple[int, int]  # [start, end) in characters of the text
Token = tuple[str, Span, str]  # kind, span, text
Spans = Mapping[str, Sequence[Span]]
Finder = Callable[[str], Sequence[Span] | None]  # None: the text is not valid source


# By domain, a module that says what the characters of its sources are: `KEYWORDS`, and of a text
# `read_tokens` and `find_spans` (of exception_keyword and assignment), None if it is not valid.
LANGUAGES: dict[str, Any] = {"python": python_labels, "lua": lua_labels}
TOKEN_CLASSES = (
    "special", "whitespace", "punctuation", "keyword", "identifier", "number", "string", "comment",
    "word",
)  # fmt: skip
INK = TOKEN_CLASSES[2:]  # classes that are read from the source


@dataclass(frozen=True)
class Label:
    """One thing that a token can be, decided from the source text alone."""

    meaning: str  # for people: what a token with this label is
    find: Mapping[str, Finder]  # by domain; in a domain without an entry no token has the label
    called: str = ""  # what its feature is called in a sentence; the label's own name if empty
    words: str = "its tokens"  # what its tokens are called in a sentence
    group: str = ""  # labels of one group are fitted side by side


def _find(kind: str, words: Collection[str] = ()) -> dict[str, Finder]:
    """Finders of the spans of this `kind`, in each language; if given, only of these `words`."""

    def find(spans: Callable[[str], Spans | None], text: str) -> list[Span] | None:
        if (found := spans(text)) is None:
            return None
        return [span for span in found[kind] if not words or text[slice(*span)] in words]

    return {domain: partial(find, language.find_spans) for domain, language in LANGUAGES.items()}


_exception = partial(Label, group="exception")
LABELS = {
    "exception_keyword": _exception(
        "raise, try, except, finally; in Lua calls of error, assert, pcall, xpcall",
        _find("exception_keyword"),
    ),
    "exception_header": _exception(
        "raise and except, the keywords after which an exception is named; in Lua error and assert",
        _find("exception_keyword", words=("raise", "except", "error", "assert")),
        called="exception feature",
        words="`raise` and `except`",
    ),
    "assignment": Label(
        "the = of an assignment statement, not of arguments, defaults, comparisons or table fields",
        _find("assignment"),
        words="the `=` of assignments",
    ),
}


def label_tokens(spans: Sequence[Span], offsets: Sequence[Span]) -> np.ndarray:
    """Which tokens share at least one character with a span: bool [tokens].

    `offsets` are the characters of each token (see `tokens.token_offsets`). A token
    without characters (`<s>`) is never labelled, an empty span labels nothing.
    """
    tokens = np.asarray(offsets, dtype=np.int64).reshape(-1, 2)
    marks = np.asarray(spans, dtype=np.int64).reshape(-1, 2)
    marks = marks[marks[:, 0] < marks[:, 1]]
    # Spans that begin before the token ends, less those that end before it begins.
    begun = np.searchsorted(np.sort(marks[:, 0]), tokens[:, 1], side="left")
    ended = np.searchsorted(np.sort(marks[:, 1]), tokens[:, 0], side="right")
    return (begun > ended) & (tokens[:, 0] < tokens[:, 1])


def label_text(
    text: str, domain: str, offsets: Sequence[Span], labels: Mapping[str, Label] = LABELS
) -> dict[str, np.ndarray] | None:
    """Mask of each of `labels` over the tokens of a text, bool [tokens]; None: not valid source.

    Where no label reads the domain, the text is not looked at.
    """
    found = {n: label.find[domain](text) for n, label in labels.items() if domain in label.find}
    if found and (None in found.values() or classify_text(text, domain) is None):
        return None
    return {name: label_tokens(found.get(name) or (), offsets) for name in labels}


@dataclass(frozen=True)
class LabelledBlocks:
    """Token blocks of valid sources, and which of their tokens have each label."""

    blocks: TokenBlocks
    masks: dict[str, np.ndarray]  # by label: bool [blocks, context]
    skipped: int  # texts left out because they are not valid source


def label_documents(
    tokenizer: PreTrainedTokenizerFast,
    texts: Sequence[str],
    domain: str,
    context: int,
    labels: Mapping[str, Label] = LABELS,
) -> LabelledBlocks:
    """Tokenize `texts` into blocks as for training, with a mask for each of `labels`.

    A text that is not valid source of its `domain` is left out and counted; where no label reads
    the domain, none is. A label of one's own: `{"mine": Label("what it is", {"python": find})}`.
    """
    read = [label_text(text, domain, token_offsets(tokenizer, text)[1], labels) for text in texts]
    marks = [of_text for of_text in read if of_text is not None]
    kept = [text for text, of_text in zip(texts, read, strict=True) if of_text is not None]
    blocks = tokenize_documents(tokenizer, kept, context)
    if not len(blocks):
        raise FeatlibError(
            f"what is valid source in {len(texts)} held-out texts of domain {domain} does not fill "
            f"one block of {context} tokens: give more text"
        )
    masks = {name: np.concatenate([of_text[name] for of_text in marks]) for name in labels}
    return LabelledBlocks(
        blocks,
        {name: mask[: blocks.n_tokens].reshape(blocks.ids.shape) for name, mask in masks.items()},
        len(texts) - len(kept),
    )


# ------------------------------------------------------------------------------ token classes


def classify_text(text: str, domain: str) -> list[tuple[int, int, str]] | None:
    """(start, end, class) of everything in `text` but whitespace; None: not valid source.

    In code the classes are the language's: a word inside a string is string. In other domains they
    are word, number and punctuation.
    """
    if domain not in LANGUAGES:
        return [(*match.span(), str(match.lastgroup)) for match in _PROSE.finditer(text)]
    language = LANGUAGES[domain]
    if (tokens := language.read_tokens(text)) is None:
        return None
    found = []
    for kind, span, word in tokens:
        if kind == "name":
            kind = "keyword" if word in language.KEYWORDS else "identifier"
        found.append((*span, kind if kind in INK else "punctuation"))
    return found


_PROSE = re.compile(
    r"(?P<word>[^\W\d_]+(?:['’][^\W\d_]+)*)|(?P<number>\d+(?:[.,]\d+)*)|(?P<punctuation>[^\w\s]|_)"
)


def classify_tokens(
    text: str, domain: str, offsets: Sequence[Span]
) -> dict[str, np.ndarray] | None:
    """Which tokens hold something of each class in `INK`, bool [tokens]; None: no valid source."""
    if (classified := classify_text(text, domain)) is None:
        return None
    spans = {name: [(a, b) for a, b, kind in classified if kind == name] for name in INK}
    return {name: label_tokens(found, offsets) for name, found in spans.items()}


def token_class(text: str, domain: str | None = None) -> str:
    """Class of a vocabulary entry by its own text, for tables of features.

    Without its source a token of a string or a comment cannot be told from any other. With the
    `domain` of a language keywords are told, and names are identifiers; otherwise they are words.
    """
    bare = text.strip()
    if text in SPECIAL_TOKENS:
        return "special"
    if not bare:
        return "whitespace"
    language = LANGUAGES.get(domain or "")
    if language is not None and bare in language.KEYWORDS:
        return "keyword"
    if any(character.isalpha() for character in bare):
        return "word" if language is None else "identifier"
    return "number" if any(character.isdigit() for character in bare) else "punctuation"
