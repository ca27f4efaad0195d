# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Explanations: features in words
#
# A feature is a column of numbers. To say what it stands for, somebody has to look at the text on
# which it fires and write a sentence. Whether the sentence is any good can be tested: give it to a
# reader who has not seen the feature, let the reader predict on new text where it fires, and
# correlate the prediction with the truth. The paper lets a language model be both writer and
# reader. Here both are a few lines of arithmetic, so that the chapter needs no service and gives
# the same result for everyone; a chat model can be asked as well.
#
# *What we ask here:* how well can features be explained, and are those that persist through the
# merge easier to explain than others? (Figure 6 of the paper.)

# %% tags=["parameters", "remove-cell"]
run: str = "mini"  # the run's name: its files lie in runs/<run>
seed: int = 0  # every random choice follows from it
stream_tokens: int = 40_000  # test tokens per domain in the common stream
explain_features: int = 500  # features of each model that are explained
explain_cues: int = 10  # cues that an explanation may name at most
explain_window: int = 16  # tokens in a window on which explanations are tested
explain_windows: int = 20  # windows with the feature, and as many without, per feature
chat_features: int = 0  # features of each group that a chat model explains too; 0 asks none
chat_requests: int = 500  # requests that the chat model may cost at most
chat_tokens: int = 500_000  # tokens that the chat model may cost at most

# %%
import numpy as np
import pandas as pd
from IPython.display import Markdown

from featlib import FeatlibError
from featlib.chapter import start_chapter
from featlib.describe import (
    chat,
)
from featlib.describe import (
    chat_protocol as chat_explanations,
)
from featlib.describe import (
    cues as explanations,
)
from featlib.describe import (
    scores as explanation_scores,
)
from featlib.dictionaries import features
from featlib.dictionaries.sae import load_autoencoder
from featlib.family import DOMAINS, MODELS, PRINT_NAMES
from featlib.models import mistral as lm
from featlib.params import derive_seed
from featlib.run import atomic_path, needed
from featlib.show import charts, explanation_charts
from featlib.text import tokens
from featlib.text.archives import cache_folder
from featlib.text.stream_marks import mark_stream

chapter = start_chapter("10_explanations", globals())
p, run_folder = chapter.params, chapter.run

# %% [markdown]
# ## Two halves of the text
#
# The documents of the common stream are dealt into two halves, kind by kind. Explanations are
# written from the first half and scored on the second; no document is in both. The text is cut into
# short windows. Each feature is scored on the same number of them: some in which it fires, drawn
# evenly from the quarters of its strength, so that weak firings count as much as strong ones, and
# as many in which it is silent. Features that fire in too few windows of either half are left out,
# and counted.

# %%
parts = {
    d: tokens.take_tokens(tokens.load_blocks(run_folder.tokens, f"{d}.test"), p.stream_tokens)
    for d in DOMAINS
}
held_out = pd.read_parquet(needed(run_folder.tokens / "documents.parquet"))
held_out = held_out[held_out["split"] == "test"].sort_values("document")
texts = {d: held_out.loc[held_out["domain"] == d, "text"].tolist() for d in DOMAINS}
tokenizer = lm.load_tokenizer(run_folder.tokenizer)
words = tokens.token_strings(tokenizer, range(len(tokenizer)))

needed(run_folder.folder / "features" / "stream.ids.npy")
stream = tokens.load_blocks(run_folder.folder / "features", "stream")
kinds, labels = mark_stream(tokenizer, parts, texts, stream, derive_seed(p.seed, "stream"))
text = explanations.read_text(stream.ids, stream.documents, words, kinds, labels)
windows = explanation_scores.split_windows(
    stream.documents, p.explain_window, kinds=kinds, seed=derive_seed(p.seed, "halves")
)
acts = {m: features.load_features(run_folder.features(m, 0)).matrix for m in MODELS}
usable = {
    m: explanation_scores.choose_features(acts[m], windows, p.explain_windows) for m in MODELS
}

# %% [markdown]
# ## A sentence, and a reader who knows nothing else
#
# An explanation names at most a handful of *cues*: a token, a token after another token, whatever
# stands after or before a token, a class of tokens, a kind of text, or one of the labels of the
# case studies. Each has a strength from 1 to 9. Cues are chosen one at a time, each the one that
# explains most of what the others have left over, and are then weighed together. The reader gets
# the sentence, parses it, adds up the strengths of the cues that hold at each token, and that is
# the prediction. What follows behind the cues, such as the tokens that the feature makes likelier,
# is for people and is not used.
#
# In tokens, `·` is a space, `↵` a new line and `⇥` a tab.


# %%
matches = pd.read_parquet(needed(run_folder.table("matches")))
into_merge = matches[
    (matches["parent"] == "lua") & (matches["child"] == "merged") & (matches["side"] == "parent")
]
persisting = into_merge.loc[into_merge["fate"] == "persists", "feature"].to_numpy()

tables = []
for name in MODELS:
    rng = np.random.default_rng(derive_seed(p.seed, "explained features", name))
    sample = rng.permutation(usable[name])[: p.explain_features]
    chosen = sample  # of Lua's, those that persist into the merge are all explained
    if name == "lua":
        chosen = np.union1d(sample, np.intersect1d(persisting, usable[name]))
    model = lm.load_checkpoint(needed(run_folder.model(name)))
    sae = load_autoencoder(needed(run_folder.autoencoder(name, 0)))
    promoted = explanations.promoted_tokens(model, sae.W_dec, chosen)
    scored = explanation_scores.explain_and_score(
        acts[name],
        chosen,
        text,
        windows,
        n_windows=p.explain_windows,
        max_cues=p.explain_cues,
        promoted=[[text.vocabulary[i] for i in row] for row in promoted],
        seed=derive_seed(p.seed, "scoring", name),
    )
    tables.append(
        scored.assign(
            model=name,
            explainer="offline",
            sampled=np.isin(scored["feature"], sample),
            persists=np.isin(scored["feature"], persisting) & (name == "lua"),
        )
    )
found = pd.concat(tables, ignore_index=True)
charts.table(
    pd.DataFrame(
        {
            "model": [PRINT_NAMES[m] for m in MODELS],
            "usable": [len(usable[m]) for m in MODELS],
            "left out": [acts[m].shape[1] - len(usable[m]) for m in MODELS],
            "explained": [int((found["model"] == m).sum()) for m in MODELS],
        }
    )
)

# %% [markdown]
# ## Is that better than nothing?
#
# Two baselines say what a correlation is worth, on the same windows. The first knows nothing of the
# feature but whether it prefers common or rare tokens. The second uses a real explanation, of
# another feature drawn at random. Every dot is a feature of Lua.

# %% tags=["hide-input"]
lua = found[(found["model"] == "lua") & found["sampled"]]
share_other = (found["correlation"] > found["other_correlation"]).mean()
share_frequency = (found["correlation"] > found["frequency_correlation"]).mean()
chapter.figure(
    explanation_charts.explained_against_baselines(lua),
    name="baselines",
    caption="Correlation between predicted and true activation, by a feature's own explanation "
    "(up) and by each of two baselines (right). Above the dashed line, the explanation is better. "
    "A click on a dot opens its feature in the atlas; drag to move, shift and wheel to zoom.",
    alt=f"Over all four models the explanation predicts better than another feature's for "
    f"{share_other:.1%} of the features, and better than token frequency for "
    f"{share_frequency:.1%}.",
    data=lua[["feature", "correlation", "other_correlation", "frequency_correlation"]],
)

# %% tags=["hide-input"]
rng = np.random.default_rng(derive_seed(p.seed, "medians"))


def middle(values: pd.Series) -> str:
    median, low, high = explanation_scores.median_interval(values.to_numpy(), rng)
    return f"{median:.2f} ({low:.2f} to {high:.2f})".replace("-", "−")


sampled = found[found["sampled"]]
rows = []
for name in MODELS:
    own = sampled[sampled["model"] == name]
    rows.append(
        {
            "model": PRINT_NAMES[name],
            "correlation": middle(own["correlation"]),
            "another feature's": middle(own["other_correlation"]),
            "frequency": middle(own["frequency_correlation"]),
            "table of all tokens": middle(own["lookup_correlation"]),
            "detection": middle(own["detection"]),
            "detection, another's": middle(own["other_detection"]),
        }
    )
charts.table(pd.DataFrame(rows))

# %% [markdown]
# Medians over features, with 95% intervals from resampling the features. The *table of all
# tokens* is no explanation: it predicts the mean activation of every single token of the
# vocabulary. It shows how far any rule about the present token could go. Detection is the share of
# windows, half of them silent, for which the reader says correctly whether the feature fires;
# guessing gives 0.5.

# %% [markdown]
# ## Lua, LuaStories, and what persists
#
# This is the paper's Figure 6. Features that persist also differ from the rest in how often they
# fire, and that alone could change a score. So a last group holds features of Lua that do not
# persist, one for each that does, alike in the number of firings.

# %% tags=["hide-input"]
stays = found[found["persists"]]
goes = lua[~lua["persists"]]
alike = goes.iloc[explanation_scores.alike_in_firings(stays["firings"], goes["firings"])]
groups = {
    "Lua": lua,
    "LuaStories": sampled[sampled["model"] == "merged"],
    "Lua, persisting": stays,
    "Lua, equally common": alike,
}
groups = {group: table for group, table in groups.items() if len(table)}
medians = pd.DataFrame(
    [
        (group, len(table), *explanation_scores.median_interval(table["correlation"], rng))
        for group, table in groups.items()
    ],
    columns=["group", "features", "median", "low", "high"],
)
grouped = pd.concat(table.assign(group=group) for group, table in groups.items())
chapter.figure(
    explanation_charts.score_histograms(grouped, medians),
    name="explanation-scores",
    caption="How well explanations predict activations on unseen text: features of Lua, of "
    "LuaStories, those of Lua that persist into LuaStories, and as many of Lua that do not persist "
    "but fire as often. The line is the median, the band its 95% interval.",
    alt="Median correlation: "
    + "; ".join(f"{r.group} {r.median:.2f} ({r.features} features)" for r in medians.itertuples()),
    data=grouped[["group", "feature", "firings", "correlation"]],
)

# %% [markdown]
# ## Ten explanations
#
# The three best, four from the middle and the three worst of Lua, each on the held-out window in
# which its feature fires most: the true activation above, the reader's prediction below.


# %% tags=["hide-input"]
def show(row: pd.Series, place: str) -> str:
    column = acts[row["model"]][:, [int(row["feature"])]]
    truth = column[windows.score.reshape(-1)].toarray().reshape(windows.score.shape)
    here = windows.score[truth.max(axis=1).argmax()]
    rule = explanations.read_sentence(row["explanation"], text)
    return explanation_charts.explained_feature(
        f"{PRINT_NAMES[row['model']]} {row['feature']}, {place}",
        row["explanation"],
        [words[i] for i in stream.ids.reshape(-1)[here]],
        {
            "activation": column[here].toarray()[:, 0],
            "predicted": explanations.simulate([rule], text, here)[:, 0],
        },
        {"correlation": row["correlation"], "detection": row["detection"]},
        peaks={"predicted": explanations.STRONGEST},
        link=f"../book/atlas.html#{row['model']}/{row['feature']}",
    )


ranked = lua.sort_values("correlation", ascending=False, ignore_index=True)
half = len(ranked) // 2
places = {
    "best": range(min(3, len(ranked))),
    "median": range(max(half - 2, 0), min(half + 2, len(ranked))),
    "worst": range(max(len(ranked) - 3, 0), len(ranked)),
}
shown = [show(ranked.iloc[i], place) for place, span in places.items() for i in span]
chapter.figure(
    charts.Markup("".join(shown)),
    name="ten-explanations",
    caption="Explanations of ten features of Lua and their tokens: the darker, the stronger. Each "
    "strip is shaded up to its own strongest token, predictions up to 9.",
    alt=f"The best of these explanations predicts its feature with correlation "
    f"{ranked['correlation'].max():.2f}, the worst with {ranked['correlation'].min():.2f}.",
    data=ranked.loc[
        [i for span in places.values() for i in span],
        ["feature", "firings", "correlation", "detection", "explanation"],
    ],
)

# %% [markdown]
# ## A chat model as writer and reader
#
# The same protocol works with any chat model behind an OpenAI-compatible address. The writer sees
# windows of the first half with activations from 0 to 9, the strongest and some of every quarter;
# the reader sees the sentence and the scoring windows alone. Set `FEATLIB_CHAT_URL`,
# `FEATLIB_CHAT_MODEL` and, where one is needed, `FEATLIB_CHAT_KEY`, and give `chat_features`. What
# it may cost is said before the first request and never exceeded; answers are kept, so that
# nothing is paid twice.

# %% tags=["hide-input"]
asked: dict[str, tuple[str, np.ndarray]] = {
    group: (table["model"].iloc[0], table["feature"].to_numpy()[: p.chat_features])
    for group, table in groups.items()
    if p.chat_features
}
by_chat, page, trouble = [], None, ""
if asked:
    endpoint = chat.endpoint_from_environment()
    if endpoint is None:
        raise FeatlibError(
            f"chat_features is {p.chat_features}, but no chat model is named: set "
            f"{' and '.join(chat.VARIABLES[:2])}, or chat_features to 0"
        )
    budget = chat.Budget(p.chat_requests, p.chat_tokens)
    client = chat.Chat(endpoint, budget, cache_folder() / "chat")
    n_asked = sum(len(own) for _, own in asked.values())
    print(chat_explanations.plan_cost(n_asked, p.explain_windows, p.explain_window))
    print(f"The cap: {budget.requests:,} requests and {budget.tokens:,} tokens.")
    said = [words[i] for i in stream.ids.reshape(-1)]
    for group, (name, own) in asked.items():
        table, trouble = chat_explanations.explain_by_chat(
            client,
            acts[name],
            own,
            said,
            windows,
            n_windows=p.explain_windows,
            seed=derive_seed(p.seed, "scoring", name),
        )
        by_chat.append(table.assign(model=name, group=group, explainer="chat"))
        if trouble:
            break
chat_table = pd.concat(by_chat, ignore_index=True) if by_chat else pd.DataFrame()
if len(chat_table):
    offline = found.set_index(["model", "feature"])["correlation"].rename("offline")
    chat_table = chat_table.join(offline, on=["model", "feature"])
    chat_medians = pd.DataFrame(
        [
            (group, len(own), *explanation_scores.median_interval(own["correlation"], rng))
            for group, own in chat_table.groupby("group", sort=False)
        ],
        columns=["group", "features", "median", "low", "high"],
    )
    page = chapter.figure(
        explanation_charts.score_histograms(chat_table, chat_medians),
        name="chat-scores",
        caption="How well a chat model's explanations let it predict activations, on the windows "
        "of the figure above.",
        alt=f"Median correlation {chat_table['correlation'].median():.2f} by the chat model, "
        f"{chat_table['offline'].median():.2f} offline for the same features.",
        data=chat_table[["group", "feature", "correlation", "offline", "detection", "explanation"]],
    )
page

# %% tags=["remove-input"]
Markdown(
    f"The chat model, {len(chat_table)} features: median correlation "
    f"{chat_table['correlation'].median():.2f}, and {chat_table['offline'].median():.2f} for the "
    f"offline explanations of the same features. It took {budget.spent_requests:,} requests and "
    f"{budget.spent_tokens:,} tokens; {client.hits:,} answers were known. {trouble}"
    if len(chat_table)
    else f"No chat model was asked in this run. {trouble}"
)

# %%
columns = [c for c in found.columns if c not in ("model", "feature", "explainer", "explanation")]
kept = ["model", "feature", "explainer", "explanation", *columns]
of_chat = chat_table.drop(columns=["group", "offline"], errors="ignore")
of_chat = of_chat.drop_duplicates(["model", "feature"]) if len(of_chat) else of_chat
with atomic_path(run_folder.table("explanations")) as path:
    pd.concat([found[kept], of_chat], ignore_index=True).to_parquet(path)

# %% [markdown]
# ## What was found, and what could be wrong

# %% tags=["remove-input"]
by_group = medians.set_index("group")
of_table = (lua["correlation"].median() / lua["lookup_correlation"].median()) if len(lua) else 0
compared = ""
if "Lua, persisting" in by_group.index:
    ours, rest = by_group.loc["Lua, persisting"], by_group.loc["Lua"]
    apart = ours["low"] > rest["high"] or ours["high"] < rest["low"]
    compared = f"""
The {int(ours["features"])} features that persist into LuaStories have a median of
{ours["median"]:.2f} ({ours["low"]:.2f} to {ours["high"]:.2f}), against {rest["median"]:.2f} for Lua
as a whole: {"a difference larger" if apart else "no difference larger"} than chance among features
would make. """
    if "Lua, equally common" in by_group.index:
        same = by_group.loc["Lua, equally common"]
        compared += f"""Features that do not persist but fire as often reach {same["median"]:.2f}
({same["low"]:.2f} to {same["high"]:.2f}), so how common a feature is does
{"not account" if same["high"] < ours["low"] else "account"} for it. What a table of all tokens
reaches is {stays["lookup_correlation"].median():.2f} for the persisting and
{alike["lookup_correlation"].median():.2f} for the others: that far, a feature follows the present
token and nothing else. """
Markdown(
    f"""\
A sentence of at most {p.explain_cues} cues predicts a Lua feature with a median correlation of
{by_group.loc["Lua", "median"]:.2f} on text that it was not written from. Another feature's
sentence gives {lua["other_correlation"].median():.2f}. Per feature, over all four models, the own
sentence wins in {share_other:.1%} of the cases, and against token frequency in
{share_frequency:.1%}. The sentence has {of_table:.0%} of what a table of all tokens has.
{compared}

Detection is harder: {lua["detection"].median():.2f} in the median where guessing gives 0.5. A cue
tells where a feature fires strongly; weak firings are spread over many tokens, and in a window they
count as much.

What could be wrong: the reader sees a token, its two neighbours and the kind of text, so a
feature that follows anything further away is explained badly here however simple its meaning. And
a list of cues is not an idea: where the cues have something in common, it is left to you to see
it. Intervals count the drawing of features, not that of text."""
)

# %% tags=["remove-input"]
chapter.finish(
    {
        f"explain.{name}.{score}_median": float(
            sampled.loc[sampled["model"] == name, score].median()
        )
        for name in MODELS
        for score in ("correlation", "detection")
    }
)
