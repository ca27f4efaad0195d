# %% [markdown]
# # The flow of features
#
# This is the paper's Figure 2: how many {term}`features <feature>` go from BabyPython into each
# child, and from each child into the merge. Of those that find no {term}`match` most were never
# found by all of the parent's own {term}`autoencoders <autoencoder>`, so nobody can tell whether
# the model lost them; what is drawn as lost is what all of them agree on.

# %% tags=["parameters", "remove-cell"]
run: str = "mini"  # the run's name: its files lie in runs/<run>
d_sae: int = 2048  # features of an autoencoder

# %%

from featlib.chapter import prose, start_chapter
from featlib.family import BASE, CHILDREN, MERGED, PRINT_NAMES, STEPS, step_name
from featlib.show.figure import table
from featlib.show.flow import BANDS, flow

chapter = start_chapter("07_flow", globals())
p, run_folder = chapter.params, chapter.run
step = run_folder.read_table("pairs").set_index(["parent", "child"]).loc[list(STEPS)]
flows = run_folder.read_table("flows")
flows = flows[[pair in STEPS for pair in zip(flows["parent"], flows["child"], strict=True)]]
wide = flows.pivot(index=["parent", "child"], columns="fate", values="count").loc[list(STEPS)]

# %% tags=["hide-input"]
chapter.figure(
    flow(flows.assign(children=p.d_sae)),
    name="flow",
    caption=f"Features from {PRINT_NAMES[BASE]} (left) through its children into "
    f"{PRINT_NAMES[MERGED]} (right). Widths are numbers of features, means over all pairs of "
    "autoencoders with different seeds. Lost: without a match, though every other seed of the "
    "parent finds it. Cannot tell: without a match, and missed by another seed of the parent too. "
    "Choose a band to see its features.",
    alt="; ".join(
        f"{step_name(*pair)}: {row['persists']:.0f} persist, {row['lost']:.0f} lost, "
        f"{row['cannot tell']:.0f} cannot tell"
        for pair, row in wide.iterrows()
    ),
    data=flows,
)

# %%
table(wide[[*BANDS]].round().astype(int).rename(index=PRINT_NAMES).reset_index())

# %% [markdown]
# The paper shows this flow without a ceiling, and as a picture only, so there are no shares of
# theirs to print beside ours. Their text says that few features {term}`persist`, and that those
# which do are mostly about punctuation and formatting.

# %% [markdown]
# ## What was found, and what could be wrong

# %% tags=["remove-input"]
lost = 1 - step["persist"]
beyond = ((step["ceiling"] - step["persist"]) / lost).clip(lower=0)
text = ((step["ceiling"] - step["text_ceiling"]) / lost).clip(0, beyond)
down = [(BASE, child) for child in CHILDREN]
into = [pair for pair in STEPS if pair[1] == MERGED]

prose(
    """\
From {{ base }} {{ lost | listed }} of the testable features find no match. Of these at least
{{ beyond | listed }} are more than a second autoencoder of {{ base }} loses by itself. That is a
lower bound, since what the other autoencoder misses may have been lost as well, and it has two
causes: fine-tuning changed the model, and the child's autoencoder learned from another text. The
text alone accounts for {{ text | listed }}.

Of the features that all seeds of the parent find, {{ stable | listed }} persist. Into the merge go
{{ persist | listed }} of all testable ones. [The controls](11_controls) take the second dictionary
out: there the parent's own autoencoder reads the child.""",
    base=PRINT_NAMES[BASE],
    lost=[f"{lost[pair]:.0%} (to {PRINT_NAMES[pair[1]]})" for pair in down],
    beyond=[f"{beyond[pair]:.0%} ({PRINT_NAMES[pair[1]]})" for pair in down],
    text=[f"{text[pair]:.0%} ({PRINT_NAMES[pair[1]]})" for pair in down],
    stable=[f"{step.loc[pair, 'stable_persist']:.0%} ({PRINT_NAMES[pair[1]]})" for pair in down],
    persist=[f"{step.loc[pair, 'persist']:.0%} (of {PRINT_NAMES[pair[0]]})" for pair in into],
)

# %% tags=["remove-input"]
chapter.finish()
