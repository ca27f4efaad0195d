# %% [markdown]
# # BabyPython, the base model
#
# The model that everything starts from learns both of its kinds of text, English and Python, well
# enough to be worth looking into. It is as small as a language model can be: a Mistral-like
# transformer {cite:p}`jiang2023mistral` with a single layer, and so with one {term}`MLP`, the one
# place where the {term}`features <feature>` of this book can live.

# %% tags=["parameters", "remove-cell"]
run: str = "mini"  # the run's name: its files lie in runs/<run>
seed: int = 0  # every random choice follows from it
hidden_size: int = 192  # width of the residual stream
intermediate_size: int = 384  # width of the MLP, where features are looked for
heads: int = 6  # attention heads
kv_heads: int = 3  # key-value heads
batch_size: int = 8  # blocks in one training batch
embedding_std: float = 0.1  # standard deviation of fresh embeddings
adam_beta2: float = 0.99  # second decay rate of AdamW
base_tokens: int = 3_000_000  # tokens to train on
base_lr: float = 0.003  # highest learning rate
base_warmup_steps: int = 200  # steps of linear warm-up
base_weight_decay: float = 0.1  # weight decay
evaluation_tokens: int = 30_000  # validation tokens scored per domain

# %%
import numpy as np
import pandas as pd

from featlib.chapter import start_chapter
from featlib.estimate import Estimate
from featlib.family import BASE, DOMAIN_NAMES, TRAINING_MIX
from featlib.models import mistral as lm
from featlib.models import recipes
from featlib.models.forward import score_texts
from featlib.params import derive_seed
from featlib.show.figure import table
from featlib.show.marks import averaged, lines
from featlib.show.scales import Axis

chapter = start_chapter("02_base_model", globals())
p, run_folder = chapter.params, chapter.run
tokenizer = lm.load_tokenizer(run_folder.tokenizer)

# %% [markdown]
# ## The model
#
# One layer: attention with rotary positions and grouped key-value heads, then a gated MLP. Write
# $x$ for the residual stream after attention, normalised. The MLP computes
#
# $$a = \mathrm{silu}(W_\text{gate}\,x) \odot W_\text{up}\,x, \qquad y = W_\text{down}\,a .$$
#
# The vector $a$ is what TransformerLens calls `blocks.0.mlp.hook_post`. Its entries are the
# *{term}`neurons <neuron>`* of the model; the {term}`autoencoders <autoencoder>` of [a later
# chapter](05_autoencoders) read $a$ and nothing else.

# %%
training = recipes.training_text(run_folder, TRAINING_MIX[BASE], p.seed, "mix", BASE)
model = lm.build_model(
    vocab_size=len(tokenizer),
    hidden_size=p.hidden_size,
    intermediate_size=p.intermediate_size,
    heads=p.heads,
    kv_heads=p.kv_heads,
    context=training.context,
    embedding_std=p.embedding_std,
    seed=derive_seed(p.seed, "init"),
)
PARTS = {"embed": "embedding", "attn": "attention", "mlp": "MLP", "lm_head": "unembedding"}
sizes = dict.fromkeys([*PARTS.values(), "norms"], 0)
for name, weight in model.named_parameters():
    part = next((label for key, label in PARTS.items() if key in name), "norms")
    sizes[part] += weight.numel()
table(pd.DataFrame({"part": sizes.keys(), "parameters": sizes.values()}))

# %% [markdown]
# ## Training
#
# AdamW with a cosine decay, after a linear warm-up. Batches hold English and Python in equal parts.

# %% tags=["hide-input"]
curve = recipes.train_base(model, training.ids, p)
lm.save_checkpoint(model, tokenizer, run_folder.model(BASE))
run_folder.save_table("loss_base", curve)

chapter.figure(
    lines(
        averaged(curve.assign(model=BASE), "tokens", by="model").eval("millions = tokens / 1e6"),
        x=Axis("millions", "millions of tokens seen"),
        y=Axis("loss", "loss (nats per token)"),
        color="model",
    ),
    name="loss-base",
    caption="Training loss of BabyPython, in nats per token.",
    alt=f"Training loss falls from {curve['loss'].iloc[0]:.1f} to "
    f"{curve['loss'].tail(20).mean():.2f} nats per token.",
    data=curve,
)

# %% [markdown]
# ## What it can do
#
# The model is scored on validation text of all four kinds, also of those that it has never seen, in
# blocks drawn from all documents. {term}`Accuracy <accuracy>` is the share of
# {term}`tokens <token>` for which the most probable next token is the right one; its interval is
# over documents. Beside it stands what always saying the commonest token of the training text would
# get.

# %% tags=["hide-input"]
held_out = recipes.validation_texts(run_folder, p.evaluation_tokens, p.seed)
scores = score_texts(model, held_out, np.random.default_rng(p.seed), model=BASE)
run_folder.save_table("scores_base", scores)
commonest = np.bincount(training.ids.ravel()).argmax()
rows = scores.assign(
    guessed=[(held_out[domain].ids == commonest).mean() for domain in scores["domain"]]
)
table(
    pd.DataFrame(
        {
            "text": row.domain,
            "accuracy": f"{Estimate.read(row._asdict(), 'accuracy'):.1%}",
            "commonest token": f"{row.guessed:.1%}",
            "loss (nats a token)": f"{Estimate.read(row._asdict(), 'loss'):.2f}",
        }
        for row in rows.itertuples()
    ).replace({"text": DOMAIN_NAMES})
)

# %% [markdown]
# It does better on Lua than a model that read no program could: two programming languages share
# brackets, operators and habits of naming.
#
# ## What could be wrong
#
# The paper's model card gives 41.9% on its own evaluation set, with a model of 35 million
# parameters and 3 epochs. The numbers cannot be compared directly: the vocabulary is another one,
# and tokens of another size are harder or easier to guess. What matters from here on is how they
# *change*.

# %% tags=["remove-input"]
chapter.finish(recipes.score_metrics(scores))
