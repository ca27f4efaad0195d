# make book            everything, from an empty folder to a rendered book
# make book RUN=smoke  another run: any file in params/
# make test            the whole test suite
# make check           format, lint, types and the order of the house, in seconds
# make replicate SEEDS="0 1 2" JOBS=2   other trainings of RUN, two at a time, for the page on trust
# make reading         minutes of reading in the book of runs/$(RUN), page by page
# make compare RUNS="mini again"   a page with the numbers of two runs or more, side by side
# make controls        measure on runs/$(RUN), once it is done, what is too slow for every run
# make screenshots     pictures of the key pages of runs/$(RUN), wide and narrow, light and dark
# make publish         give the committed notebooks the outputs of runs/$(RUN)
# make publish-controls   keep the tables of make controls for every run's book
PYTHON ?= python3
RUN ?= mini
CORES ?= 2
SEEDS ?= 0 1 2 3 4
JOBS ?= $(CORES)
BIN := .venv/bin
TORCH := torch==2.13.0
# Names reach the shell as the values of variables, never as words of a command.
export RUN RUNS CORES SEEDS JOBS

.PHONY: book replicate reading compare controls publish-controls screenshots test check env corpora publish lock notebooks clean known

book: known env corpora
	@$(BIN)/snakemake --cores "$$CORES" --configfile "params/$$RUN.yaml"
	@echo "The book: $(CURDIR)/runs/$$RUN/book/html/index.html"
	@if [ -z "$$CI" ] && [ -n "$$DISPLAY$$WAYLAND_DISPLAY$$(uname | grep Darwin)" ]; then $(BIN)/python -m webbrowser "file://$(CURDIR)/runs/$$RUN/book/html/index.html" >/dev/null 2>&1 || true; fi

known:
	@test -f "params/$$RUN.yaml" || { printf 'RUN=%s: there is no such file in params/. There are: %s\n' "$$RUN" "$$(ls params | sed -n 's/\.yaml$$//p' | tr '\n' ' ')" >&2; exit 2; }

# Seed 0 is the run itself. The others are made by processes of one thread, JOBS of them at once:
# how many threads there are moves the last digits, how many neighbours does not. What was cut off
# or failed goes on with the next call; what is complete is gathered either way.
replicate: known env corpora
	@$(BIN)/snakemake --cores "$$CORES" --configfile "params/$$RUN.yaml" headlines
	@printf '%s\n' $$SEEDS | grep -vx 0 | xargs -P "$$JOBS" -I '{}' \
	  $(BIN)/snakemake headlines --cores 1 --configfile "params/$$RUN.yaml" --config 'seed={}' "run_name=$$RUN-seed-{}"; \
	  status=$$?; $(BIN)/python book/_ext/publish.py --trainings "runs/$$RUN" && exit $$status

reading: env
	@$(BIN)/python tests/reading.py "runs/$$RUN"

compare: env
	@$(BIN)/python book/_ext/build.py --compare $$RUNS

controls: known env
	@$(BIN)/jupytext --quiet --to ipynb --set-kernel python3 --output - notebooks/controls.py | $(BIN)/papermill --kernel python3 --language python --log-output --no-progress-bar - "runs/$$RUN/controls.ipynb" -f params/controls.yaml -p run "$$RUN"

screenshots: env
	@$(BIN)/python tests/screenshots.py "runs/$$RUN"

test: env corpora
	@$(BIN)/python -m pytest

check: env
	@$(BIN)/ruff check . && $(BIN)/ruff format --check --quiet . && $(BIN)/mypy && $(BIN)/python -m pytest --quiet tests/test_layout.py

env: .venv/.complete

# torch is locked by version alone: its wheel, so its hash, differs by platform. Everything else is
# locked by hash, for every platform, and comes first so that torch finds its own needs met.
.venv/.complete: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name one with: make book PYTHON=python3.12")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(TORCH)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

corpora: env
	@$(BIN)/python -m featlib.text.archives

publish: env
	@$(BIN)/python book/_ext/publish.py "runs/$$RUN"

publish-controls: env
	@$(BIN)/python book/_ext/publish.py --controls "runs/$$RUN"

# Pairs: notebooks/NN_name.py is the source, NN_name.ipynb what papermill and code hosts read.
notebooks: env
	$(BIN)/jupytext --quiet --sync notebooks/[0-9]*.py

lock:
	uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --extra test \
	  --custom-compile-command "make lock" pyproject.toml --output-file requirements.lock \
	  $(addprefix --no-emit-package ,torch triton cuda-bindings cuda-pathfinder cuda-toolkit \
	  nvidia-cublas nvidia-cuda-cupti nvidia-cuda-nvrtc nvidia-cuda-runtime nvidia-cudnn-cu13 \
	  nvidia-cufft nvidia-cufile nvidia-curand nvidia-cusolver nvidia-cusparse \
	  nvidia-cusparselt-cu13 nvidia-nccl-cu13 nvidia-nvjitlink nvidia-nvshmem-cu13 nvidia-nvtx)

clean:
	rm -rf runs .snakemake _build
