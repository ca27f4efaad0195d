# %% [markdown]
# # Four kinds of text
#
# One small language model is followed through three changes, and each change is made of text:
# BabyPython reads English and Python, one copy of it goes on to Lua, another to short stories, and
# the two are merged. This chapter collects the four kinds of text, removes what stands there twice,
# keeps the text that measures a model apart from the text that trained it, and cuts all of it into
# {term}`tokens <token>`.

# %% tags=["parameters", "remove-cell"]
run: str = "mini"  # the run's name: its files lie in runs/<run>
seed: int = 0  # every random choice follows from it
source: str = "embedded"  # embedded: pinned public packages; files: your own
corpora_folder: str = ""  # with source files: a folder with babylm, python, lua, tinystories
babylm_mb: float = 10.0  # megabytes of English to read
python_mb: float = 10.0  # megabytes of Python to read
lua_mb: float = 3.0  # megabytes of Lua to read
tinystories_mb: float = 3.0  # megabytes of short stories
validation_share: float = 0.08  # share of documents kept for validation
test_share: float = 0.08  # share of documents kept for testing
vocab_size: int = 4096  # entries of the byte-level BPE vocabulary
context: int = 128  # tokens in one block

# %%
import pandas as pd

from featlib.chapter import start_chapter
from featlib.family import DOMAIN_NAMES, DOMAINS
from featlib.params import derive_seed
from featlib.run import atomic_path, check_held_out
from featlib.show.figure import table
from featlib.show.flow import design_diagram
from featlib.show.marks import bars
from featlib.show.scales import Axis
from featlib.show.strips import excerpts
from featlib.text import copies, documents, tokens
from featlib.text.sources import read_corpus

chapter = start_chapter("01_corpora", globals())
p, run_folder = chapter.params, chapter.run

# %% [markdown]
# ## The design
#
# The whole experiment in one picture (the paper's Figure 1). What happens to the
# {term}`features <feature>` on the way is the question of chapters 6 to 11.

# %% tags=["hide-input"]
chapter.figure(
    design_diagram(),
    name="design",
    caption="BabyPython is trained on English and Python, fine-tuned on Lua and on short stories, "
    "and the two children are merged.",
    alt="Four models: BabyPython on the left, its children Lua and TinyStories in the middle, and "
    "their merge LuaStories on the right.",
)

# %% [markdown]
# ## Reading
#
# The paper took BabyLM, Python and Lua from The Stack, and TinyStories from the Hugging Face hub.
# By default this run uses stand-ins that need no account: English dialogue and prose, Python and
# Lua sources with permissive licences, read straight out of pinned and hash-checked packages, and
# stories written by a generator after TinyStories' own recipe. The source `files` puts your own
# text in their place.
#
# Documents are deduplicated before they are split, and no document has tokens on both sides of the
# split. A held-out document goes if more than half of its runs of 50 characters stand in the
# training text: a model would pass its test from memory.

# %%
splits: dict[str, dict[str, list[documents.Document]]] = {}
skipped, dropped = [], []
for domain in DOMAINS:
    read, passed_over = read_corpus(
        domain,
        p.source,
        p.corpora_folder,
        megabytes=getattr(p, f"{domain}_mb"),
        seed=derive_seed(p.seed, "documents", domain),
    )
    kept, n_copies = copies.deduplicate(read)
    copied = pd.DataFrame({"domain": [domain], "reason": "copy of another", "count": n_copies})
    skipped += [passed_over, copied[copied["count"] > 0]]
    parts = documents.split_documents(
        kept,
        validation=p.validation_share,
        test=p.test_share,
        seed=derive_seed(p.seed, "split", domain),
    )
    splits[domain] = copies.drop_near_copies(parts)
    dropped += [len(parts[split]) - len(kept) for split, kept in splits[domain].items()]
summary = documents.describe(splits)
columns = ["domain", "split", "documents", "near-copies dropped", "megabytes", "sources"]
counted = summary.assign(**{"near-copies dropped": dropped})
table(counted[columns].replace({"domain": DOMAIN_NAMES}))

# %% tags=["hide-input"]
chapter.figure(
    bars(
        summary.assign(millions=summary["characters"] / 1e6),
        x=Axis("millions", "millions of characters", zero=True),
        y="domain",
        color="domain",
        shade="split",
    ),
    name="corpora",
    caption="Characters of each kind of text, by split. The base model reads BabyLM and Python; "
    "each fine-tune reads one of the other two.",
    alt="Bars of characters per domain and split: "
    + ", ".join(
        f"{DOMAIN_NAMES[d]} {n / 1e6:.1f} million"
        for d, n in summary.groupby("domain", sort=False)["characters"].sum().items()
    ),
    data=summary,
)

# %% [markdown]
# What the texts may be used for is recorded document by document:

# %% tags=["hide-input"]
licences = {
    domain: ", ".join(sorted({d.license for split in splits[domain].values() for d in split}))
    for domain in DOMAINS
}
names = [DOMAIN_NAMES[domain] for domain in licences]
table(pd.DataFrame({"domain": names, "licences": licences.values()}))

# %% [markdown]
# Some files were passed over: too large, minified, not text, or mostly data. Each with its reason:

# %% tags=["hide-input"]
table(pd.concat(skipped, ignore_index=True).replace({"domain": DOMAIN_NAMES}))

# %% [markdown]
# The beginning of one document of each kind:

# %% tags=["hide-input"]
excerpts({DOMAIN_NAMES[d]: splits[d]["train"][0].text for d in DOMAINS})

# %% [markdown]
# ## Tokens
#
# Models do not read characters but tokens. One vocabulary serves all four models: a byte-level BPE
# trained on the base model's mix and on the {term}`fine-tuning` texts, with which every string can
# be written. The paper used Mistral's tokenizer of 32,000 entries; at this size most of those
# entries would never be seen.
#
# Each document starts with `<s>`; documents are put one after another and cut into blocks.

# %%
training_texts = [d.text for domain in DOMAINS for d in splits[domain]["train"]]
tokenizer = tokens.train_tokenizer(training_texts, p.vocab_size)
with atomic_path(run_folder.tokenizer) as folder:
    tokenizer.save_pretrained(folder)

counted = []
for domain in DOMAINS:
    for split, texts in splits[domain].items():
        blocks = tokens.tokenize_documents(tokenizer, [d.text for d in texts], p.context)
        tokens.save_blocks(blocks, run_folder.tokens, f"{domain}.{split}")
        check_held_out(run_folder, domain, split, blocks.n_tokens)
        counted.append({"domain": domain, "split": split, "tokens": blocks.n_tokens})
counts = summary.merge(pd.DataFrame(counted))
counts["characters per token"] = counts["characters"] / counts["tokens"]
columns = ["domain", "split", "tokens", "characters per token"]
table(counts[columns].replace({"domain": DOMAIN_NAMES}), digits=3)

# %% [markdown]
# Held-out documents are kept as text as well: the case studies {term}`label` them character by
# character.

# %%
held_out = pd.DataFrame(
    [
        {"domain": domain, "split": split, "document": n, **vars(document)}
        for domain in DOMAINS
        for split in ("validation", "test")
        for n, document in enumerate(splits[domain][split])
    ]
)
with atomic_path(run_folder.tokens / "documents.parquet") as path:
    held_out.to_parquet(path)

# %% [markdown]
# ## What could be wrong
#
# These are stand-ins for the paper's data unless you gave your own. The stories in particular come
# from a generator: they are more regular than TinyStories, so a model learns them faster and its
# accuracy on them is not comparable with the paper's. What carries over is the design: four kinds
# of text, two of them new to the base model.

# %% tags=["remove-input"]
chapter.finish(
    corpora={
        domain: documents.corpus_hash([d for split in splits[domain].values() for d in split])
        for domain in DOMAINS
    },
)
