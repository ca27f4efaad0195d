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
# # Case study: variable assignment
#
# We begin with a feature that ought to be easy. Python and Lua both assign with a single `=`, and
# the paper shows a feature for it in all four models (its Figure 3). But `=` is also written before
# a default and a keyword argument, in Lua in the fields of a table; and models read stories too.
#
# *What we ask here:* is there such a feature in every model, is it the same one, and does it know
# more than the character?

# %% tags=["parameters", "remove-cell"]
run: str = "mini"  # the run's name: its files lie in runs/<run>
seed: int = 0  # every random choice follows from it
sae_seeds: int = 3  # autoencoders per model; the feature is looked for in all of them
case_tokens: int = 80_000  # held-out tokens of code, and a tenth as many of each kind of English
case_random: int = 5  # random features of like density beside each feature that is ablated
threshold: float = 0.8  # correlation from which two features count as one
bootstrap: int = 200  # resamples of documents for an interval

# %%
from IPython.display import Markdown

from featlib.cases import answers
from featlib.cases import case as case_run
from featlib.cases import subjects as case_study
from featlib.cases import tables as case_tables
from featlib.chapter import start_chapter
from featlib.family import PRINT_NAMES
from featlib.models import mistral as lm
from featlib.run import needed
from featlib.show import case_charts, charts
from featlib.text import tokens as token_lib
from featlib.text.labels import LABELS

chapter = start_chapter("08_assignment", globals())
p, run_folder = chapter.params, chapter.run
tokenizer = lm.load_tokenizer(needed(run_folder.tokenizer))
token_texts = token_lib.token_strings(tokenizer, range(len(tokenizer)))

# %% [markdown]
# ## What counts as an assignment
#
# Python's own parser says which `=` is one: those of assignment statements, with or without an
# annotation, and `+=` and its kind. Arguments, defaults, comparisons and `:=` do not count. For Lua
# a lexer that keeps track of brackets says the same. The text is held-out Python, Lua, and both
# kinds of English; half of its documents choose the feature, the other half judges it.

# %%
case = case_run.study_label(
    run_folder, p, "assignment", {"assignment": LABELS["assignment"]}, languages=("python", "lua")
)
own = case.fits["assignment", "base"]
charts.table(case_tables.text_table(case))

# %% [markdown]
# ## The feature and its rivals

# %% tags=["hide-input"]
detectors = case_study.detector_table(case.fits)
chapter.figure(
    case_charts.detector_dots(detectors),
    name="detectors",
    caption="Detectors of assignment in each model: the best feature, the best rule that sees the "
    "token alone, the best neuron, a logistic probe on the residual stream, and random features "
    "that fire as often. Bars are 95% intervals from resampling documents.",
    alt="F1 of the best feature: "
    + "; ".join(
        f"{PRINT_NAMES[m]} {fit.row()['f1']:.2f} (token rule {fit.row('token rule')['f1']:.2f})"
        for (_, m), fit in case.fits.items()
    ),
    data=detectors,
)

# %% [markdown]
# The best rule about tokens is hard to beat: most assignments are written ` =` with a space before
# it, and keyword arguments without. That is a habit of those who write code, and a model of one
# layer learns habits. The table says how much of the feature the token explains, and how well it
# tells assignments from other uses of *the same* token (AUROC; 0.5 is not at all).

# %% tags=["hide-input"]
charts.table(case_tables.context_table(case), digits=2)

# %% [markdown]
# ## The same feature in four models
#
# The paper's Figure 3. One text that no model was trained on; BabyPython's feature and, in each
# other model, the feature that correlates best with it; one scale. Labelled tokens are underlined.

# %% tags=["hide-input"]
fates = case.fates[~case.fates["again"]]
again = case.fates[case.fates["again"]].set_index("route")
matched = fates[fates["route"] == "correlation"]
chapter.figure(
    case_tables.case_strips(case, "correlation", token_texts),
    name="strips",
    caption="An assignment feature of BabyPython and its best match by correlation in the others.",
    alt="Correlation with BabyPython's feature: "
    + "; ".join(f"{PRINT_NAMES[row.model]} {row.r:.2f}" for row in matched.itertuples()),
)

# %% [markdown]
# By every route, with the ceiling: what the same search finds in the other autoencoders of
# BabyPython itself ([chapter 9](09_exception) explains the routes).

# %% tags=["hide-input"]
chapter.figure(
    case_charts.route_dots(case.fates),
    name="routes",
    caption="The assignment feature of BabyPython and its counterparts: how well each detects "
    "assignments (above), and what ablating it costs at labelled tokens, beyond random features "
    "(below).",
    alt="Best match by correlation: "
    + "; ".join(f"{PRINT_NAMES[r.model]} F1 {r.f1:.2f}" for r in matched.itertuples()),
    data=case.fates,
)

# %% tags=["hide-input"]
charts.table(case_tables.verdicts_by_route(case, threshold=p.threshold))

# %% [markdown]
# ## What was found, and what could be wrong

# %% tags=["remove-input"]
name = case_tables.feature_name("assignment", LABELS["assignment"])
passing = [PRINT_NAMES[r.model] for r in matched.itertuples() if r.r_stream >= p.threshold]
best = fates[fates["route"] == "labels"].set_index("model")["f1"]
rule = own.row("token rule")["f1"]
verdict = answers.write_short_answer(
    case.fates, reference="base", feature=name, words=LABELS["assignment"].words
)
Markdown(
    f"""\
The best feature of BabyPython detects assignments with F1 {best["base"]:.2f}, where the rule that
sees only the token reaches {rule:.2f}. In the other models' own dictionaries the best feature
reaches {", ".join(f"{best[m]:.2f} in {PRINT_NAMES[m]}" for m in best.index if m != "base")}.
By correlation on the common stream {len(passing)} of {len(matched)} models have a match that passes
{p.threshold:g}{f" ({', '.join(passing)})" if passing else ""}; in the other autoencoders of
BabyPython itself the best has r = {again.loc["correlation", "r_stream"]:.2f}.

{verdict}

What could be wrong: {own.token_share:.0%} of the feature's variance is explained by the token. That
it is found in a model says that the model knows this token well, and little about variables."""
)

# %% tags=["remove-input"]
chapter.finish(case_run.case_metrics(case, "assignment", "case.assignment"))
