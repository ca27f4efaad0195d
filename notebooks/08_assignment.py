# %% [markdown]
# # Case study: variable assignment
#
# We begin with a {term}`feature` that ought to be easy. Python and Lua both assign with a single
# `=`, and the paper shows a feature for it in all four models (its Figure 3). But `=` is also
# written before a default and a keyword argument, in Lua in the fields of a table; and models read
# stories too.
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
from featlib.cases.case import case_metrics, study_label
from featlib.cases.tables import case_strips, context_table, text_table, verdicts_by_route
from featlib.chapter import listed, prose, start_chapter
from featlib.family import BASE, CODE, PRINT_NAMES
from featlib.models import mistral as lm
from featlib.run import needed
from featlib.show.figure import table
from featlib.show.marks import dots, stack
from featlib.show.scales import Axis
from featlib.show.strips import token_strips
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
label = LABELS["assignment"]
languages = [domain for domain in CODE if domain in label.find]
case = study_label(
    run_folder, p, "assignment", {"assignment": label}, languages=languages, reference=BASE
)
own = case.fits["assignment", BASE]
table(text_table(case))

# %% [markdown]
# ## The feature and its rivals

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
# The best rule about {term}`tokens <token>` is hard to beat: most assignments are written ` =` with
# a space before it, and keyword arguments without. That is a habit of those who write code, and a
# model of one layer learns habits. The table says how much of the feature the token explains, and
# how well it tells assignments from other uses of *the same* token ({term}`AUROC`; 0.5 is not at
# all).

# %% tags=["hide-input"]
table(context_table(case), digits=2)

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
    token_strips(**case_strips(case, "correlation", token_texts)),
    name="strips",
    caption="An assignment feature of BabyPython and its best match by correlation in the others.",
    alt="Correlation with BabyPython's feature: "
    + "; ".join(f"{PRINT_NAMES[row.model]} {row.r:.2f}" for row in matched.itertuples()),
)

# %% [markdown]
# By every {term}`route`, with the ceiling: what the same search finds in the other
# {term}`autoencoders <autoencoder>` of BabyPython itself ([chapter 9](09_exception) explains the
# routes).

# %% tags=["hide-input"]
counterparts = case.fates.assign(
    who=case.fates["model"].map(PRINT_NAMES) + case.fates["again"].map({True: ", again", False: ""})
)
measures = [
    Axis("f1", "F1 on the test half", domain=(0, 1)),
    Axis("effect", "nats lost, beyond random features", zero=True),
]
chapter.figure(
    stack(
        *[
            dots(
                counterparts,
                x=measure,
                y="who",
                color="who",
                shape="route",
                beside="route",
                span=(f"{measure.column}_low", f"{measure.column}_high"),
            )
            for measure in measures
        ],
        left=90,
    ),
    name="routes",
    caption="The assignment feature of BabyPython and its counterparts: how well each detects "
    "assignments (above), and what ablating it costs at labelled tokens, beyond random features "
    "(below).",
    alt="Best match by correlation: "
    + "; ".join(f"{PRINT_NAMES[r.model]} F1 {r.f1:.2f}" for r in matched.itertuples()),
    data=case.fates,
)

# %% tags=["hide-input"]
table(verdicts_by_route(case, threshold=p.threshold))

# %% [markdown]
# ## What was found, and what could be wrong

# %% tags=["remove-input"]
best = {m: fit.row()["f1"] for (_, m), fit in case.fits.items()}
verdicts = case.judge("transfer")
phrases = {"survives": "survives", "weakened": "is weakened", "lost": "is lost"}
where = {word: [PRINT_NAMES[m] for m, v in verdicts.items() if v.word == word] for word in phrases}
prose(
    """\
The best feature of {{ parent }} detects assignments with F1 {{ own | num }}, where the rule that
sees only the token reaches {{ rule | num }}. In the other models' own dictionaries the best feature
reaches {{ others | listed }}. By correlation on the common stream {{ passing | length }} of
{{ n }} models have a match that passes {{ threshold }}{% if passing %} ({{ passing | listed }})
{%- endif %}; in the other autoencoders of {{ parent }} itself the best has r = {{ again | num }}.

{% if fates %}
By the rule of [chapter 9](09_exception) the feature itself, read in each model, {{ fates | listed
}}: its F1 is {{ moved | listed }}.
{% else %}
By the rule of [chapter 9](09_exception) that is no feature that could survive.
{% endif %}

What could be wrong: {{ share | pct }} of the feature's variance is explained by the token. That it
is found in a model says that the model knows this token well, and little about variables.""",
    parent=PRINT_NAMES[BASE],
    own=best[BASE],
    rule=own.row("token rule")["f1"],
    others=[f"{f1:.2f} in {PRINT_NAMES[m]}" for m, f1 in best.items() if m != BASE],
    passing=[PRINT_NAMES[r.model] for r in matched.itertuples() if r.r_stream >= p.threshold],
    n=len(matched),
    threshold=p.threshold,
    again=again.loc["correlation", "r_stream"],
    fates=[f"{phrases[word]} in {listed(models)}" for word, models in where.items() if models],
    moved=[f"{case.evidence('transfer', m).f1.value:.2f} in {PRINT_NAMES[m]}" for m in verdicts],
    share=own.token_share,
)

# %% tags=["remove-input"]
chapter.finish(case_metrics(case, "assignment", "case.assignment"))
