# %% [markdown]
# # BabyPython, the base model
#
# The model that everything starts from is as small as a language model can be while still being
# one: a Mistral-like transformer {cite:p}`jiang2023mistral` with a single layer. With one layer
# there is one {term}`MLP`, and so one place where the {term}`features <feature>` of this book can
# live.
#
# *What we ask here:* does the model learn both of its kinds of text, English and Python, well
# enough that features inside it are worth looking for?

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
from IPython.display import Markdown

from featlib.chapter import start_chapter
from featlib.family import BASE, DOMAIN_NAMES, DOMAINS, PRINT_NAMES, TRAINING_MIX
from featlib.models import mistral as lm
from featlib.models import recipes
from featlib.models.forward import score_texts
from featlib.params import derive_seed
from featlib.show.figure import table
from featlib.show.marks import averaged, bars, lines
from featlib.show.scales import Axis
from featlib.text import tokens

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
model = recipes.build_base(
    p, vocab_size=len(tokenizer), context=training.context, seed=derive_seed(p.seed, "init")
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
# AdamW with a cosine decay, as in the paper, after a linear warm-up, which there only the
# fine-tunes have. Batches hold English and Python in equal parts.

# %% tags=["hide-input"]
curve = recipes.train_base(
    model, training.ids, p, seed=derive_seed(p.seed, "order", BASE), label=PRINT_NAMES[BASE]
)
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
# The model is scored on validation documents of all four kinds, also of those that it has never
# seen. {term}`Accuracy <accuracy>` is the share of {term}`tokens <token>` for which the most
# probable next token is the right one.

# %% tags=["hide-input"]
held_out = recipes.validation_texts(run_folder, p.evaluation_tokens)
scores = score_texts(model, held_out, model=BASE)
run_folder.save_table("scores_base", scores)
accuracy = scores.set_index("domain")["accuracy"]
chapter.figure(
    bars(
        scores,
        x=Axis("accuracy", "next-token accuracy", ".0%", zero=True),
        y="domain",
        color="model",
        beside=True,
        text="accuracy",
    ),
    name="scores-base",
    caption="Next-token accuracy of BabyPython on held-out text. It was trained on the first two.",
    alt="Accuracy of BabyPython: "
    + ", ".join(f"{DOMAIN_NAMES[d]} {accuracy[d]:.2f}" for d in DOMAINS),
    data=scores,
)

# %% [markdown]
# ## What was found, and what could be wrong

# %% tags=["remove-input"]
commonest = np.bincount(training.ids.ravel()).argmax()
guessed = {
    domain: (tokens.load_blocks(run_folder.tokens, f"{domain}.validation").ids == commonest).mean()
    for domain in TRAINING_MIX[BASE]
}
Markdown(
    f"""\
BabyPython predicts {accuracy["python"]:.1%} of the tokens of Python that it has not seen, and
{accuracy["babylm"]:.1%} of those of English. Always saying the commonest token of its training text
would get {guessed["python"]:.1%} and {guessed["babylm"]:.1%}. On Lua it reaches
{accuracy["lua"]:.1%} without having read any: two programming languages share brackets, operators
and habits of naming. On the stories it reaches {accuracy["tinystories"]:.1%}. Whether there are
features inside it that are worth looking for, [chapter 5](05_autoencoders) decides.

The paper's model card gives 41.9% on its own evaluation set, with a model of 35 million parameters
and 3 epochs. The numbers cannot be compared directly: the vocabulary is another one, and tokens of
another size are harder or easier to guess. What matters from here on is how they *change*. And all
of it rests on one training from one seed; [the controls](11_controls) can add a second, with
`control_model`."""
)

# %% tags=["remove-input"]
chapter.finish(
    {
        f"lm.{BASE}.{row.domain}.{key}": getattr(row, key)
        for row in scores.itertuples()
        for key in ("loss", "accuracy")
    }
)
