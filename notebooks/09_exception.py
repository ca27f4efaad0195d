# %% [markdown]
# # Case study: does the Python exception feature survive?
#
# BabyPython has a {term}`feature` for Python's exceptions. What becomes of it when the model is
# tuned on Lua, tuned on stories, and when the two are merged? "Survive" can mean four things, so
# there are four questions, each with a rule. The rules were set after trial runs of this seed had
# been seen: [other trainings](13_trust) are their test.

# %% tags=["parameters", "remove-cell"]
run: str = "mini"  # the run's name: its files lie in runs/<run>
seed: int = 0  # every random choice follows from it
label: str = "exception_header"  # what the feature detects; a name in featlib.text.labels
model: str = "base"  # the model in which the feature is found; the others are searched
sae_seeds: int = 3  # autoencoders per model; the feature is looked for in all of them
case_tokens: int = 120_000  # held-out tokens of code, those with the label first
case_sweep_tokens: int = 40_000  # tokens of code read in each model along the merge
case_step: float = 0.05  # step of t along the merge
case_random: int = 20  # random directions beside a feature that is taken out
merge_method: str = "slerp"  # slerp (the paper's) or linear
merge_t: float = 0.58  # where the merge lies: 0 is Lua, 1 is TinyStories
threshold: float = 0.8  # correlation from which two features count as one
bootstrap: int = 200  # resamples of documents for an interval

# %% tags=["hide-input"]
import numpy as np
import pandas as pd

from featlib.cases import series, tables
from featlib.cases.case import answer_metrics, case_metrics, study_label
from featlib.cases.text import languages_of
from featlib.chapter import listed, prose, start_chapter
from featlib.estimate import Estimate
from featlib.family import CODE, PRINT_NAMES
from featlib.models import mistral as lm
from featlib.params import check_choice
from featlib.run import needed
from featlib.show.figure import fold, table
from featlib.show.marks import dots, lines, stack
from featlib.show.scales import Axis, t_axis
from featlib.show.strips import token_strips
from featlib.text.labels import LABELS
from featlib.text.tokens import token_strings
from featlib.verdicts import BARS

chapter = start_chapter("09_exception", globals())
p, run_folder = chapter.params, chapter.run
tokenizer = lm.load_tokenizer(needed(run_folder.tokenizer))
token_texts = token_strings(tokenizer, range(len(tokenizer)))
defined = dict(LABELS)  # a label of your own: defined["import"] = Label(..., {"python": find})
check_choice("label", p.label, defined)
own_label = defined[p.label]
group = own_label.group or None  # labels of one group are fitted side by side
labels = {n: what for n, what in defined.items() if n == p.label or what.group == group}
languages = languages_of(own_label, p.model)
case = study_label(run_folder, p, p.label, labels, languages=languages, reference=p.model)
run_folder.save_table("named_features_09_exception", tables.named_features(case))  # for the atlas
answers = run_folder.save_table("answers", case.answers)

# %% [markdown]
# ## The answer

# %% tags=["remove-input"]
ASKED = {
    "readable": "Still readable?", "found": "Found again?",
    "used": "Used?", "concept": "More than a word?",
}  # fmt: skip
MARKS = {"yes": "✓", "in part": "◐", "no": "✗", "cannot tell": "?", "nothing to lose": "–"}
# What a line of the answer says beside its words: means over the models.
BESIDE = {
    "readable": "It keeps {value:.0%} of its F1, and {base_rate:.0%} of its peers pass that bar.",
    "found": "Its best match has r = {value:.2f}; in {name}'s own dictionaries of the child's "
    "text r = {ceiling:.2f}.",
    "used": "Without it {name} loses {parent:.2f} nats at these tokens, beyond random directions.",
    "concept": "In {name} its F1, less that of a rule that sees the word alone, is {parent:.2f}.",
}
name = own_label.called or f"{p.label.replace('_', ' ')} feature"
parent = PRINT_NAMES[p.model]
said, beside = {}, {}
for question, part in answers.groupby("question", sort=False):
    by_word = part.groupby("word", sort=False)["model"].agg(list)
    said[question] = "; ".join(
        f"{MARKS[word]} {word} in {listed([PRINT_NAMES[m] for m in models])}"
        for word, models in by_word.items()
    )
    means = part[["value", "base_rate", "ceiling", "parent"]].mean().round(2) + 0.0  # no minus zero
    beside[question] = BESIDE[question].format(name=parent, **means).replace("-", "−")
prose(
    """\
{% for question, asked in asks.items() %}
- **{{ asked }}** {{ said[question] }}. {{ beside[question] }}
{% endfor %}

Means over the three models. The peers are the {{ peers }} features of the same dictionary that
detect a word or two as well, about as often; where {{ parent }} itself has nothing to show, a
child has nothing to lose.""",
    glue="short-answer",  # the front page shows it again
    parent=parent, asks=ASKED, said=said, beside=beside, peers=len(case.peers),
)  # fmt: skip

# %% tags=["hide-input"]
MEASURED = {
    "readable": Axis("value", "share of its F1 that is kept", zero=True),
    "found": Axis("value", "best correlation in the model's own autoencoders", domain=(0, 1)),
    "used": Axis("value", "nats lost without it, beyond random directions", zero=True),
    "concept": Axis("value", "F1 beyond the rule that sees the token alone", zero=True),
}
BAR = {"readable": BARS.keep_f1, "found": p.threshold, "used": 0.0, "concept": 0.0}
chapter.figure(
    stack(
        *[
            dots(
                part,
                MEASURED[question],
                "model",
                color="model",
                span=("low", "high"),
                each=part.assign(value=part["ceiling"]),
                rule=BAR[question],
                title=ASKED[question],
            )
            for question, part in answers.groupby("question", sort=False)
        ],
        left=90,
    ),
    name="answers",
    caption=f"Four questions about the {name} of {parent}: value with its 95% interval over "
    "documents; the dashed rule is the bar that its low end must clear. A tick marks the ceiling: "
    "of *readable* BabyPython trained on with its own text, of *found* the parent's dictionaries "
    "that learned from the child's text, of *used* all that the MLP writes there, of the last a "
    "probe.",
    alt="; ".join(f"{ASKED[question]} {said[question]}. {beside[question]}" for question in said),
    data=answers,
)

# %% tags=["hide-input"]
shown = answers.assign(
    question=answers["question"].map(ASKED),
    model=answers["model"].map(PRINT_NAMES),
    value=[f"{Estimate(r.value, r.low, r.high):.2f}" for r in answers.itertuples()],
    word=answers["word"] + (", " + answers["certainty"]).where(answers["word"] == "yes", ""),
)
columns = {
    "question": "", "model": "in", "word": "answer", "value": "value", "ceiling": "ceiling",
    "parent": f"in {parent}", "base_rate": "peers that pass", "percentile": "peers below it",
}  # fmt: skip
fold(table(shown[list(columns)].rename(columns=columns), digits=2), "The answers in numbers")

# %% [markdown]
# The rules. *Readable*: at least 80% of the {term}`F1` is kept; below half it is lost. *Found*: the
# best match correlates at least 0.8; below 0.5 it is none. *Used*: taking the feature out costs
# more than random directions do, and at least half of what it costs the parent. *More than a
# word*: its F1 exceeds that of the token alone. The low end of the interval has to clear the bar.
# Fewer than 100 labelled tokens "cannot tell"; and a yes that nine in ten peers get too is one "as
# its peers": that test could hardly be failed.

# %% [markdown]
# ## The evidence
#
# Python itself decides, {term}`token` by token, what an exception is: a {term}`label` is a function
# from a source to spans of its characters. The text is held out. Blocks that hold the label are all
# read; of the others a few, each counted as often as there are others like it. Whole documents are
# dealt into two halves: one to choose the feature and its threshold on, one to judge.

# %% tags=["hide-input"]
table(tables.text_table(case))

# %% tags=["remove-input"]
own, holds = case.own, case.text.masks[p.label]
judged = holds.reshape(-1) & case.stream.test
prose(
    """\
The size of it: {{ holds.sum() }} labelled tokens of {{ documents }} documents, {{ judged.sum() }}
of them in the half that judges; one training of each model.""",
    holds=holds, judged=judged, documents=len(np.unique(case.text.documents[holds])),
)  # fmt: skip

# %% [markdown]
# ### Finding the feature
#
# Every feature of all of a model's {term}`autoencoders <autoencoder>` is tried as a detector of
# each label. Its rivals: the best rule that sees nothing but which token it is, the best single
# {term}`neuron`, a logistic {term}`probe` on the residual stream, and random features that
# {term}`fire` about as often.

# %% tags=["hide-input"]
best = case.detectors[case.detectors["detector"] == "feature"]
rivals = case.detectors[case.detectors["label"] == p.label]
look = {"color": "model", "beside": "model", "span": ("f1_low", "f1_high")}
chapter.figure(
    stack(
        dots(best, x=Axis("f1", "F1 of the best feature", domain=(0, 1)), y="label", **look),
        dots(rivals, x=Axis("f1", "F1 of its rivals", domain=(0, 1)), y="detector", **look),
        left=110,
    ),
    name="detectors",
    caption="Chosen on one half of the documents and judged on the other. Above, the best feature "
    f"for each label; below, all detectors of *{p.label.replace('_', ' ')}*.",
    alt=f"In {parent} the feature reaches F1 {own.row()['f1']:.2f}, the token rule "
    f"{own.row('token rule')['f1']:.2f}, the best neuron {own.row('neuron')['f1']:.2f}, the probe "
    f"{own.row('probe')['f1']:.2f}.",
    data=case.detectors,
)

# %% [markdown]
# ### Where it is looked for
#
# *By {term}`transfer`*, the parent's {term}`dictionary` reads the other model, its scale and
# threshold set so that equally many features fire: what is still readable. *By correlation*, the
# feature of the model's own dictionaries that goes best with it on the {term}`common stream`, which
# is the paper's way. *By labels*, the best detector there. Only dictionaries of another seed are
# searched, for an equal seed alone makes features agree.

# %% tags=["hide-input"]
routes = case.counterparts
look |= {"color": "who", "beside": "route"}
again = np.where(routes["again"] & (routes["route"] != "transfer"), ", again", "")
routes = routes.assign(who=routes["model"].map(PRINT_NAMES) + again)
chapter.figure(
    dots(routes, Axis("f1", "F1 on the test half", domain=(0, 1)), "who", shape="route", **look),
    name="routes",
    caption=f"The {name} of {parent} and its counterparts by three routes. *{parent}, again*: the "
    "other autoencoders of the same model.",
    alt="; ".join(f"{r.who} by {r.route} {r.f1:.2f}" for r in routes.itertuples()),
    data=routes,
)

# %% [markdown]
# Every dictionary searched by correlation. Those in which the parent was read but which learned
# from a child's text give the ceiling of *found*. The decoder cosine says whether two features that
# fire alike also write alike.

# %% tags=["hide-input"]
fold(table(tables.matches_table(case), digits=2), "Every dictionary")

# %% tags=["hide-input"]
chapter.figure(
    token_strips(**tables.case_strips(case, token_texts)),
    name="strips",
    caption=f"The paper's Figure 4: one held-out text under the {name} of {parent} and its best "
    "match by correlation in the other models, on one scale. Labelled tokens are underlined.",
    alt="Correlation with the feature: "
    + "; ".join(f"{PRINT_NAMES[m]} {case.best_match(m).r.value:.2f}" for m in case.traces),
)

# %% [markdown]
# ### What removing it costs
#
# A detector may be a bystander. So its contribution is taken out of the {term}`MLP`'s activations
# at labelled tokens, and the {term}`loss` of the *next* token is measured: an edit at `raise`
# cannot change how well `raise` was predicted. Beside it: removing as much along random directions,
# at the same tokens, and all that the MLP writes there.

# %% tags=["hide-input"]
removed = {m: trace.removal for m, trace in case.traces.items()}
columns = {
    "nats lost in": [PRINT_NAMES[m] for m in removed],
    "without the feature": [format(r.own, ".3f").replace("-", "−") for r in removed.values()],
    "random directions, mean": [r.random for r in removed.values()],
    "of which cost less": [f"{r.rank:.0%}" for r in removed.values()],
    "without the MLP": [r.mlp for r in removed.values()],
}
table(pd.DataFrame(columns), digits=3)

# %% [markdown]
# Several features may share a word, and only one of them may matter. All that fire on half of the
# labelled tokens or more, the costliest first (ranked on one half, measured on the other):

# %% tags=["hide-input"]
nats = [f"{Estimate.read(row, 'nats'):.2f}" for row in case.coactive.to_dict("records")]
together = case.coactive.assign(nats=nats)
by_model = together.pivot(index="feature", columns="model", values="nats")[list(case.traces)]
ranked = together.drop_duplicates("feature").set_index("feature")["fires_on"]
by_model = pd.concat([ranked.rename("fires on"), by_model.loc[ranked.index]], axis=1).reset_index()
table(by_model.rename(columns=PRINT_NAMES), digits=2)

# %% [markdown]
# ### Token or context?
#
# A model of one layer knows the token and, through one round of attention, a little of what stands
# before it. A feature that fires on every ` raise` knows a word, which is no understanding.

# %% tags=["remove-input"]
others = [lang for lang in CODE if lang in own_label.find and lang not in languages]
labelled, abroad = 0, pd.DataFrame()
if others:
    labelled, abroad = series.detect_elsewhere(case, run_folder, p, own_label, others[0])
found = [f"{r.f1:.2f} in {PRINT_NAMES[r.model]}" for r in abroad.itertuples()]
prose(
    """\
The token's identity explains {{ share | pct }} of the feature's variance. Among tokens of one
identity, labelled ones have the higher {term}`activation` in {{ within | pct }} of pairs (half: it
knows the token alone, or no token occurs with and without the label). In other languages
{{ labelled }} labelled tokens could judge; {{ abroad }}.""",
    share=np.nan_to_num(own.token_share), within=np.nan_to_num(own.row()["within"], nan=0.5),
    labelled=labelled,
    abroad=f"F1 there is {', '.join(found)}" if found else f"below {BARS.few_labelled} that cannot "
    "tell whether it stands for more than words of its own language",
)  # fmt: skip

# %% [markdown]
# ## Along the merge
#
# $t$ goes from Lua (0) to TinyStories (1), and at every step the four questions are asked of the
# merged model. No autoencoder is trained on the way, so *found* is here the correlation of the
# feature, by transfer, with itself in its own model.

# %% tags=["hide-input"]
path = series.follow_merge(case, run_folder, p)
run_folder.save_table("merge_path", path)
chapter.figure(
    stack(
        *[
            lines(
                part,
                x=t_axis(),
                y=Axis("value", ASKED[question], zero=True),
                band=("low", "high"),
                rule=(p.merge_t, ""),
                height=110,
            )
            for question, part in path.groupby("question", sort=False)
        ],
        left=46,
    ),
    name="dose-response",
    caption="The four measures, by transfer, as the merge goes from Lua to TinyStories, with 95% "
    "intervals. The upright rule marks the merge of this run.",
    alt="; ".join(
        f"{question}: {part['value'].iloc[0]:.2f} to {part['value'].iloc[-1]:.2f}"
        for question, part in path.groupby("question", sort=False)
    ),
    data=path,
)

# %% [markdown]
# ## What could be wrong
#
# The default label takes in `raise` and `except`, and all of a model's autoencoders are searched:
# both were chosen after trial runs had been seen. Transfer cannot see a feature that moved
# elsewhere; a child's own dictionary has seen little Python, and may give the feature no place
# although the model has it. What another feature would do had this one never been, no removal
# shows. And all of it is one training: [chapter 13](13_trust) says how far such numbers move.

# %% tags=["remove-input"]
metrics = answer_metrics(case)
for key, what in labels.items():
    short = key.removeprefix(what.group).strip("_") or "any"
    full = f"case.{what.group}.{short}" if what.group else f"case.{key}"
    metrics |= case_metrics(case, key, full)
chapter.finish(metrics)
