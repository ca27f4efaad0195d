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
# # Case study: does the Python exception feature survive?
#
# Shares and flows say how many features persist. The question on the paper's front page is about
# one.
#
# *What we ask here:* BabyPython has a feature for Python's exceptions; what becomes of it when the
# model is tuned on Lua, tuned on stories, and when the two are merged?
#
# A feature picked by eye can be made to tell any story. So here nothing is: what an exception is,
# Python itself decides, token by token; the feature is chosen on one half of the documents and
# judged on the other; it stands beside what a sceptic would try instead; and it is switched off,
# to see whether the model misses it.

# %% tags=["parameters", "remove-cell"]
run: str = "mini"  # the run's name: its files lie in runs/<run>
seed: int = 0  # every random choice follows from it
label: str = "exception_header"  # what the feature detects; a name in featlib.text.labels
model: str = "base"  # the model in which the feature is found; the others are searched
sae_seeds: int = 3  # autoencoders per model; the feature is looked for in all of them
case_tokens: int = 80_000  # held-out tokens of code, and a tenth as many of each kind of English
case_sweep_tokens: int = 40_000  # tokens of code read in each model of a dose-response curve
case_step: float = 0.05  # step of t in the dose-response curve
case_random: int = 5  # random features of like density beside each feature that is ablated
merge_method: str = "slerp"  # slerp (the paper's), linear, or slerp_rows
merge_t: float = 0.58  # where the merge lies: 0 is Lua, 1 is TinyStories
control_crosscoder: bool = False  # ask the crosscoder too that chapter 11 trains
threshold: float = 0.8  # correlation from which two features count as one
bootstrap: int = 200  # resamples of documents for an interval

# %% tags=["hide-input"]
import numpy as np
import pandas as pd
from IPython.display import Markdown

from featlib.cases import (
    answers,
)
from featlib.cases import (
    case as case_run,
)
from featlib.cases import detectors as detectors_lib
from featlib.cases import (
    dictionaries as case_dictionaries,
)
from featlib.cases import (
    elsewhere as case_elsewhere,
)
from featlib.cases import fit as case_lib
from featlib.cases import (
    series as case_sweeps,
)
from featlib.cases import (
    subjects as case_study,
)
from featlib.cases import (
    tables as case_tables,
)
from featlib.cases.text import CODE, languages_of
from featlib.chapter import prose, start_chapter
from featlib.family import DOMAIN_NAMES, MODELS, PRINT_NAMES
from featlib.models import mistral as lm
from featlib.params import check_choice
from featlib.run import needed
from featlib.show import case_charts, charts
from featlib.text import tokens as token_lib
from featlib.text.labels import LABELS
from featlib.verdicts import BARS

chapter = start_chapter("09_exception", globals())
p, run_folder = chapter.params, chapter.run
tokenizer = lm.load_tokenizer(needed(run_folder.tokenizer))
token_texts = token_lib.token_strings(tokenizer, range(len(tokenizer)))

# %% [markdown]
# ## What counts as an exception
#
# A label is a function from a source text to spans of its characters. For Python they come from
# `tokenize` and `ast`, so that `raise` in a comment, in a string or in a name is not one. A token
# has the label if it shares a character with a span.

# %%
defined = dict(LABELS)  # a label of your own: defined["import"] = Label(..., {"python": find})
check_choice("label", p.label, defined)
group = defined[p.label].group  # labels of one group are fitted side by side
labels = {
    name: what
    for name, what in defined.items()
    if name == p.label or (group and what.group == group)
}
charts.table(pd.DataFrame([{"label": n, "a token is": w.meaning} for n, w in labels.items()]))

# %% [markdown]
# To study something else, name another label of `featlib.text.labels` (`-p label assignment`), or
# write one in the cell above: `Label("the word import", {"python": find_imports})`, where
# `find_imports` takes a text and returns the spans `[(start, end), ...]`. And `-p model lua` finds
# the feature in another model first.
#
# The text is held out: documents of the validation and test splits, which no model and no
# autoencoder was trained on. A file that does not parse is left out and counted.

# %% tags=["hide-input"]
languages = languages_of(labels[p.label], p.model)
case = case_run.study_label(run_folder, p, p.label, labels, languages=languages, reference=p.model)
charts.table(case_tables.text_table(case))

# %% [markdown]
# Whole documents are dealt into two halves: one to choose on, one to judge on.

# %% tags=["hide-input"]
name = case_tables.feature_name(p.label, labels[p.label])
parent = PRINT_NAMES[case.reference]
charts.table(case_tables.halves_table(case))

# %% [markdown]
# ## Finding the feature
#
# Every feature of all of a model's autoencoders is tried as a detector: it says yes where its
# activation exceeds a threshold. Feature and threshold with the highest F1 on the selection half
# are kept; everything reported comes from the other half, whose documents had no say. Intervals
# (95%) resample whole documents.

# %% tags=["hide-input"]
detectors = case_study.detector_table(case.fits)
best = detectors[detectors["detector"] == "feature"]
own = case.fits[p.label, case.reference]
chapter.figure(
    case_charts.label_dots(best),
    name="labels",
    caption="F1 of the best feature for each label, in each model.",
    alt=f"F1 of the best feature in {parent}: "
    + "; ".join(
        f"{row.label.replace('_', ' ')} {row.f1:.2f}"
        for row in best[best["model"] == case.reference].itertuples()
    ),
    data=best,
)

# %% [markdown]
# The rivals: the best rule that sees nothing but which token it is; the best single neuron, in
# either sign; a logistic probe, which may use every direction of the residual stream; and random
# features that fire about as often.

# %% tags=["hide-input"]
rivals = detectors[detectors["label"] == p.label]
chapter.figure(
    case_charts.detector_dots(rivals),
    name="detectors",
    caption=f"Detectors of the label *{p.label.replace('_', ' ')}*, chosen on one half of the "
    "documents and judged on the other.",
    alt=f"In {parent} the feature reaches F1 {own.row()['f1']:.2f}, the token rule "
    f"{own.row('token rule')['f1']:.2f}, the best neuron {own.row('neuron')['f1']:.2f}, the probe "
    f"{own.row('probe')['f1']:.2f}, random features {own.row('random feature')['f1']:.2f}.",
    data=rivals,
)

# %% [markdown]
# An autoencoder may give one concept several features: a *feature set* says yes where any of its
# members does. Which words the single feature takes and which it misses, in the test half:

# %% tags=["hide-input"]
said = detectors_lib.feature_scores(case.subjects[case.reference].features, case.feature)
tally = case_lib.tally_tokens(said > own.threshold, case.stream, token_texts, top=8)
tally = tally.assign(token=[repr(token) for token in tally["token"]])
charts.table(tally.rename(columns=lambda column: column.replace("_", " ")))

# %% [markdown]
# ## Token or context?
#
# A model of one layer knows the token and, through one round of attention, a little of what stands
# before it. It cannot parse. A feature that fires on every ` raise` knows a word; that is worth
# having, but it is not understanding. The table gives the share of a feature's variance that the
# token's identity explains, and how well the feature separates labelled from unlabelled tokens *of
# the same identity* (0.5: not at all). A label with one token of its own says nothing about
# context; the labels *type* and *message* cannot be told from the token.

# %% tags=["hide-input"]
about_tokens = case_tables.context_table(case)
charts.table(about_tokens, digits=2)

# %% [markdown]
# These features, of all that detect the label somewhat, need most of the context:

# %% tags=["hide-input"]
needing = case_lib.rank_context_features(
    case.subjects[case.reference].features, case.stream, among=60, top=5
)
charts.table(
    needing[["feature", "f1", "token_share", "within_tokens_test"]].rename(
        columns={
            "f1": "F1 (selection)",
            "token_share": "explained by token",
            "within_tokens_test": "AUROC within tokens",
        }
    ),
    digits=2,
)

# %% [markdown]
# ## Its fate in the other models
#
# There are several ways to look for the feature in another model, and they can disagree.
#
# - *By labels*: the best detector of the same label in the other model's own dictionary.
# - *By correlation*: the feature that goes best with it on the common stream of
#   [chapter 6](06_matching), which is the paper's way.
# - *By transfer*: the parent's autoencoder is kept and reads the other model's activations. No new
#   dictionary, so no noise of one; but a child that moved the feature elsewhere is not followed.
# - *By crosscoder*: one dictionary for all four models at once, which [chapter 11](11_controls)
#   trains where the parameters ask for it. How much of its closest feature each model writes says
#   whose it is, with nothing to match.
#
# The parent's other autoencoders give the ceiling: what the search finds when nothing at all has
# happened to the model. In every model only autoencoders are searched whose seed differs from that
# of the one in which the feature was found, since an equal seed alone makes features agree.

# %% tags=["hide-input"]
fates = case.fates
again = fates[fates["again"]].set_index("route")
fates = fates[~fates["again"]]
labelled = fates[(fates["route"] == "labels") & (fates["model"] != case.reference)]
chapter.figure(
    case_charts.route_dots(case.fates),
    name="routes",
    caption=f"The {name} of {parent} and its counterparts: how well each detects the label "
    "(above), and what ablating it costs at labelled tokens, beyond random features (below). "
    f"*{parent}, again*: the other autoencoders of the same model.",
    alt="Best feature by labels: "
    + "; ".join(
        f"{PRINT_NAMES[row.model]} F1 {row.f1:.2f}, effect {row.effect:.2f}"
        for row in labelled.itertuples()
    )
    + f". Other autoencoders of {parent}: F1 {again.loc['labels', 'f1']:.2f}, best r "
    f"{again.loc['correlation', 'r_stream']:.2f}.",
    data=case.fates,
)

# %% [markdown]
# The verdicts side by side, with the number that each rests on:

# %% tags=["hide-input"]
opinion = case_tables.ask_crosscoder(case, run_folder) if p.control_crosscoder else None
charts.table(case_tables.verdicts_by_route(case, threshold=p.threshold, opinion=opinion))

# %% tags=["remove-input"]
Markdown(
    "*By the crosscoder:* " + opinion.sentence(0.5)
    if opinion
    else "No crosscoder was trained in this run; with `control_crosscoder: true` one is."
)

# %% tags=["hide-input"]
verdict_table = case.fates.assign(
    model=case.fates["model"].map(PRINT_NAMES) + np.where(case.fates["again"], ", again", ""),
    route=case.fates["route"].map(case_charts.ROUTE_NAMES),
    feature=case.fates["feature"].where(case.fates["route"] != "transfer", case.feature),
)[["model", "route", "feature", "r", "r_stream", "f1", "precision", "recall", "effect"]]
full = charts.table(verdict_table.rename(columns={"r_stream": "r, common stream"}), digits=2)
charts.fold(full, "Every counterpart in full")

# %% [markdown]
# ## The same text, four models
#
# The paper's Figure 4, with what it left to the eye printed: one held-out text, the feature and, in
# each other model, the feature that correlates best with it. All strips share one scale. Labelled
# tokens are underlined; point at a token, or walk with the arrow keys, to read its activation.

# %% tags=["hide-input"]
matched = fates[fates["route"] == "correlation"]
chapter.figure(
    case_tables.case_strips(case, "correlation", token_texts),
    name="strips",
    caption=f"The {name} of {parent} and its best match by correlation in the other models.",
    alt="Correlation with the feature: "
    + "; ".join(f"{PRINT_NAMES[row.model]} {row.r:.2f}" for row in matched.itertuples()),
)

# %% [markdown]
# And the features that detect the label best in each model, whether they correlate or not:

# %% tags=["hide-input"]
chapter.figure(
    case_tables.case_strips(case, "labels", token_texts),
    name="strips-labels",
    caption="The same text under each model's own best feature for the label.",
    alt="F1 of these features: "
    + "; ".join(f"{PRINT_NAMES[row.model]} {row.f1:.2f}" for row in labelled.itertuples()),
)

# %% [markdown]
# ## In another language
#
# Lua has no `raise`, but it has `error` and `assert`. A feature that stood for exceptions, rather
# than for words of Python, might take these over once the model has learnt Lua. So: the same label
# in the other language, and whether the same feature, transferred, detects it there, beside the
# best feature of each model's own and the rule that sees the token alone.

# %% tags=["hide-input"]
others = [lang for lang in CODE if lang in labels[p.label].find and lang not in languages]
abroad, shown = pd.DataFrame(), None
if others:
    where = DOMAIN_NAMES[others[0]]
    abroad = case_elsewhere.detect_elsewhere(run_folder, case, labels[p.label], others[0], p)
if len(abroad):
    by_detector = abroad.set_index(["detector", "model"])["f1"]
    shown = chapter.figure(
        case_charts.detector_dots(abroad, order=case_elsewhere.DETECTORS),
        name="elsewhere",
        caption=f"Detectors of the same label in {where} ({int(abroad['n_labelled'].iloc[0])} "
        "labelled tokens in the test half).",
        alt=f"F1 in {where}. "
        + " ".join(
            f"{who}: " + "; ".join(f"{PRINT_NAMES[m]} {v:.2f}" for m, v in by_detector[who].items())
            for who in (case_elsewhere.SAME, case_elsewhere.BEST)
            if who in by_detector.index
        ),
        data=abroad,
    )
shown

# %% tags=["remove-input"]
Markdown(
    case_elsewhere.say_elsewhere(abroad, where)
    if others
    else "This label is read in no other language."
)

# %% [markdown]
# ## Cause: what happens without it
#
# A detector may be a bystander. To see whether a model uses the feature, its contribution is taken
# out of the MLP's activations (at `blocks.0.mlp.hook_post`, along its decoder direction) and the
# loss of the next token is measured again. An edit at a token changes the prediction made *there*,
# of the token that follows: a feature on `raise` cannot change how well `raise` was predicted.
# Random features that fire as often are ablated beside it.

# %% tags=["hide-input"]
effects = pd.concat(
    [
        case.effects[(case.effects["model"] == case.reference) & ~case.effects["again"]],
        case.effects[case.effects["route"] == "transfer"],
    ]
)
at = effects[effects["region"] == "at"].set_index(["model", "who"])["delta"]
chapter.figure(
    case_charts.ablation_dots(effects),
    name="ablation",
    caption=f"Change of loss when the {name} of {parent} is ablated in each model, in nats a "
    "token. All panels have one scale.",
    alt="Ablating the feature costs at labelled tokens: "
    + "; ".join(
        f"{PRINT_NAMES[m]} {at[m, 'feature']:.2f} nats (random {at[m, 'random']:.2f})"
        for m in effects["model"].unique()
    ),
    data=effects,
)

# %% [markdown]
# These numbers take a short cut: in a model of one layer an ablation changes the residual stream of
# that one token only. Against the whole model, run through TransformerBridge with a hook:

# %% tags=["hide-input"]
gap = case_tables.check_by_bridge(case, run_folder)
Markdown(f"The two ways differ by at most {gap:.1e} nats on any token of four blocks.")

# %% [markdown]
# ## Another autoencoder, another feature
#
# The feature comes from one autoencoder. The others of the same model have one for the label too,
# and each can be asked the same: does it still detect the label in the other models, and what does
# ablating it cost at labelled tokens? (No random features are taken off here; theirs are near 0.)

# %% tags=["hide-input"]
compared = case_dictionaries.compare_dictionaries(case, p)
charts.table(case_dictionaries.dictionary_table(compared))

# %% tags=["remove-input"]
Markdown(case_dictionaries.say_dictionaries(compared, reference=case.reference))

# %% [markdown]
# ## Steering
#
# The converse: at random tokens of the text the feature is switched on, at doses that occur, and
# the probability is read off which the model then gives to related tokens: those that most often
# follow the label in the selection half, and for exceptions `raise`, `except`, `ValueError` and
# their like.

# %% tags=["hide-input"]
vocabulary = case_study.related_vocabulary(defined[p.label], token_texts, case.stream)
steered = case_study.steer_subjects(
    case.counterparts("transfer"),
    vocabulary,
    case.text.documents,
    doses=(0.0, 1.0, 2.0, 4.0),
    seed=p.seed,
)
pull = steered[steered["dose"] == 2.0].set_index(["model", "who"])["probability"]
rest = steered[steered["dose"] == 0.0].set_index(["model", "who"])["probability"]
chapter.figure(
    case_charts.steering_lines(steered),
    name="steering",
    caption=f"Change in the probability of {len(vocabulary)} related tokens, at random places of "
    "the text, as the feature is added (solid), or random features by the same amount (dashed).",
    alt="Probability of related tokens without the feature and at twice its usual strength: "
    + "; ".join(
        f"{PRINT_NAMES[m]} {rest[m, 'feature']:.2%} to {pull[m, 'feature']:.2%}"
        for m in steered["model"].unique()
    ),
    data=steered,
)

# %% [markdown]
# ## Dilution
#
# Now the merge, as a dose: $t$ goes from Lua (0) to TinyStories (1), and at every step the feature
# is read in the merged model. *By transfer* it is the same feature of the parent's autoencoder
# throughout; *by labels* the best of a few dozen features that the four autoencoders offer for the
# label, chosen anew at every $t$ on the selection half.

# %% tags=["hide-input"]
series = case_run.code_series(case, p)
diluted = case_run.follow_merge(case, series, run_folder, p)
lives = case_sweeps.half_lives(diluted)
sweep = pd.read_parquet(needed(run_folder.table("merge_sweep")))
accuracy = sweep[(sweep["method"] == p.merge_method) & (sweep["domain"] != "babylm")]


def say(table: pd.DataFrame, measure: str, unit: str, route: str = "transfer") -> str:
    return case_tables.describe_half_life(table, route, measure, unit)


chapter.figure(
    case_charts.dose_response(diluted, accuracy, t=p.merge_t),
    name="dose-response",
    caption="F1 of the feature and what ablating it costs at labelled tokens as the merge goes "
    "from Lua to TinyStories, with 95% intervals; below, next-token accuracy. The rule marks the "
    "merge of this run.",
    alt=f"By transfer {say(lives, 'f1', 't')}; {say(lives, 'effect', 't')}.",
    data=diluted,
)

# %% [markdown]
# ## When it fades
#
# The same along each fine-tune, from BabyPython on: does the feature fade at once, or slowly?

# %% tags=["hide-input"]
along = case_run.follow_fine_tunes(case, series, run_folder, p)
fade = {child: case_sweeps.half_lives(part) for child, part in along.groupby("model", sort=False)}
chapter.figure(
    case_charts.fading(along),
    name="fading",
    caption="F1 and causal effect, by transfer, at checkpoints of both fine-tunes.",
    alt="; ".join(
        f"{PRINT_NAMES[child]}: {say(table, 'f1', 'share of steps')}"
        for child, table in fade.items()
    ),
    data=along,
)

# %% [markdown]
# ## The answer

# %% tags=["remove-input"]
prose(
    "{{ answer }}",
    glue="short-answer",  # the front page shows it again
    answer=answers.write_short_answer(
        case.fates, reference=case.reference, feature=name, words=labels[p.label].words
    ),
)

# %% [markdown]
# Model by model, and the rule behind the words:

# %% tags=["remove-input", "answer"]
verdicts = answers.judge_models(case.fates, reference=case.reference, feature=name)
Markdown(answers.write_reasons(case.fates, reference=case.reference, feature=name))

# %% [markdown]
# ## What was found, and what could be wrong
#
# Three choices were made after numbers of trial runs had been seen, and the reader should weigh the
# answer with that in mind. The default label takes in the headers, `raise` and `except`, because
# no single feature also fired on `try` and `finally`. The feature is looked for in all of a model's
# autoencoders, because the first of them happened to have no clean one. And the verdict follows the
# transferred feature, because a child's own dictionary has seen little Python; by the child's own
# dictionaries the trials gave harsher verdicts. Every route is printed above.

# %% tags=["remove-input"]
keywords = case_tables.say_keywords(case)
code = answers.listed([DOMAIN_NAMES[language] for language in languages])
by = fates.set_index(["route", "model"])
moved = [m for m in MODELS if ("transfer", m) in by.index]
low_r = [m for m in moved if by.loc[("correlation", m), "r_stream"] < p.threshold]
Markdown(
    f"""\
Feature {case.feature} of {parent} detects the label with F1 {own.row()["f1"]:.2f}
({own.row()["f1_low"]:.2f} to {own.row()["f1_high"]:.2f}). The token's identity explains
{own.token_share:.0%} of its variance, and a rule that sees the token alone reaches F1
{own.row("token rule")["f1"]:.2f}. {
        "The rule does about as well, so this is a feature that recognises words"
        if own.row("token rule")["f1"] >= min(own.row()["f1_low"], 0.95 * own.row()["f1"])
        else "The feature is better than the rule, so it uses the context"
    };
calling it an understanding of exceptions would say more than was shown.{keywords}

By correlation, {len(low_r)} of {len(moved)} models have no feature that passes {p.threshold:g};
in the other autoencoders of {parent} itself the best has r =
{again.loc["correlation", "r_stream"]:.2f}, which is about what a model in which nothing had
changed would show. Transferred, the very same feature detects the
label with F1 """
    + ", ".join(f"{by.loc[('transfer', m), 'f1']:.2f} in {PRINT_NAMES[m]}" for m in moved)
    + f""".
In the merge, by transfer, {say(lives, "f1", "t")}, and {say(lives, "effect", "t")}; by labels
{say(lives, "f1", "t", "labels")}. Along the fine-tunes """
    + "; ".join(
        f"({PRINT_NAMES[child]}) {say(table, 'f1', 'share of steps')}"
        for child, table in fade.items()
    )
    + f""".

What could be wrong: the labelled tokens are few ({own.n_labelled} in the test half), and the
documents fewer, so the intervals are wide. Transfer asks whether the child still computes what
the parent's feature reads, in the parent's units; it cannot see a feature that moved elsewhere. A
child's own autoencoder was trained on the child's own text, in which {code} may be rare, and
may give the feature no place although the model has it. And thresholds are thresholds:
{BARS.keep_f1:.0%} and {BARS.lost_f1:.0%} are stated, not derived."""
)

# %% tags=["remove-input"]
metrics = {}
if group:
    for key in labels:
        short = key.removeprefix(group).strip("_") or "any"
        metrics |= case_run.case_metrics(case, key, f"case.{group}.{short}")
else:
    metrics |= case_run.case_metrics(case, p.label, f"case.{p.label}")
chapter.finish(metrics, verdicts={model: v.word for model, v in verdicts.items()})
