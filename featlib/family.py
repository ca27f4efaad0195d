"""The family of models: who descends from whom, what each reads, what it is called, its colour.

This is the only place that says so. All else (steps, children, mixes, names, colours, the order of
figures, what a run's files are called) is derived from it, here or by whoever needs it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Domain:
    """A kind of text."""

    name: str  # in files, parameters and metrics
    print: str  # in the book
    color: str
    megabytes: float  # read by default
    code: bool = False
    suffixes: tuple[str, ...] = ()  # of files that hold it, beside .txt and .jsonl


@dataclass(frozen=True)
class Model:
    """A model: trained from nothing (no parent), fine-tuned (one), or merged (two)."""

    name: str
    print: str
    color: str
    parents: tuple[str, ...]
    mix: tuple[str, ...]  # the kinds of text that it, and so its autoencoders, learned from


# Okabe and Ito's palette, which keeps apart under every common colour blindness. A domain has the
# colour of the model that it made; Python is BabyPython's, and plain English is grey.
KINDS = (
    Domain("babylm", "BabyLM", "#6e6e78", megabytes=10.0),
    Domain("python", "Python", "#0072b2", megabytes=10.0, code=True, suffixes=(".py",)),
    Domain("lua", "Lua", "#d55e00", megabytes=3.0, code=True, suffixes=(".lua",)),
    Domain("tinystories", "TinyStories", "#009e73", megabytes=3.0),
)
# Parents before children (paper, section 3). The merge is of two named children: t = 0 is the
# first, t = 1 the second.
FAMILY = (
    Model("base", "BabyPython", "#0072b2", parents=(), mix=("babylm", "python")),
    Model("lua", "Lua", "#d55e00", parents=("base",), mix=("lua",)),
    Model("tinystories", "TinyStories", "#009e73", parents=("base",), mix=("tinystories",)),
    Model(
        "merged", "LuaStories", "#cc79a7", parents=("lua", "tinystories"),
        mix=("lua", "tinystories"),
    ),
)  # fmt: skip

# The base trained on with its own text, as long and as hard as a child, changed by no new text. No
# member of the family, only the reference against which what a child loses is read.
TRAINED_ON = Model(
    "placebo", "BabyPython, trained on", "#62676f", parents=("base",), mix=FAMILY[0].mix
)

# --- derived --------------------------------------------------------------------------------------

DOMAINS = tuple(kind.name for kind in KINDS)
DOMAIN_NAMES = {kind.name: kind.print for kind in KINDS}
DOMAIN_COLORS = {kind.name: kind.color for kind in KINDS}
CODE = tuple(kind.name for kind in KINDS if kind.code)

MODELS = tuple(model.name for model in FAMILY)
PLACEBO = TRAINED_ON.name
PRINT_NAMES = {model.name: model.print for model in (*FAMILY, TRAINED_ON)}
MODEL_COLORS = {model.name: model.color for model in (*FAMILY, TRAINED_ON)}
TRAINING_MIX = {model.name: model.mix for model in (*FAMILY, TRAINED_ON)}

BASE = next(model.name for model in FAMILY if not model.parents)
CHILDREN = tuple(model.name for model in FAMILY if len(model.parents) == 1)
MERGED, MERGE_OF = next((m.name, m.parents) for m in FAMILY if len(m.parents) == 2)  # t = 0, t = 1
STEPS = tuple((parent, model.name) for model in FAMILY for parent in model.parents)
SKIPPED = (BASE, MERGED)  # the grandchild: two steps at once
PAIRS = (*STEPS, SKIPPED)  # every pair of models whose features are compared


def step_name(parent: str, child: str) -> str:
    """A step from parent to child as the book writes it."""
    return f"{PRINT_NAMES[parent]} → {PRINT_NAMES[child]}"


def on_text(parent: str, child: str) -> str:
    """What a run calls the autoencoders that read `parent` and learned from `child`'s text."""
    return f"{parent}-on-{child}"
