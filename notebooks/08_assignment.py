# %% [markdown]
# # Case study: variable assignment
#
# Python and Lua both assign with a single `=`, and the paper shows a {term}`feature` for it in all
# four models (its Figure 3). But `=` is also written before a default and a keyword argument, in
# Lua in the fields of a table. Is there such a feature in every model, is it the same one, and does
# it know more than the character?

# %% tags=["parameters", "remove-cell"]
run: str = "mini"  # the run's name: its files lie in runs/<run>
seed: int = 0  # every random choice follows from it
sae_seeds: int = 3  # autoencoders per model; the feature is looked for in all of them
case_tokens: int = 120_000  # held-out tokens of code, those with the label first
case_random: int = 20  # random directions beside a feature that is taken out
threshold: float = 0.8  # correlation from which two features count as one
bootstrap: int = 200  # resamples of documents for an interval

# %% tags=["hide-input"]
import numpy as np

from featlib.cases.case import case_metrics, study_label
from featlib.cases.tables import case_strips, named_features, text_table
from featlib.chapter import prose, start_chapter
from featlib.family import BASE, CODE, PRINT_NAMES
from featlib.models import mistral as lm
from featlib.run import needed
from featlib.show.figure import table
from featlib.show.marks import dots
from featlib.show.scales import Axis
from featlib.show.strips import token_strips
from featlib.text import tokens as token_lib
from featlib.text.labels import LABELS

chapter = start_chapter("08_assignment", globals())
p, run_folder = chapter.params, chapter.run
tokenizer = lm.load_tokenizer(needed(run_folder.tokenizer))
token_texts = token_lib.token_strings(tokenizer, range(len(tokenizer)))
label = LABELS["assignment"]
languages = [domain for domain in CODE if domain in label.find]
case = study_label(
    run_folder, p, "assignment", {"assignment": label}, languages=languages, reference=BASE
)
run_folder.save_table("named_features_08_assignment", named_features(case))  # for the atlas
own, answers = case.own, case.answers

# %% tags=["remove-input"]
prose(
    """\
BabyPython's best feature finds assignments with {term}`F1` {{ f1 | num }}; a rule that sees the
token alone reaches {{ rule | num }}. The token explains {{ share | pct }} of the feature, and among
tokens of one identity it ranks an assignment first in {{ within | pct }} of pairs (half would be
chance).""",
    f1=own.row()["f1"], rule=own.row("token rule")["f1"], share=own.token_share,
    within=np.nan_to_num(own.row()["within"], nan=0.5),
)  # fmt: skip

# %% [markdown]
# Python's own parser says which `=` is one: those of assignment statements, with or without an
# annotation, and `+=` and its kind. For Lua a lexer that keeps track of brackets says the same.
# Half of the held-out documents choose the feature, the other half judges it.

# %% tags=["hide-input"]
table(text_table(case))

# %% [markdown]
# ## The feature and its rivals
#
# The best rule about {term}`tokens <token>` is hard to beat: most assignments are written ` =` with
# a space before it, and keyword arguments without. That is a habit of those who write code, and a
# model of one layer learns habits.

# %% tags=["hide-input"]
chapter.figure(
    dots(
        case.detectors,
        x=Axis("f1", "F1 on the test half", domain=(0, 1)),
        y="detector",
        color="model",
        beside="model",
        span=("f1_low", "f1_high"),
    ),
    name="detectors",
    caption="Detectors of assignment in each model: the best feature, the best rule that sees the "
    "token alone, the best neuron, a logistic probe on the residual stream, and random features "
    "that fire as often. Bars are 95% intervals from resampling documents.",
    alt="F1 of the best feature: "
    + "; ".join(
        f"{PRINT_NAMES[m]} {fit.row()['f1']:.2f} (token rule {fit.row('token rule')['f1']:.2f})"
        for (_, m), fit in case.fits.items()
    ),
    data=case.detectors,
)

# %% [markdown]
# ## The same feature in four models
#
# The paper's Figure 3: one text that no model was trained on; BabyPython's feature and, in each
# other model, the feature that correlates best with it; one scale. Labelled tokens are underlined.

# %% tags=["hide-input"]
chapter.figure(
    token_strips(**case_strips(case, token_texts)),
    name="strips",
    caption="An assignment feature of BabyPython and its best match by correlation in the others.",
    alt="Correlation with BabyPython's feature: "
    + "; ".join(f"{PRINT_NAMES[m]} {case.best_match(m).r.value:.2f}" for m in case.traces),
)

# %% [markdown]
# The four questions of [chapter 9](09_exception), which says how each is asked:

# %% tags=["hide-input"]
cells = [f"{r.word} ({r.value:.2f})".replace("-", "−") for r in answers.itertuples()]
shown = answers.assign(cell=cells).pivot(index="model", columns="question", values="cell")
shown = shown.loc[answers["model"].unique(), answers["question"].unique()]
easy = answers.groupby("question")["base_rate"].min()
shown.loc["peers that pass, at least"] = [f"{easy[question]:.0%}" for question in shown]
table(shown.rename(index=PRINT_NAMES).rename_axis(columns=None).reset_index(names=""))

# %% [markdown]
# ## What could be wrong
#
# That the feature is found in a model says that the model knows this token well, and little about
# variables. Its peers detect one word or two as well as it detects this one, so a yes that nearly
# all of them get too is no news about assignment.

# %% tags=["remove-input"]
chapter.finish(case_metrics(case, "assignment", "case.assignment"))
