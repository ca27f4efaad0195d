# %% [markdown]
# # Explanations: features in words
#
# A {term}`feature` is a column of numbers. To say what it stands for, somebody has to look at the
# text on which it {term}`fires <fire>` and write a sentence. Whether the sentence is any good can
# be tested: give it to a reader who has not seen the feature, let the reader predict on new text
# where it fires, and correlate the prediction with the truth. The paper lets a language model be
# both writer and reader. Here both are a few lines of arithmetic, so that the chapter needs no
# service and gives the same result for everyone; a chat model can be asked as well.
#
# *What we ask here:* how well can features be explained, and are those that {term}`persist` through
# the merge easier to explain than others? (Figure 6 of the paper.)

# %% tags=["parameters", "remove-cell"]
run: str = "mini"  # the run's name: its files lie in runs/<run>
seed: int = 0  # every random choice follows from it
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

from featlib.chapter import prose, start_chapter
from featlib.describe import cues, scores
from featlib.describe.atlas import extreme_tokens, token_effects
from featlib.describe.chat import Budget, Chat, endpoint_from_environment
from featlib.describe.chat_protocol import explain_by_chat, planned
from featlib.describe.windows import choose_features, split_windows
from featlib.dictionaries import features
from featlib.dictionaries.sae import load_autoencoder
from featlib.estimate import Estimate
from featlib.family import MERGE_OF, MERGED, MODELS, PRINT_NAMES
from featlib.models import mistral as lm
from featlib.params import derive_seed
from featlib.run import needed
from featlib.show.figure import Markup, table
from featlib.show.hists import hists
from featlib.show.picks import scatter
from featlib.show.scales import Axis
from featlib.show.strips import explained_feature
from featlib.text import tokens
from featlib.text.archives import cache_folder
from featlib.text.stream import load_stream

chapter = start_chapter("10_explanations", globals())
p, run_folder = chapter.params, chapter.run

# %% [markdown]
# ## Two halves of the text
#
# The documents of the {term}`common stream` are dealt into two halves, kind by kind. Explanations
# are written from the first half and scored on the second; no document is in both. The text is cut
# into short windows. Each feature is scored on the same number of them: some in which it fires,
# drawn evenly from the quarters of its strength, so that weak firings count as much as strong ones,
# and as many in which it is silent. Features that fire in too few windows of either half are left
# out, and counted.

# %%
tokenizer = lm.load_tokenizer(run_folder.tokenizer)
words = tokens.token_strings(tokenizer, range(len(tokenizer)))

stream = load_stream(run_folder.folder / "features")
text = cues.read_text(stream.ids, stream.documents, words, stream.kinds, stream.labels)
windows = split_windows(
    stream.documents, p.explain_window, kinds=stream.kinds, seed=derive_seed(p.seed, "halves")
)
acts = {m: features.load_features(run_folder.features(m, 0)).matrix for m in MODELS}
usable = {m: choose_features(acts[m], windows, p.explain_windows) for m in MODELS}

# %% [markdown]
# ## A sentence, and a reader who knows nothing else
#
# An explanation names at most a handful of *cues*: a {term}`token`, a token after another token,
# whatever stands after or before a token, a class of tokens, a kind of text, or one of the
# {term}`labels <label>` of the case studies. Each has a strength from 1 to 9. Cues are chosen one
# at a time, each the one that explains most of what the others have left over, and are then weighed
# together. The reader gets the sentence, parses it, adds up the strengths of the cues that hold at
# each token, and that is the prediction. What follows behind the cues, such as the tokens that the
# feature makes likelier, is for people and is not used.
#
# In tokens, `·` is a space, `↵` a new line and `⇥` a tab.


# %%
PARENT = MERGE_OF[0]  # Lua, as in the paper: what of it persists into the merge is all explained
into = run_folder.read_table("matches").set_index(["parent", "child", "side"]).sort_index()
into = into.loc[(PARENT, MERGED, "parent")]
persisting = into.loc[into["fate"] == "persists", "feature"].to_numpy()

tables = []
for name in MODELS:
    rng = np.random.default_rng(derive_seed(p.seed, "explained features", name))
    sample = rng.permutation(usable[name])[: p.explain_features]
    chosen = sample
    if name == PARENT:
        chosen = np.union1d(sample, np.intersect1d(persisting, usable[name]))
    model = lm.load_checkpoint(needed(run_folder.model(name)))
    sae = load_autoencoder(needed(run_folder.autoencoder(name, 0)))
    promoted, _ = extreme_tokens(token_effects(model, sae)[chosen], 3)
    scored = scores.explain_and_score(
        acts[name],
        chosen,
        text,
        windows,
        n_windows=p.explain_windows,
        max_cues=p.explain_cues,
        promoted=[[text.vocabulary[i] for i, _ in row] for row in promoted],
        seed=derive_seed(p.seed, "scoring", name),
    )
    scored["sampled"] = np.isin(scored["feature"], sample)
    scored["persists"] = np.isin(scored["feature"], persisting) & (name == PARENT)
    tables.append(scored.assign(model=name, explainer="offline"))
found = pd.concat(tables, ignore_index=True)
table(
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
sampled = found[found["sampled"]]
lua = sampled[sampled["model"] == PARENT]
share_other = (found["correlation"] > found["other_correlation"]).mean()
share_frequency = (found["correlation"] > found["frequency_correlation"]).mean()
BASELINES = {
    "other_correlation": "another's explanation",
    "frequency_correlation": "token frequency",
}
against = lua.assign(atlas=lua["model"] + "/" + lua["feature"].astype(str))
against = against.melt(["atlas", "correlation"], list(BASELINES), "baseline", "reached")
chapter.figure(
    scatter(
        against.replace({"baseline": BASELINES}),
        x=Axis("reached", "correlation of the baseline"),
        y=Axis("correlation", "correlation of the explanation"),
        color="baseline",
    ),
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
columns = {
    "correlation": "correlation",
    "another feature's": "other_correlation",
    "frequency": "frequency_correlation",
    "table of all tokens": "lookup_correlation",
    "detection": "detection",
    "detection, another's": "other_detection",
}
table(
    pd.DataFrame(
        {"model": PRINT_NAMES[name]}
        | {
            title: f"{scores.median_estimate(own[column], rng):.2f}".replace("-", "−")
            for title, column in columns.items()
        }
        for name, own in sampled.groupby("model", sort=False)
    )
)

# %% [markdown]
# Medians over features, with 95% intervals from resampling the features. The *table of all
# tokens* is no explanation: it predicts the mean {term}`activation` of every single token of the
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
groups = scores.group_features(found, PARENT, MERGED)
medians = scores.group_medians(groups, rng)
grouped = pd.concat(table.assign(group=group) for group, table in groups.items())
chapter.figure(
    hists(grouped, "correlation", by="group", middle=medians),
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
def show(row: pd.Series) -> str:
    column = acts[row["model"]][:, [int(row["feature"])]]
    truth = column[windows.score.reshape(-1)].toarray().reshape(windows.score.shape)
    here = windows.score[truth.max(axis=1).argmax()]
    rule = cues.read_sentence(row["explanation"], text)
    return explained_feature(
        f"{PRINT_NAMES[row['model']]} {row['feature']}, {row['place']}",
        row["explanation"],
        [words[i] for i in stream.ids.reshape(-1)[here]],
        {
            "activation": column[here].toarray()[:, 0],
            "predicted": cues.simulate([rule], text, here)[:, 0],
        },
        {"correlation": row["correlation"], "detection": row["detection"]},
        peaks={"predicted": cues.STRONGEST},
        link=f"../book/atlas.html#{row['model']}/{row['feature']}",
    )


ranked = lua.sort_values("correlation", ascending=False, ignore_index=True)
half = max(len(ranked) // 2, 2)
places = {"best": ranked[:3], "median": ranked[half - 2 : half + 2], "worst": ranked[-3:]}
ten = pd.concat(rows.assign(place=place) for place, rows in places.items())
chapter.figure(
    Markup("".join(show(row) for _, row in ten.iterrows())),
    name="ten-explanations",
    caption="Explanations of ten features of Lua and their tokens: the darker, the stronger. Each "
    "strip is shaded up to its own strongest token, predictions up to 9.",
    alt=f"The best of these explanations predicts its feature with correlation "
    f"{ranked['correlation'].max():.2f}, the worst with {ranked['correlation'].min():.2f}.",
    data=ten[["feature", "firings", "correlation", "detection", "explanation"]],
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
page, trouble, chat_table = None, "", pd.DataFrame()
if p.chat_features:
    budget = Budget(p.chat_requests, p.chat_tokens)
    client = Chat(endpoint_from_environment(), budget, cache_folder() / "chat")
    asked = grouped.groupby("group", sort=False).head(p.chat_features)
    requests, cost = planned(len(asked), p.explain_windows, p.explain_window)
    print(
        f"{len(asked):,} features for a chat model: about {requests:,} requests and at most "
        f"{cost:,} tokens, less what is known from earlier runs. The cap: "
        f"{budget.requests:,} requests and {budget.tokens:,} tokens."
    )
    chat_table, trouble = explain_by_chat(
        client,
        asked[["group", "model", "feature"]],
        acts,
        [words[i] for i in stream.ids.reshape(-1)],
        windows,
        n_windows=p.explain_windows,
        seeds={m: derive_seed(p.seed, "scoring", m) for m in MODELS},
    )
if len(chat_table):
    offline = found.set_index(["model", "feature"])["correlation"].rename("offline")
    chat_table = chat_table.join(offline, on=["model", "feature"])
    by_group = dict(iter(chat_table.groupby("group", sort=False)))
    page = chapter.figure(
        hists(
            chat_table,
            "correlation",
            by="group",
            middle=scores.group_medians(by_group, rng),
        ),
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
of_chat = chat_table.drop(columns=["group", "offline"], errors="ignore")
if len(of_chat):
    of_chat = of_chat.drop_duplicates(["model", "feature"]).assign(explainer="chat")
run_folder.save_table("explanations", pd.concat([found, of_chat], ignore_index=True))

# %% [markdown]
# ## What was found, and what could be wrong

# %% tags=["remove-input"]
name = PRINT_NAMES[PARENT]
middle = {r.group: Estimate(r.median, r.low, r.high) for r in medians.itertuples()}
lookup = {group: own["lookup_correlation"].median() for group, own in groups.items()}
prose(
    """\
A sentence of at most {{ cues }} cues predicts a Lua feature with a median correlation of
{{ whole.value|num }} on text that it was not written from. Another feature's sentence gives
{{ other|num }}. Per feature, over all models, the own sentence wins in {{ over_other|pct(1) }} of
the cases, and against token frequency in {{ over_frequency|pct(1) }}. The sentence has
{{ (whole.value / lookup[name])|pct }} of what a table of all tokens has.

{% if stays %}
The {{ n_stays }} features that persist into LuaStories have a median of {{ stays|num }}, against
{{ whole.value|num }} for Lua as a whole: {{ "a" if apart else "no" }} difference larger than chance
among features would make.
{% if common %}
Features that do not persist but fire as often reach {{ common|num }}, so how common a feature is
does {{ "not account" if common.high < stays.low else "account" }} for it. What a table of all
tokens reaches is {{ lookup[name ~ ", persisting"]|num }} for the persisting and
{{ lookup[name ~ ", equally common"]|num }} for the others: that far, a feature follows the present
token and nothing else.
{% endif %}
{% endif %}

Detection is harder: {{ detection|num }} in the median where guessing gives 0.5. A cue tells where a
feature fires strongly; weak firings are spread over many tokens, and in a window they count as
much.

What could be wrong: the reader sees a token, its two neighbours and the kind of text, so a
feature that follows anything further away is explained badly here however simple its meaning. And
a list of cues is not an idea: where the cues have something in common, it is left to you to see
it. Intervals count the drawing of features, not that of text.""",
    name=name,
    cues=p.explain_cues,
    whole=(whole := middle[name]),
    other=lua["other_correlation"].median(),
    over_other=share_other,
    over_frequency=share_frequency,
    lookup=lookup,
    stays=(stays := middle.get(f"{name}, persisting")),
    n_stays=int(found["persists"].sum()),
    apart=stays is not None and (stays.low > whole.high or stays.high < whole.low),
    common=middle.get(f"{name}, equally common"),
    detection=lua["detection"].median(),
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
