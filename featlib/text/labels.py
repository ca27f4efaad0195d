"""Ground truth per token: labels decided from the source, and what kind of token each is.

A label is a function from a source text to spans of its characters. `LABELS` holds those of the
case studies, read from the languages themselves (`featlib.syntax` says exactly what counts); a
reader adds one by writing such a function. Spans become masks over tokens by overlap: a token
has the label if it shares a character with a span.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd
from scipy import sparse
from transformers import PreTrainedTokenizerFast

from featlib import FeatlibError
from featlib.dictionaries.features import FeatureActivations
from featlib.text.syntax import (
    LUA_KEYWORDS,
    NAMES,
    PYTHON_KEYWORDS,
    Span,
    label_lua,
    label_python,
    lua_tokens,
    python_tokens,
)
from featlib.text.tokens import SPECIAL_TOKENS, TokenBlocks, token_offsets, tokenize_documents

__all__ = [
    "EXCEPTION_WORDS",
    "LABELS",
    "TOKEN_CLASSES",
    "Label",
    "LabelledBlocks",
    "classify_text",
    "feature_classes",
    "find_headers",
    "find_vocabulary",
    "label_documents",
    "label_lua",
    "label_python",
    "label_tokens",
    "token_class",
]

Finder = Callable[[str], list[Span] | None]  # None: the text is not valid source

TOKEN_CLASSES = (
    *("special", "whitespace", "punctuation", "keyword", "identifier"),
    *("number", "string", "comment", "word"),
)

# Words that stand for exceptions: what should become likelier when an exception feature is added.
EXCEPTION_WORDS = {
    "python": (
        *("raise", "try", "except", "finally", "Error", "Exception", "ValueError", "TypeError"),
        *("KeyError", "IndexError", "RuntimeError", "AttributeError", "ImportError", "OSError"),
        *("AssertionError", "NotImplementedError", "StopIteration"),
    ),
    "lua": ("error", "assert", "pcall", "xpcall"),
}


@dataclass(frozen=True)
class Label:
    """One thing that a token can be, decided from the source text alone."""

    meaning: str  # for people: what a token with this label is
    find: Mapping[str, Finder]  # by domain; in a domain without an entry no token has the label
    called: str = ""  # what its feature is called in a sentence; the label's own name if empty
    words: str = "its tokens"  # what its tokens are called in a sentence


def _builtin(name: str) -> dict[str, Finder]:
    return {"python": partial(_pick, label_python, name), "lua": partial(_pick, label_lua, name)}


def _pick(
    label_all: Callable[[str], dict[str, list[Span]] | None], name: str, text: str
) -> list[Span] | None:
    found = label_all(text)
    return None if found is None else found[name]


_MEANINGS = (
    "raise, try, except, finally; in Lua calls of error, assert, pcall, xpcall",
    "the names of exception types in raise and except headers; Lua has none",
    "string literals that make up the message of a raised exception",
    "an exception's keyword, type or message",
    "raise and except; in Lua calls of error and assert",
    "the = of an assignment statement, not of arguments, defaults, comparisons or table fields",
)
LABELS: dict[str, Label] = {
    name: Label(meaning, _builtin(name)) for name, meaning in zip(NAMES, _MEANINGS, strict=True)
}


def find_headers(
    label_all: Callable[[str], dict[str, list[Span]] | None], words: frozenset[str], text: str
) -> list[Span] | None:
    """Exception keywords that are one of `words`: a label made out of another."""
    found = label_all(text)
    if found is None:
        return None
    return [(start, end) for start, end in found["exception_keyword"] if text[start:end] in words]


LABELS["assignment"] = replace(LABELS["assignment"], words="the `=` of assignments")
LABELS["exception_header"] = Label(
    "raise and except, the keywords after which an exception is named; in Lua error and assert",
    {
        "python": partial(find_headers, label_python, frozenset({"raise", "except"})),
        "lua": partial(find_headers, label_lua, frozenset({"error", "assert"})),
    },
    called="exception feature",
    words="`raise` and `except`",
)


def label_tokens(spans: Sequence[Span], offsets: Sequence[Span]) -> np.ndarray:
    """Which tokens share at least one character with a span: bool [tokens].

    `offsets` are the characters of each token (see `featlib.tokens.token_offsets`). A token
    without characters (`<s>`) is never labelled, an empty span labels nothing.
    """
    tokens = np.asarray(offsets, dtype=np.int64).reshape(-1, 2)
    marks = np.asarray(spans, dtype=np.int64).reshape(-1, 2)
    marks = marks[marks[:, 0] < marks[:, 1]]
    # Spans that begin before the token ends, less those that end before it begins.
    begun = np.searchsorted(np.sort(marks[:, 0]), tokens[:, 1], side="left")
    ended = np.searchsorted(np.sort(marks[:, 1]), tokens[:, 0], side="right")
    return (begun > ended) & (tokens[:, 0] < tokens[:, 1])


@dataclass(frozen=True)
class LabelledBlocks:
    """Token blocks of valid sources, and what each of their tokens is."""

    blocks: TokenBlocks
    masks: dict[str, np.ndarray]  # by label: bool [blocks, context]
    classes: np.ndarray  # uint8 [blocks, context], index into TOKEN_CLASSES
    kept: list[int]  # documents of `blocks`, as indices into the texts given
    skipped: int  # texts left out because they are not valid source


def label_documents(
    tokenizer: PreTrainedTokenizerFast,
    texts: Sequence[str],
    domain: str,
    context: int,
    labels: Mapping[str, Label] | None = None,
) -> LabelledBlocks:
    """Tokenize `texts` into blocks as for training, with a mask for each of `labels` (`LABELS`).

    A text that is not valid source of its `domain` is left out and counted. To study another
    label pass `{"mine": Label("what it is", {"python": my_function})}`.
    """
    labels = LABELS if labels is None else labels
    finders = {name: label.find.get(domain, _find_nothing) for name, label in labels.items()}
    masks: dict[str, list[np.ndarray]] = {name: [] for name in labels}
    classes: list[np.ndarray] = []
    kept: list[int] = []
    for index, text in enumerate(texts):
        spans = {name: find(text) for name, find in finders.items()}
        classified = classify_text(text, domain)
        if classified is None or any(found is None for found in spans.values()):
            continue
        kept.append(index)
        offsets = token_offsets(tokenizer, text, bos=True)[1]
        classes.append(_classes_of_tokens(text, classified, offsets))
        for name, found in spans.items():
            masks[name].append(label_tokens(found or [], offsets))
    blocks = tokenize_documents(tokenizer, [texts[index] for index in kept], context)
    if not len(blocks):
        raise FeatlibError(
            f"{len(kept)} of {len(texts)} texts of domain {domain} are valid source, too little "
            f"for one block of {context} tokens: give more texts, or another domain"
        )

    def cut(parts: list[np.ndarray]) -> np.ndarray:
        return np.concatenate(parts)[: blocks.n_tokens].reshape(blocks.ids.shape)

    return LabelledBlocks(
        blocks=blocks,
        masks={name: cut(parts) for name, parts in masks.items()},
        classes=cut(classes),
        kept=kept,
        skipped=len(texts) - len(kept),
    )


def _find_nothing(_text: str) -> list[Span]:
    return []


def find_vocabulary(token_texts: Sequence[str], words: Iterable[str]) -> np.ndarray:
    """Ids of the vocabulary entries that are one of `words`, a space before it or not.

    `token_texts`: the text of each id in order (`featlib.tokens.token_strings`).
    """
    wanted = set(words)
    found = np.flatnonzero([text.strip() in wanted for text in token_texts])
    if not len(found):
        raise FeatlibError(
            f"none of {len(wanted)} words ({', '.join(sorted(wanted)[:5])}, ...) is an entry of "
            "the vocabulary of its own; give shorter words, or train a larger vocabulary"
        )
    return found


# ------------------------------------------------------------------------------ token classes


def classify_text(text: str, domain: str) -> list[tuple[int, int, str]] | None:
    """(start, end, class) of everything in `text` but whitespace; None: not valid source.

    In code the classes are the language's: a word inside a string is string. In the English
    domains they are word, number and punctuation.
    """
    if domain not in ("python", "lua"):
        return [(*match.span(), str(match.lastgroup)) for match in _ENGLISH.finditer(text)]
    tokens = python_tokens(text) if domain == "python" else lua_tokens(text)
    keywords = PYTHON_KEYWORDS if domain == "python" else LUA_KEYWORDS
    if tokens is None:
        return None
    return [(*span, _class_in_code(kind, word, keywords)) for kind, span, word in tokens]


_ENGLISH = re.compile(
    r"(?P<word>[^\W\d_]+(?:['’][^\W\d_]+)*)|(?P<number>\d+(?:[.,]\d+)*)|(?P<punctuation>[^\w\s]|_)"
)


def _class_in_code(kind: str, word: str, keywords: frozenset[str]) -> str:
    if kind == "name":
        return "keyword" if word in keywords else "identifier"
    return kind if kind in TOKEN_CLASSES else "punctuation"


def _classes_of_tokens(
    text: str, classified: Sequence[tuple[int, int, str]], offsets: Sequence[Span]
) -> np.ndarray:
    """Class of each token, that of its first character which is no whitespace: uint8 [tokens]."""
    whitespace, special = TOKEN_CLASSES.index("whitespace"), TOKEN_CLASSES.index("special")
    of_character = np.full(len(text) + 1, whitespace, dtype=np.uint8)
    for start, end, name in classified:
        of_character[start:end] = TOKEN_CLASSES.index(name)
    solid = np.array([*(match.start() for match in re.finditer(r"\S", text)), len(text)])
    tokens = np.asarray(offsets, dtype=np.int64).reshape(-1, 2)
    first = solid[np.searchsorted(solid, tokens[:, 0])]
    classes = np.where(first < tokens[:, 1], of_character[first], whitespace)
    return np.where(tokens[:, 0] < tokens[:, 1], classes, special).astype(np.uint8)


def token_class(text: str, domain: str | None = None) -> str:
    """Class of a vocabulary entry by its own text, for tables of features.

    Without its source a token of a string or a comment cannot be told from any other. With a
    code `domain` keywords are told, and names are identifiers; otherwise they are words.
    """
    bare = text.strip()
    if text in SPECIAL_TOKENS:
        return "special"
    if not bare:
        return "whitespace"
    keywords = {"python": PYTHON_KEYWORDS, "lua": LUA_KEYWORDS}.get(domain or "")
    if keywords is not None and bare in keywords:
        return "keyword"
    if any(character.isalpha() for character in bare):
        return "word" if keywords is None else "identifier"
    return "number" if any(character.isdigit() for character in bare) else "punctuation"


def feature_classes(f: FeatureActivations, classes: np.ndarray) -> pd.DataFrame:
    """What kind of token each feature is about, by its summed activation.

    `classes` uint8 [tokens] or [blocks, context], of the same tokens as `f`. One row for each
    feature that fires: feature, token_class (where most of its activation lies), share (of its
    activation there), lift (that share over the class's share of all tokens; chance gives 1).
    """
    flat = np.asarray(classes).reshape(-1)
    if len(flat) != f.n_tokens:
        raise FeatlibError(f"{len(flat)} classes for {f.n_tokens} tokens: give one each")
    one_hot = sparse.csr_array(
        (np.ones(len(flat), np.float32), (np.arange(len(flat)), flat)),
        shape=(len(flat), len(TOKEN_CLASSES)),
    )
    mass = (f.matrix.T @ one_hot).toarray()
    features = np.flatnonzero(mass.sum(axis=1) > 0)
    shares = mass[features] / mass[features].sum(axis=1, keepdims=True)
    best = shares.argmax(axis=1)
    share = shares.max(axis=1)
    base = np.bincount(flat, minlength=len(TOKEN_CLASSES)) / len(flat)
    return pd.DataFrame(
        {
            "feature": features,
            "token_class": np.array(TOKEN_CLASSES)[best],
            "share": share,
            "lift": share / base[best],
        }
    )
