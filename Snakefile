"""One rule a chapter: papermill runs its notebook, and what it made lies in runs/<run_name>/.

    snakemake --cores 2 --configfile params/mini.yaml
    snakemake --cores 2 --configfile params/mini.yaml --config seed=3 run_name=again

A chapter runs again when a parameter that it declares, its notebook, a library module that it
imports (directly or through another) or an earlier chapter's files have changed.
"""

import ast
import fcntl
import os
import shlex
import signal
import sys
import time
from pathlib import Path

from featlib import FeatlibError
from featlib.chapter import declared_parameters
from featlib.family import DOMAINS
from featlib.models.merging import METHODS
from featlib.params import check_choice, check_params
from featlib.run import AFTER, ASIDE, MAKES, NAMING, Run, prepare_run
from featlib.text.labels import LABELS
from featlib.text.sources import check_corpus

if not config:

    configfile: "params/mini.yaml"


ROOT = Path(workflow.basedir)
PYTHON = shlex.quote(sys.executable)
# glibc gives large blocks back to the system and faults them in again at every training step.
# Told to keep them, it trains faster; chapters that do not train would only hold more memory.
KEEP_MEMORY = (
    "MALLOC_TOP_PAD_=268435456 MALLOC_MMAP_THRESHOLD_=268435456 MALLOC_TRIM_THRESHOLD_=1073741824 "
)
TRAINING = ("02_base_model", "03_fine_tuning")

try:
    PARAMS = check_params(config, where="parameters of this run")
    check_choice("merge_method", PARAMS.merge_method, METHODS)
    check_choice("label", PARAMS.label, LABELS)
    RUN = Run(PARAMS.run_name)
    prepare_run(RUN, PARAMS)
    for domain in DOMAINS:
        check_corpus(domain, PARAMS.source, PARAMS.corpora_folder)
except FeatlibError as error:
    sys.exit(f"\n{error}\n")
R = RUN.folder


def source(chapter):
    return ROOT / "notebooks" / f"{chapter}.py"


def imported_modules(path, seen=None):
    """Files of featlib that `path` imports, directly or through one another, and data beside them."""
    seen = set() if seen is None else seen
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "featlib":
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            file = ROOT / (name.replace(".", "/") + ".py")
            if file.exists() and file not in seen:
                seen |= {file, *file.parent.glob("*.txt")}
                imported_modules(file, seen)
    return sorted(seen)


def artefacts(chapter):
    return [directory(R / p) if p.endswith("/") else R / p for p in MAKES[chapter]]


def inputs(chapter):
    order = list(MAKES)
    earlier = AFTER.get(chapter, order[max(order.index(chapter) - 1, 0)])
    files = [] if earlier == chapter else [RUN.notebook(earlier), *artefacts(earlier)]
    files += [RUN.notebook(naming) for naming in NAMING if chapter == "12_atlas"]
    published = (ROOT / "book/_data").glob("*.csv") if chapter == "13_trust" else []
    return [source(chapter), *imported_modules(source(chapter)), *files, *published]


def chapter_params(chapter):
    """The parameters that the chapter declares, as papermill's arguments."""
    keys = [key for key in declared_parameters(source(chapter).read_text()) if key != "run"]
    values = {"run": PARAMS.run_name} | {key: getattr(PARAMS, key) for key in keys}
    return " ".join(f"-p {key} {shlex.quote(str(value))}" for key, value in values.items())


def stop(number, frame):
    print(f"\n{R}: stopped. What was finished stays; the same command goes on.\n", file=sys.stderr)
    os._exit(128 + number)  # chapters end with their driver


onstart:
    # Two runs in one folder would spoil each other. The kernel drops this lock with the process,
    # so unlike a lock file it cannot be left behind by kill -9.
    lock = (R / ".running").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit(f"\n{R} is being made by another process: wait for it, or choose a run_name.\n")
    # A chapter whose driver died notices that within a second, and ends.
    chapters, waits = (R / ".chapters").open("w"), 40
    while waits:
        try:
            fcntl.flock(chapters, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            waits -= 1
            time.sleep(0.25)
    else:
        sys.exit(f"\nA chapter of an earlier start is still at work in {R}: wait for it.\n")
    chapters.close()
    # Snakemake itself would wait for the chapter to end.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)


rule all:
    default_target: True
    input:
        R / "book/html/index.html",


for chapter in MAKES:

    rule:
        name: f"chapter_{chapter}"
        input:
            inputs(chapter),
        output:
            artefacts(chapter),
            notebook=RUN.notebook(chapter),
        params:
            papermill=chapter_params(chapter),
            memory=KEEP_MEMORY if chapter in TRAINING else "",
            source=shlex.quote(str(source(chapter))),
            working=RUN.notebook(chapter).with_name(f"{chapter}.failed.ipynb"),
            plain=RUN.notebook(chapter).with_name(f".{chapter}.plain.ipynb"),
        threads: workflow.cores
        shell:
            # A chapter that fails leaves its half-executed notebook as <chapter>.failed.ipynb.
            PYTHON + " -m jupytext --quiet --to ipynb --set-kernel python3 --output {params.plain:q} {params.source}"
            " && PYTHONHASHSEED=0 FEATLIB_SHELL=$$ FEATLIB_DRIVER=$PPID {params.memory} " + PYTHON + " -m papermill --kernel python3 --log-output"
            " --no-progress-bar {params.plain:q} {params.working:q} {params.papermill}"
            " && rm {params.plain:q} && mv {params.working:q} {output.notebook:q}"


rule headlines:
    # What another training of this run needs: `make replicate`.
    input:
        [RUN.notebook(chapter) for chapter in MAKES if chapter not in ASIDE],


rule book:
    input:
        [RUN.notebook(chapter) for chapter in MAKES],
        sorted(path for path in ROOT.glob("book/**/*") if path.is_file() and "__pycache__" not in str(path)),
        ROOT / "_config.yml",
        ROOT / "_toc.yml",
    output:
        R / "book/html/index.html",
    threads: workflow.cores
    shell:
        PYTHON + " " + shlex.quote(str(ROOT / "book/_ext/build.py")) + " " + shlex.quote(str(R))
