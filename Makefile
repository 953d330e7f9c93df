# `make demo` and `make test` are all the set-up a fresh machine needs.
PYTHON ?=
PY := .venv/bin/python
STAMP := .venv/.installed
# One more than there are cores, since tests wait now and then. PARALLEL= runs one after the other.
PARALLEL ?= -n $(shell echo $$(($$(nproc) + 1))) --dist worksteal

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# Else each of the many interpreters that tests start would compile what it imports anew.
unexport PYTHONDONTWRITEBYTECODE
.PHONY: help demo test test-all test-megatron test-gpu megatrons check check-docker bench bench-data golden torture fuzz model
.PHONY: venv-nvrx venv-dlc

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*##(.*)/make \1\t\2/' | expand -t 16

# The stamp is written last, so an interrupted installation is not taken for a complete one.
$(STAMP): setup.py constraints.txt tools/venv.sh
	@PYTHON="$(PYTHON)" tools/venv.sh
	@touch $@

demo: $(STAMP)  ## train a tiny RLHF run, kill it twice, and prove that nothing differs (3 minutes)
	$(PY) examples/megatron/demo.py

test: $(STAMP)  ## the tests; FAST=1: those without Megatron; T=pattern: those whose name matches
	$(PY) -m pytest $(PARALLEL) -m "not slow$(if $(FAST), and not megatron)" $(if $(T),-k "$(T)")

test-all: megatrons venv-nvrx  ## the tests, and those that train for minutes
	-@tools/venv_dlc.sh
	$(PY) -m pytest $(PARALLEL) $(if $(T),-k "$(T)")

test-megatron: $(STAMP)  ## the tests of the hooks on a Megatron of yours: MEGATRON_DIR=/path make test-megatron
	@test -n "$(MEGATRON_DIR)" || { echo "make: name a checkout of Megatron-LM: MEGATRON_DIR=/path make test-megatron" >&2; exit 78; }
	MEGATRON_DIR="$(MEGATRON_DIR)" $(PY) -m pytest tests/real_megatron/test_versions.py tests/real_megatron/test_your_entrypoints.py -k MEGATRON_DIR

test-gpu: $(STAMP)  ## the example and its kills on CUDA and NCCL; says what it skipped, all of it without a GPU
	$(PY) tests/gpu.py

megatrons: $(STAMP)  ## each Megatron that the tests know, in a folder of its own in .venv-megatron
	@tools/venv_megatron.sh

venv-nvrx: $(STAMP)  ## .venv-nvrx with ft_launcher, for the tests of `launch --engine nvrx` (20 MB)
	@tools/venv_nvrx.sh

venv-dlc: $(STAMP)  ## .venv-dlc with the SDK of PAI-DLC, for the tests of `render --engine aimaster` (60 MB)
	@tools/venv_dlc.sh

check: $(STAMP)  ## lint, format, types, and which module may import which
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy --strict -p megatron_resume
	$(PY) -m pytest -q tests/test_layers.py

check-docker: $(STAMP)  ## lint the Dockerfile and what its build runs, in .venv-docker (seconds)
	@tools/check_docker.sh

bench: $(STAMP)  ## measure what is promised, into benchmarks/results.json
	$(PY) benchmarks/run.py

bench-data: $(STAMP)  ## measure our order of the data beside those of others, in .venv-bench (10 minutes; QUICK=1: two)
	@tools/venv_bench.sh
	PYTHONPATH=$(CURDIR) .venv-bench/bin/python benchmarks/data/compare.py $(if $(QUICK),--quick)

golden: $(STAMP)  ## rewrite stored examples of file formats and rendered files; the diff is for review
	PYTHONPATH=tests $(PY) tests/formats/make_v1.py
	PYTHONPATH=tests $(PY) -m support.golden_order
	PYTHONPATH=tests $(PY) -m support.engines
	$(PY) patches/make_patches.py

torture: $(STAMP)  ## kill random processes of the running example 200 times; nothing may differ (half an hour)
	$(PY) -B tests/torture.py

fuzz: $(STAMP)  ## throw bytes at all that reads files of others, with atheris where it installs (2 minutes)
	@tools/fuzz.sh

model:  ## check with spin that the protocol loses and mixes nothing, whoever dies when (2 minutes)
	@tools/model.sh
