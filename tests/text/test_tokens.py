"""Tokens: nothing is lost, nothing special slips in, every token knows its characters."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from featlib import FeatlibError
from featlib.text import tokens
from featlib.text.tokens import TokenBlocks, mix_blocks, take_tokens, token_bytes, token_offsets

CORPUS = [
    "def rescue(boat):\n    try:\n        return boat.row()\n    except ValueError as error:\n",
    "Once upon a time a little boat was lost. “Where is the shore?” it said — and waited.\n",
    "local function row(boat)\n\treturn pcall(boat.row, boat)\nend\n",
    "Der Fluß fließt über die Brücke; 川は海へ流れる。 🚣🏽‍♀️ 1234 5678\n",
] * 5
PIECES = ["<s>", "</s>", "<unk>", "<s", " ", "\n", "é", "川", "🚣🏽‍♀️", "a"]
hostile = st.one_of(st.text(), st.lists(st.sampled_from(PIECES)).map("".join))


@pytest.fixture(scope="module")
def tokenizer():
    return tokens.train_tokenizer(CORPUS, 400)


def ids_of(tokenizer, text: str) -> list[int]:
    return token_offsets(tokenizer, text)[0][1:]


@settings(max_examples=200, deadline=None)
@given(hostile)
@example("<s></s><unk>")
@example("\x00\x85\u2028\ufeff\U0010ffff")
@example(" do n't , he said .")  # what "cleaned up" decoding would change
def test_any_text_survives_and_none_becomes_a_special_token(tokenizer, text):
    ids = ids_of(tokenizer, text)
    assert tokenizer.decode(ids) == text
    assert b"".join(map(token_bytes, tokenizer.convert_ids_to_tokens(ids))) == text.encode()
    assert not set(ids) & set(tokenizer.all_special_ids)
    assert tokenizer(text)["input_ids"] == [tokenizer.bos_token_id, *ids]


@settings(max_examples=200, deadline=None)
@given(hostile)
@example("🚣🏽‍♀️é川")
def test_offsets_are_the_characters_that_a_tokens_bytes_belong_to(tokenizer, text):
    """Oracle: count bytes. A token that holds part of a character has that whole character."""
    character_of_byte = [i for i, character in enumerate(text) for _ in character.encode()]
    ids, offsets = token_offsets(tokenizer, text)
    position, expected = 0, [(0, 0)]
    for token in tokenizer.convert_ids_to_tokens(ids[1:]):
        held = character_of_byte[position : position + len(token_bytes(token))]
        expected.append((held[0], held[-1] + 1))
        position += len(token_bytes(token))
    assert offsets == expected
    assert position == len(text.encode())


def test_token_strings_are_text_and_a_character_cut_in_two_is_shown_in_bytes(tokenizer):
    ids, _ = token_offsets(tokenizer, "return\n\t\x1b boat\u0416")  # no Cyrillic in the corpus
    strings = tokens.token_strings(tokenizer, np.array(ids))
    assert (strings[0], strings[-2:]) == ("<s>", [r"\xd0", r"\x96"])
    assert "".join(strings[1:-2]) == "return\n\t\\x1b boat"
    assert any(string.startswith(" b") for string in strings)


def test_training_is_deterministic_and_keeps_the_special_ids(tokenizer):
    again = tokens.train_tokenizer(iter(CORPUS), 400)
    assert again.backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()
    assert tokenizer.convert_tokens_to_ids(list(tokens.SPECIAL_TOKENS)) == [0, 1, 2]
    assert len(tokenizer) == 400
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (1, 2)
    assert len(ids_of(tokenizer, CORPUS[0])) < len(CORPUS[0]) / 2  # it did learn
    assert len(tokens.train_tokenizer(["a"], 5000)) == 259  # few texts, few entries


def test_a_tokenizer_from_disk_is_held_to_the_same_rules(tokenizer, tmp_path):
    """Most published tokenizers do read "<s>" in a text as a special token; ours must not."""
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    for text in ("a <s> b", *CORPUS):
        assert again(text)["input_ids"] == tokenizer(text)["input_ids"]
    careless = AutoTokenizer.from_pretrained(tmp_path, split_special_tokens=False)
    assert careless("<s>")["input_ids"] == [1, 1]
    assert ids_of(careless, "<s>") == ids_of(tokenizer, "<s>")


@pytest.mark.parametrize("texts", [[*CORPUS[:4], "", "last"], ["a"], []])
def test_blocks_are_the_documents_end_to_end(tokenizer, texts):
    blocks = tokens.tokenize_documents(tokenizer, texts, context=16)
    documents = [token_offsets(tokenizer, text)[0] for text in texts]
    stream = [token for document in documents for token in document]
    origin = [index for index, document in enumerate(documents) for _ in document]
    assert (blocks.ids.dtype, blocks.documents.dtype) == (np.uint16, np.int32)
    assert blocks.ids.shape == (len(stream) // 16, 16)
    assert blocks.ids.ravel().tolist() == stream[: blocks.n_tokens]
    assert blocks.documents.ravel().tolist() == origin[: blocks.n_tokens]


def numbered(n_blocks: int, context: int = 4, first: int = 0) -> TokenBlocks:
    """Block i holds only the id first + i; two blocks a document."""
    rows = np.repeat(np.arange(n_blocks)[:, None], context, 1)
    return TokenBlocks((rows + first).astype(np.uint16), (rows // 2).astype(np.int32))


def test_blocks_come_back_from_disk_and_broken_files_are_named(tmp_path):
    folder = tmp_path / "tokens"
    with pytest.raises(FeatlibError, match="01_corpora"):
        tokens.load_blocks(folder, "lua.train")
    blocks = numbered(5)
    tokens.save_blocks(blocks, folder, "lua.train")
    again = tokens.load_blocks(folder, "lua.train")
    np.testing.assert_equal(vars(again), vars(blocks))
    assert again.ids.dtype == np.uint16 and isinstance(again.ids, np.memmap)
    path = folder / "lua.train.ids.npy"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(FeatlibError, match=r"lua\.train\.ids\.npy"):
        tokens.load_blocks(folder, "lua.train")


def test_taking_tokens_and_no_more_than_there_is():
    blocks = numbered(10)
    drawn, again = take_tokens(blocks, 23, seed=3), take_tokens(blocks, 20, seed=3)
    np.testing.assert_array_equal(drawn.ids, again.ids)
    assert len(set(drawn.ids[:, 0].tolist())) == 5
    assert (drawn.ids[:, 0] // 2 == drawn.documents[:, 0]).all()  # the pairs stay together
    draws = [take_tokens(blocks, 20, seed=n).ids[:, 0] for n in range(400)]
    counts = np.bincount(np.concatenate(draws))
    assert abs(counts / 400 - 0.5).max() < 0.1, "every block of every document is as likely"
    for wrong in (44, 3):
        with pytest.raises(FeatlibError, match="asked for"):
            take_tokens(blocks, wrong, seed=0)
    with pytest.raises(FeatlibError, match="share is 32"):
        mix_blocks([numbered(30), numbered(4)], 64, seed=0)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(10, 60), min_size=1, max_size=4), st.integers(1, 40), st.integers(0, 99)
)
def test_a_mix(sizes, n_blocks, seed):
    """As much of each, no block twice, documents apart, and its origin is where it came from."""
    parts = [numbered(size, first=1000 * i) for i, size in enumerate(sizes)]
    n_blocks = min(n_blocks, min(sizes) * len(sizes))
    mix = mix_blocks(parts, 4 * n_blocks, seed=seed)
    counts = np.bincount(mix.ids[:, 0] // 1000, minlength=len(parts))
    assert len(mix) == n_blocks == len(set(mix.ids[:, 0].tolist()))
    assert counts.max() - counts.min() <= 1
    np.testing.assert_array_equal(mix.ids[:, 0], 1000 * mix.part + mix.row)
    first = np.cumsum([0, *((size + 1) // 2 for size in sizes)])
    np.testing.assert_array_equal(mix.documents[:, 0], first[mix.part] + mix.row // 2)
    whole = mix_blocks(parts, seed=seed)
    assert len(whole) == min(sizes) * len(sizes)
    assert len(whole) < 20 or sorted(whole.row) != whole.row.tolist()  # shuffled


@given(st.lists(st.text(alphabet=" \n\t·↵⇥“”\\u0a", max_size=4), unique=True))
def test_visible_texts_show_no_whitespace_and_stay_different(texts):
    shown = list(map(tokens.visible, texts))
    assert len(set(shown)) == len(texts)
    assert all(text and not any(map(str.isspace, text)) for text in shown)
