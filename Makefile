# make train   set up, then train on the embedded demo crystals
# make test    set up, then run the tests
# make paper   the figures and tables of the CGCNN paper from the data sets in DATA (SIZE=quick, small or full)
# make PYTHON=python3.13 train   chooses the interpreter (3.11 or newer)
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
WORKDIR ?= runs/demo
# make paper: folder of data sets of JSON lines, how much is trained, where it goes, more flags (FLAGS=--only=figure_2b)
DATA ?= $(CGCNN_DATA)
SIZE ?= small
PAPER ?= runs/paper_$(SIZE)
# A file rather than the folder marks the environment as whole, so that an interrupted installation starts again. Bytecode
# of what is imported is made when it is; of everything, it takes as long as all else here.
READY := $(VENV)/.installed

.PHONY: setup train paper test test-slow lint audit lock clean

setup: $(READY)

train: $(READY)
	$(BIN)/python -m experiments.train --config=configs/formation_energy.py --workdir=$(WORKDIR)

paper: $(READY)
	@test -n "$(DATA)" || { echo "make paper needs DATA=FOLDER, the folder of the data sets (docs/paper.md)"; exit 2; }
	$(BIN)/python -m experiments.paper --data=$(DATA) --size=$(SIZE) --workdir=$(PAPER) $(FLAGS)

test: $(READY)
	$(BIN)/python -m pytest -n 2 --dist=worksteal

test-slow: $(READY)
	$(BIN)/python -m pytest -m slow

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Known vulnerabilities of the locked versions; asks PyPI's advisories, and changes nothing.
audit: $(READY)
	$(PYTHON) -m venv $(VENV)/audit
	$(VENV)/audit/bin/python -m pip install --quiet --disable-pip-version-check 'pip-audit>=2.9,<3'
	$(VENV)/audit/bin/pip-audit --strict --require-hashes --disable-pip -r requirements.lock

# One file of exact versions and hashes for every supported Python; needs uv.
lock:
	uv pip compile pyproject.toml --universal --python-version 3.11 --extra test --extra lint \
	  --generate-hashes --no-annotate --no-emit-package cgcnn-jax --custom-compile-command "make lock" --quiet -o requirements.lock

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .mypy_cache

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(None if v >= (3, 11) else \
	  "cgcnn_jax needs Python 3.11 or newer, and $(PYTHON) is %d.%d; try: make PYTHON=python3.13 $(MAKECMDGOALS)" % v[:2])'
	@echo "Setting up $(VENV): a minute or two and 1.8 GB, once."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $(READY)
