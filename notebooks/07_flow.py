# %% [markdown]
# # The flow of features
#
# All pieces are in place. This chapter puts them into one picture, which is the paper's Figure 2:
# how many {term}`features <feature>` go from BabyPython into each child, and from each child into
# the merge, how many are lost on the way, and how many appear.
#
# *What we ask here:* where in the family are features lost, and how much of what is
# lost is more than the noise of the instrument?

# %% tags=["parameters", "remove-cell"]
run: str = "mini"  # the run's name: its files lie in runs/<run>
d_sae: int = 2048  # features of an autoencoder
threshold: float = 0.8  # correlation from which two features count as one
min_firings: int = 30  # tokens a feature must fire on to be testable

# %%
from featlib.chapter import prose, start_chapter
from featlib.family import BASE, CHILDREN, MERGED, PRINT_NAMES, STEPS
from featlib.show.figure import table
from featlib.show.flow import flow
from featlib.show.picks import correlation_by_firings

chapter = start_chapter("07_flow", globals())
p, run_folder = chapter.params, chapter.run
matches = run_folder.read_table("matches")
step = run_folder.read_table("pairs").set_index(["parent", "child"]).loc[list(STEPS)]

# %% [markdown]
# ## The picture

# %% tags=["hide-input"]
flows = run_folder.read_table("flows")
flows = flows[[pair in STEPS for pair in zip(flows["parent"], flows["child"], strict=True)]]
chapter.figure(
    flow(flows.assign(children=p.d_sae)),
    name="flow",
    caption=f"Features from {PRINT_NAMES[BASE]} (left) through its children into "
    f"{PRINT_NAMES[MERGED]} (right). "
    "Widths are numbers of features, means over all pairs of autoencoders with different "
    "seeds. What finds no match is drawn in two shades: up to the seed ceiling it is more than "
    "two autoencoders of one model lose; beyond it nobody can tell. Choose a band, or a step and a "
    "fate beneath the picture, to see its features.",
    alt="Share of features that persist: "
    + "; ".join(
        f"{PRINT_NAMES[a]} to {PRINT_NAMES[b]} {row.persist:.0%} (ceiling {row.ceiling:.0%}, so "
        f"{row.calibrated:.0%} of it)"
        for (a, b), row in step.iterrows()
    ),
    data=flows,
)

# %% [markdown]
# The paper shows this flow without a ceiling, and as a picture only, so there are no shares of
# theirs to print beside ours. Their text says that few features {term}`persist`, and that those
# which do are mostly about punctuation and formatting.

# %%
wide = flows.pivot(index=["parent", "child"], columns="fate", values="count").loc[list(STEPS)]
wide = wide[["persists", "disappears", "emerges", "untestable"]].round().astype(int)
table(wide.rename(index=PRINT_NAMES).reset_index())

# %% [markdown]
# ## Rare and common features
#
# A feature that {term}`fires <fire>` often is easier to find again. The next figure follows the
# correlation of the best {term}`match` against the number of {term}`tokens <token>` on which the
# feature fires.

# %% tags=["hide-input"]
scatter = matches[(matches["side"] == "parent") & matches["child"].isin(CHILDREN)]
middle = scatter.loc[scatter["firings"] > 0, "firings"].median()
told = [
    f"to {PRINT_NAMES[child]} the median best correlation is "
    f"{part.loc[part['firings'] <= middle, 'r'].median():.2f} for the rarer half and "
    f"{part.loc[part['firings'] > middle, 'r'].median():.2f} for the commoner half"
    for child, part in scatter[scatter["firings"] > 0].groupby("child", observed=True)
]
chapter.figure(
    correlation_by_firings(scatter, threshold=p.threshold, min_firings=p.min_firings),
    name="correlation-by-firings",
    caption="Best correlation in the child against the number of firings in the common text, for "
    f"{PRINT_NAMES[BASE]}'s features: the median, and the middle half as a band. Left of the "
    "upright rule features are untestable; from the level one on they persist. Choose a dot to see "
    "its features.",
    alt="Frequent features are found again better than rare ones: " + "; ".join(told) + ".",
)

# %% [markdown]
# ## What was found, and what could be wrong

# %% tags=["remove-input"]
lost = 1 - step["persist"]
beyond = ((step["ceiling"] - step["persist"]) / lost).clip(lower=0)
down, into = ([pair for pair in STEPS if pair[end] == m] for end, m in ((0, BASE), (1, MERGED)))

prose(
    """\
On the way from {{ base }} {{ lost | listed }} of the testable features find no match. Between
two autoencoders of {{ base }} it is {{ own | pct }}. So of all that seems to disappear, at least
{{ beyond | listed }} is more than the instrument loses by itself. It is a lower bound, since what
another autoencoder would miss may have been lost as well. And it has two possible causes: the model
was changed, and the child's autoencoder learned from another text.

Of the features {{ persist | listed }} persist into the merge, with ceilings of
{{ ceilings | listed }}: {{ calibrated | listed }} of what could persist.

A ceiling is an average over features. It does not say *which* of them were lost to noise. A single
feature with a low best correlation may have changed, or may only be split differently by the
second autoencoder. [The controls](11_controls) take the second dictionary out, by transfer: the
parent's own autoencoder reads the child, and each feature is compared with itself.""",
    base=PRINT_NAMES[BASE],
    lost=[f"to {PRINT_NAMES[child]} {lost[BASE, child]:.0%}" for _, child in down],
    own=1 - step.loc[down[0], "ceiling"],
    beyond=[f"{beyond[pair]:.0%} ({PRINT_NAMES[pair[1]]})" for pair in down],
    persist=[f"of {PRINT_NAMES[pair[0]]} {step.loc[pair, 'persist']:.0%}" for pair in into],
    ceilings=[f"{step.loc[pair, 'ceiling']:.0%}" for pair in into],
    calibrated=[f"{step.loc[pair, 'calibrated']:.0%}" for pair in into],
)

# %% tags=["remove-input"]
chapter.finish()
