# Two commands: `make demo` shows a first leaderboard, `make test` runs the tests. Both set up .venv by themselves.
PYTHON ?= python3
BIN := .venv/bin
SMOKE := runs=demo/records store=demo/store protocol=smoke

.PHONY: demo test lint smoke docs clean

demo: .venv/ready
	for task in cnn_cifar bert_glue gcn_planetoid; do $(BIN)/bench run tasks/$$task $(SMOKE) || exit 1; done
	$(BIN)/bench leaderboard --root demo
	@cat demo/README.md demo/cnn_cifar.md demo/bert_glue.md demo/gcn_planetoid.md

# every task there is, two at a time
smoke: .venv/ready
	printf '%s\n' tasks/*/config.yaml | xargs -P 2 -I{} sh -c '$(BIN)/bench run $$(dirname {}) threads=1 $(SMOKE)'

test: .venv/ready
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# the documentation as a site in site-docs/; a broken link is an error
docs: .venv/docs
	$(BIN)/mkdocs build --strict

.venv/docs: .venv/ready
	$(BIN)/pip install -q -e '.[docs]'
	touch $@

.venv/ready: pyproject.toml
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'Ticket Bench needs Python 3.11 or newer: make PYTHON=python3.11 demo')"
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q -e '.[dev]'
	touch $@

clean:
	rm -rf .venv demo .bench runs site-docs
