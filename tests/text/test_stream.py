"""The common stream: every block is where it came from, and its tokens are what the source says."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from featlib import FeatlibError
from featlib.family import CODE, DOMAINS
from featlib.run import Run
from featlib.text import tokens
from featlib.text.labels import INK, LABELS, classify_tokens, label_text
from featlib.text.stream import load_stream, make_stream, save_stream
from featlib.text.tokens import load_blocks, mix_blocks, token_offsets, train_tokenizer

SOURCES = {
    "python": "try:\n    x = 1  # one\nexcept ValueError:\n    raise\n",
    "lua": "local x = 1\nif x then error('no') end\n",
}
STORY = "Once upon a time there was a small dog, and it had 3 bones. "
CONTEXT = 16


@pytest.fixture(scope="module")
def texts():
    found = {d: [SOURCES.get(d, STORY) * n for n in range(1, 9)] for d in DOMAINS}
    for d in CODE:
        found[d].insert(2, "= (")  # no valid source: it is read, and has no labels
    return found


@pytest.fixture(scope="module")
def made(texts, tmp_path_factory):
    """A run after chapter 01, its stream of 14 blocks a domain, and the tokenizer."""
    run = Run("tiny", tmp_path_factory.mktemp("runs"))
    tokenizer = train_tokenizer([*SOURCES.values(), STORY], 300)
    rows = []
    for domain, documents in texts.items():
        blocks = tokens.tokenize_documents(tokenizer, documents, CONTEXT)
        tokens.save_blocks(blocks, run.tokens, f"{domain}.test")
        rows += [("validation", domain, "x = 1"), *(("test", domain, text) for text in documents)]
    table = pd.DataFrame(rows, columns=["split", "domain", "text"])
    table.to_parquet(run.tokens / "documents.parquet")
    return run, make_stream(run, tokenizer, 14 * CONTEXT, seed=5), tokenizer


def test_marks_are_those_of_each_document(made, texts):
    run, stream, tokenizer = made
    prose = ~np.isin(stream.kinds[:, 0], [DOMAINS.index(domain) for domain in CODE])
    assert all(mask.any() and not mask[prose].any() for mask in stream.labels.values())
    assert all(mask.any() for mask in stream.classes.values())
    parts = [load_blocks(run.tokens, f"{domain}.test") for domain in DOMAINS]
    mix = mix_blocks(parts, 14 * CONTEXT * len(DOMAINS), seed=5)  # says where each block is from
    np.testing.assert_array_equal(stream.ids, mix.ids)
    np.testing.assert_array_equal(stream.kinds, np.repeat(mix.part[:, None], CONTEXT, axis=1))
    assert np.bincount(mix.part).tolist() == [14] * len(DOMAINS)
    for number, domain in enumerate(DOMAINS):
        known: dict[str, list] = {name: [] for name in (*LABELS, *INK)}
        for text in texts[domain]:
            offsets = token_offsets(tokenizer, text)[1]
            found = {n: m for read in (label_text, classify_tokens)
                     for n, m in (read(text, domain, offsets) or {}).items()}  # fmt: skip
            for name, masks in known.items():
                masks.append(found.get(name, np.zeros(len(offsets), bool)))
        whole = len(parts[number])
        for name, mask in (stream.labels | stream.classes).items():
            expected = np.concatenate(known[name])[: whole * CONTEXT].reshape(whole, CONTEXT)
            here = mix.part == number
            np.testing.assert_array_equal(mask[here], expected[mix.row[here]], err_msg=name)


def test_the_stream_rests_on_all_documents(made, texts):
    """Of each kind, whichever document there is: in its first blocks only the first few were."""
    run, _, tokenizer = made
    seen = {
        document
        for seed in range(20)
        for document in make_stream(run, tokenizer, 4 * CONTEXT, seed=seed).documents.flat
    }
    assert len(seen) == sum(map(len, texts.values()))


def test_a_stream_comes_back_from_disk(made, tmp_path):
    _, stream, _ = made
    with pytest.raises(FeatlibError, match="06_matching makes it"):
        load_stream(tmp_path / "features")
    save_stream(stream, tmp_path / "features")
    again = load_stream(tmp_path / "features")
    np.testing.assert_equal(vars(again), vars(stream))
