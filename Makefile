# `make test` and `make demo` do all set-up in .venv on a fresh machine; PYTHON names the interpreter to build it from (3.11 or newer).
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin
# Large arrays in huge pages where Linux leaves that to the program (README, "On a CPU").
export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1

.PHONY: demo test parity bench clean

$(VENV)/.installed: pyproject.toml
	test -x $(RUN)/python || $(PYTHON) -m venv $(VENV)
	$(RUN)/pip install --quiet --upgrade pip
	$(RUN)/pip install --quiet --no-compile --editable '.[test]'
	touch $@

# torch and peft are for comparisons, libtpu compiles for TPUs: the package works without them.
$(VENV)/.torch: $(VENV)/.installed
	$(RUN)/pip install --quiet --no-compile torch==2.13.0 peft libtpu
	touch $@

demo: $(VENV)/.installed
	$(RUN)/pmc-jax demo --config=configs/demo.py --workdir=runs/demo

test: $(VENV)/.installed
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/pytest -m 'not parity' -n 2 --dist=loadfile --no-loadscope-reorder

parity: $(VENV)/.torch
	$(RUN)/pytest -m parity -n 2 --dist=loadfile --no-loadscope-reorder

bench: $(VENV)/.torch
	$(RUN)/python benchmarks/bench.py

clean:
	rm -rf $(VENV) runs .pytest_cache .ruff_cache
