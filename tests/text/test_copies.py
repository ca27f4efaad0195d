"""Copies: what stands twice goes, and held-out text that train has too, counted by plain sets."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_texts import documents, prose

from featlib import FeatlibError
from featlib.text.copies import deduplicate, drop_near_copies


def test_duplicates_go_and_the_rest_stays_in_order() -> None:
    long = prose(1, 400)
    words = long.split()
    near = " ".join([*words[:200], "changed", *words[201:]])  # 5 of 396 shingles differ
    part = " ".join(words[50:250])  # wholly inside
    half = " ".join([*words[:100], *prose(2, 100).split()])  # half inside: its own document
    others = [prose(i) for i in range(10, 30)]
    texts = [part, others[0], "  " + others[0].replace(" ", "\n\t"), near, half, long, *others[1:]]
    kept, removed = deduplicate(documents(*texts))
    assert removed == 3  # of each family the longest stays
    gone = {part, others[0], min(near, long, key=len)}
    assert [one.text for one in kept] == [text for text in texts if text not in gone]
    kept, removed = deduplicate(documents("a b", "a  b", "", " ", "a c", "a b c d"))
    assert [one.text for one in kept] == ["a  b", " ", "a c", "a b c d"] and removed == 2


def test_threshold_is_of_shared_runs_of_words() -> None:
    """Against the exact share of distinct five-word runs, counted with plain sets."""
    words = prose(1, 600).split()

    def share(text: str) -> float:
        mine, theirs = (
            {tuple(w[i : i + 5]) for i in range(len(w) - 4)} for w in (text.split(), words)
        )
        return len(mine & theirs) / len(mine)

    for fresh in range(0, 200, 10):
        text = " ".join([*words[: 300 - fresh], *prose(fresh + 5, fresh).split()])
        _, removed = deduplicate(documents(" ".join(words), text))
        assert removed == (share(text) >= 0.8), (fresh, share(text))


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000), alphabet=st.sampled_from(["ab", "aé川\U0001f6a3", "abcdefgh \n"])
)
def test_near_copies_are_those_that_plain_sets_find(seed, alphabet):
    """Held-out texts of pieces of train and of fresh text, some of them around half of each."""
    rng = random.Random(seed)

    def fresh(length: int) -> str:
        return "".join(rng.choices(alphabet, k=length))

    train = documents(*(fresh(300) for _ in range(5)))

    def patched() -> str:
        pieces = (rng.choice(train).text[50:250][: rng.randrange(201)], fresh(rng.randrange(150)))
        return "".join(rng.sample(pieces, 2)) + rng.choice(["", train[0].text[:60]])

    splits = {
        "train": train,
        "validation": documents(*(patched() for _ in range(15)), fresh(100), fresh(20)),
        "test": documents(*(patched() for _ in range(15)), fresh(100), ""),
    }
    kept = drop_near_copies(splits)
    assert kept["train"] == train
    there, *held = ([{d.text[i : i + 50] for i in range(len(d.text) - 49)} for d in splits[name]]
                    for name in splits)  # fmt: skip
    known = set().union(*there)
    for name, runs in zip(("validation", "test"), held, strict=True):
        stay = [len(mine & known) <= 0.5 * len(mine) for mine in runs]
        assert kept[name] == [d for d, stays in zip(splits[name], stay, strict=True) if stays]
    with pytest.raises(FeatlibError, match="all 1 documents held out for test"):
        drop_near_copies({"train": train, "validation": documents(fresh(99)), "test": train[:1]})
