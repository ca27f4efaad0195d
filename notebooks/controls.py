# %% [markdown]
# # What is too slow for every run
#
# Each section measures one thing on a finished run and keeps a table of it. Chapters show these
# tables; without a run of their own they show those that were published with the book.

# %% tags=["parameters", "remove-cell"]
run: str = "mini"  # name of a finished run, on which all is measured
sections: str = "rates curve instrument crosscoder warm_start"  # those to make now
curve_shares: list = [0.25, 0.5, 1.0, 2.0]  # lengths of training, in the run's `sae_tokens`
crosscoder_share: float = 1.0  # tokens the crosscoder is trained on, in the run's `sae_tokens`

# %%
from types import SimpleNamespace

from featlib.chapter import start_chapter
from featlib.controls.rates import sweep_rates
from featlib.controls.run import open_run

chapter = start_chapter("controls", globals())
p, run_folder = chapter.params, chapter.run
of_run = SimpleNamespace(**run_folder.recorded_params())
c = open_run(run_folder, of_run)

# %% [markdown]
# ## What a fine-tune's rate buys
#
# Each child is trained anew at four learning rates.

# %%
if "rates" in p.sections.split():
    chapter.keep("rates", sweep_rates(c, of_run))
