# %% [markdown]
# # Explanations: features in words

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

# %% tags=["hide-input"]
import numpy as np
import pandas as pd

from featlib.chapter import prose, start_chapter
from featlib.describe import cues, scores
from featlib.describe.atlas_files import atlas_address
from featlib.describe.chat import Budget, Chat, endpoint_from_environment, explain_by_chat
from featlib.describe.windows import choose_features, split_windows
from featlib.dictionaries import features
from featlib.family import MERGE_OF, MERGED, MODELS, PRINT_NAMES
from featlib.models import mistral as lm
from featlib.params import derive_seed
from featlib.show.figure import Markup, table
from featlib.show.hists import hists
from featlib.show.strips import explained_feature
from featlib.text import tokens
from featlib.text.archives import cache_folder
from featlib.text.stream import load_stream

chapter = start_chapter("10_explanations", globals())
p, run_folder = chapter.params, chapter.run
tokenizer = lm.load_tokenizer(run_folder.tokenizer)
words = tokens.token_strings(tokenizer, range(len(tokenizer)))
stream = load_stream(run_folder.folder / "features")
text = cues.read_text(stream.ids, stream.documents, words, stream.kinds, stream.labels)
windows = split_windows(
    stream.documents, p.explain_window, kinds=stream.kinds, seed=derive_seed(p.seed, "halves")
)
acts = {m: features.load_features(run_folder.features(m, 0)).matrix for m in MODELS}
usable = {m: choose_features(acts[m], windows, p.explain_windows) for m in MODELS}
scoring = {m: derive_seed(p.seed, "scoring", m) for m in MODELS}

# %% tags=["hide-input"]
PARENT = MERGE_OF[0]  # Lua, as in the paper: what of it persists into the merge is all explained
into = run_folder.read_table("matches").set_index(["parent", "child", "side"]).sort_index()
into = into.loc[(PARENT, MERGED, "parent")]
persisting = into.loc[into["fate"] == "persists", "feature"].to_numpy()

tables = []
for name in MODELS:
    rng = np.random.default_rng(derive_seed(p.seed, "explained features", name))
    sample = rng.permutation(usable[name])[: p.explain_features]
    stays = np.intersect1d(persisting, usable[name]) if name == PARENT else sample[:0]
    scored = scores.explain_and_score(
        acts[name],
        np.union1d(sample, stays),
        text,
        windows,
        n_windows=p.explain_windows,
        max_cues=p.explain_cues,
        seed=scoring[name],
    )
    scored["sampled"] = scored["feature"].isin(sample)
    scored["persists"] = scored["feature"].isin(stays)
    tables.append(scored.assign(model=name, explainer="offline"))
found = pd.concat(tables, ignore_index=True)
sampled = found[found["sampled"]]
lua = sampled[sampled["model"] == PARENT]
groups = scores.group_features(found, PARENT, MERGED)
rng = np.random.default_rng(derive_seed(p.seed, "medians"))
medians = scores.group_medians(groups, rng)

# %% tags=["remove-input"]
persist, common = (
    groups.get(f"{PRINT_NAMES[PARENT]}, {what}", lua[:0])[["correlation", "lookup"]].median()
    for what in ("persisting", "equally common")
)
prose(
    """\
**A sentence of at most {{ cues }} cues predicts, on text that it was not written from, where a
feature of {{ name }} fires with a median correlation of {{ own|num }}; another feature's sentence
gives {{ other|num }}, and a plain table of what the feature does at each token of the vocabulary
{{ lookup|num }}: so far goes the present token alone. For features that persist into the merge it
is {{ persist.correlation|num }} (the table: {{ persist.lookup|num }}), for as many that do not, but
fire as often, {{ common.correlation|num }} ({{ common.lookup|num }}).**""",
    name=PRINT_NAMES[PARENT],
    cues=p.explain_cues,
    own=lua["correlation"].median(),
    other=lua["other"].median(),
    lookup=lua["lookup"].median(),
    persist=persist,
    common=common,
)

# %% [markdown]
# ## What persists, and how well it is explained
#
# This is the paper's Figure 6: how well explanations predict {term}`activations <activation>`, for
# features of Lua, for those of LuaStories, and for those of Lua that {term}`persist` into
# LuaStories. They have a language model write and read the explanations. Here both are a few lines
# of arithmetic, so that everyone gets the same result without a service.
#
# Features that persist differ from the rest in how often they {term}`fire`, and that alone moves a
# score. So a last group holds features of Lua that do not persist, one for each that does, alike in
# the number of firings: with these the persisting ones are to be compared.

# %% tags=["hide-input"]
grouped = pd.concat(own.assign(group=group) for group, own in groups.items())
chapter.figure(
    hists(grouped, "correlation", by="group", middle=medians),
    name="explanation-scores",
    caption="How well explanations predict activations on unseen text: features of Lua, of "
    "LuaStories, those of Lua that persist into LuaStories, and as many of Lua that do not persist "
    "but fire as often. The line is the median, the band its 95% interval.",
    alt="Median correlation: "
    + "; ".join(f"{r.group} {r.median:.2f} ({r.features} features)" for r in medians.itertuples()),
    data=grouped[["group", "feature", "firings", "correlation", "other", "lookup", "detection"]],
)

# %% tags=["hide-input"]
COLUMNS = {
    "correlation": "correlation",
    "another feature's sentence": "other",
    "table of all tokens": "lookup",
    "detection": "detection",
}


def said(own: pd.DataFrame, column: str) -> str:
    return f"{scores.median_estimate(own[column], rng):.2f}".replace("-", "−")


rows = {PRINT_NAMES[m]: sampled[sampled["model"] == m] for m in MODELS} | groups
table(
    pd.DataFrame(
        {"group": name, "features": len(own)}
        | {title: said(own, column) for title, column in COLUMNS.items()}
        for name, own in rows.items()
    )
)

# %% [markdown]
# Medians over features, with 95% intervals from resampling the features; the drawing of the text is
# not in them. *Another feature's sentence* is the base rate: a real explanation of something else.
# The *table of all tokens* is the ceiling of every rule about the present token, and no
# explanation. *Detection* is how often a window in which the feature fires is predicted to fire
# more strongly than one in which it is silent; guessing gives 0.5. It is harder, because a cue
# tells where a feature fires strongly, while weak firings are spread over many tokens.
#
# ## How it is done, and what could be wrong
#
# The documents of the {term}`common stream` are dealt into two halves, kind by kind. A sentence is
# written from the first and scored on the second, on short windows: some in which the feature
# fires, as many from each quarter of its strength, and as many in which it is silent. It names
# *cues*: a {term}`token`, a token after another, what stands after or before a token, a class of
# tokens, a kind of text, or a {term}`label`. Each has a strength from 1 to 9, and the prediction at
# a token is the sum over the cues that hold there. Features that fire in too few windows are left
# out.
#
# A reader of cues sees a token, its two neighbours and the kind of text: a feature that follows
# anything further away is explained badly here, however simple its meaning. And a list of cues is
# not an idea: where the cues have something in common, it is left to you to see it.

# %% tags=["hide-input"]
ranked = lua.sort_values("correlation", ascending=False, ignore_index=True)
half = max(len(ranked) // 2, 1)
places = {"best": ranked[:2], "median": ranked[half - 1 : half + 1], "worst": ranked[-2:]}
six = pd.concat(rows.assign(place=place) for place, rows in places.items())


def show(row: pd.Series) -> str:
    column = acts[row["model"]][:, [int(row["feature"])]]
    truth = column[windows.score.reshape(-1)].toarray().reshape(windows.score.shape)
    here = windows.score[truth.max(axis=1).argmax()]
    return explained_feature(
        f"{PRINT_NAMES[row['model']]} s0/{row['feature']}, {row['place']}",
        row["explanation"],
        [words[i] for i in stream.ids.reshape(-1)[here]],
        {
            "activation": column[here].toarray()[:, 0],
            "predicted": cues.simulate([row["rules"]], text, here)[:, 0],
        },
        {"correlation": row["correlation"], "detection": row["detection"]},
        peaks={"predicted": cues.STRONGEST},
        link=atlas_address(row["model"], 0, row["feature"]),
    )


chapter.figure(
    Markup("".join(show(row) for _, row in six.iterrows())),
    name="six-explanations",
    caption="The two best explanations of features of Lua, two from the middle and the two worst, "
    "each on the held-out window in which its feature fires most: true activations above, "
    "predicted ones below. The darker, the stronger. `·` is a space, `↵` a new line, `⇥` a tab.",
    alt=f"The best of these explanations predicts its feature with correlation "
    f"{ranked['correlation'].max():.2f}, the worst with {ranked['correlation'].min():.2f}.",
    data=six[["feature", "firings", "correlation", "detection", "explanation"]],
)

# %% [markdown]
# ## A chat model as writer and reader
#
# The paper's way is there too, on the same windows, with any chat model behind an OpenAI-compatible
# address: set `FEATLIB_CHAT_URL`, `FEATLIB_CHAT_MODEL` and, where one is needed,
# `FEATLIB_CHAT_KEY`, and give `chat_features`. What it may cost is said before the first request
# and never exceeded; answers are kept, so that nothing is paid twice.

# %% tags=["hide-input"]
by_chat, outcome = pd.DataFrame(), "No chat model was asked in this run."
if p.chat_features:
    budget = Budget(p.chat_requests, p.chat_tokens)
    asked = grouped.groupby("group", sort=False).head(p.chat_features)
    print(f"{len(asked):,} features for a chat model; the cap:")
    print(f"{budget.requests:,} requests and {budget.tokens:,} tokens.")
    by_chat, outcome = explain_by_chat(
        Chat(endpoint_from_environment(), budget, cache_folder() / "chat"),
        asked[["model", "feature", "group", "correlation"]].rename(
            columns={"correlation": "offline"}
        ),
        acts,
        np.array([words[i] for i in stream.ids.reshape(-1)], dtype=object),
        windows,
        n_windows=p.explain_windows,
        seeds=scoring,
    )
    print(f"{budget.spent_requests:,} requests and {budget.spent_tokens:,} tokens. {outcome}")
own = by_chat.groupby("group", sort=False) if len(by_chat) else {}
summary = ({"group": g, **part[["correlation", "offline"]].median()} for g, part in own)
table(pd.DataFrame(summary)) if len(by_chat) else Markup(f"<p>{outcome}</p>")

# %% tags=["remove-input"]
of_chat = by_chat.drop(columns=["group", "offline"], errors="ignore").assign(explainer="chat")
both = [found.drop(columns="rules"), *([of_chat] if len(of_chat) else [])]
run_folder.save_table("explanations", pd.concat(both, ignore_index=True))
chapter.finish(
    {
        f"explain.{name}.{score}_median": float(
            sampled.loc[sampled["model"] == name, score].median()
        )
        for name in MODELS
        for score in ("correlation", "detection")
    }
)
