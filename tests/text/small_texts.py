"""Small texts for tests: prose, programs, and documents of them."""

from __future__ import annotations

import random

from featlib.text.documents import Document

WORDS = [f"{a}{b}{c}" for a in "bdfgkl" for b in "aeiou" for c in ("n", "r", "st", "ll", "m")]


def prose(seed: int, words: int = 120) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=words))


def program(seed: int, lines: int = 12) -> str:
    rng = random.Random(seed)
    names = rng.choices(WORDS, k=2 * lines)
    return "".join(
        f"def {a}({b}):\n    return {b} + {rng.randrange(1000)}\n"
        for a, b in zip(names[::2], names[1::2], strict=True)
    )


def documents(*texts: str, source: str = "here") -> list[Document]:
    return [Document(text, source, "MIT") for text in texts]
