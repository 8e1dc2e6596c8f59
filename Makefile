# Two commands do everything in a private .venv: `make demo` and `make test`.
# They need Python >= 3.10 with venv, a C++17 compiler and make; nvcc is used when it is on PATH.
.PHONY: help demo test emulated-test gpu gpu-sanitize kernel-usage check lint format types bench evidence report asan clean
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
OUT ?= demo-out
# One GPU architecture is enough to try things; wheels are built for all (CMakeLists.txt).
export CUDAARCHS ?= 90

help:
	@echo "make demo    build, then run the whole story on real data into ./$(OUT) (about two minutes)"
	@echo "make test    build, then run all tests"
	@echo "make check   lint, formatting and types"
	@echo "make bench   benchmarks into benchmarks/results/, then the README's tables"
	@echo "make evidence   the range test beside other packages' finders on real tasks, once (about 10 minutes of one core)"
	@echo "make asan    the Python tests under AddressSanitizer and UBSan"
	@echo "make emulated-test   the CUDA side on the host, without a GPU"
	@echo "make gpu     on a machine with a GPU: build, test and measure in the current Python environment"
	@echo "make gpu-sanitize    after it: some of the tests under compute-sanitizer"

# The environment is made anew when what goes into it changes: requirements, build files, C++ sources.
SOURCES := $(shell find cpp -type f) CMakeLists.txt pyproject.toml constraints.txt
$(VENV)/installed: $(SOURCES)
	$(PYTHON) -c 'import sys; sys.exit("thalweg needs Python 3.10 or newer, this is " + sys.version.split()[0]) if sys.version_info < (3, 10) else None'
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt "torch>=2.10"
	$(RUN) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	touch $@

demo: $(VENV)/installed
	$(RUN) -m thalweg demo --out $(OUT)

test: $(VENV)/installed emulated-test
	$(RUN) -m pytest

# The CUDA side compiled for the host (tests/emulation): what its kernels and tables compute, without a GPU.
emulated-test: $(VENV)/installed
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" cmake --preset emulated -DPython_EXECUTABLE=$(CURDIR)/$(RUN) \
	  -Dpybind11_DIR="$$($(RUN) -m pybind11 --cmakedir)"
	cmake --build --preset emulated --parallel 2
	THALWEG_TEST_MODULES=$(CURDIR)/build/emulated $(RUN) -m pytest tests/cuda tests/unit/test_benchmarks_gpu.py -q

# No .venv and no network: the machines that have GPUs bring their own torch. GPU_OPTIONS go to benchmarks/gpu.py
# (--quick); with OUT in the environment, results and the tests' log are copied there.
gpu:
	$(PYTHON) benchmarks/run_gpu.py $(GPU_OPTIONS)

gpu-sanitize:
	$(PYTHON) benchmarks/run_gpu.py sanitize

# Registers, shared memory, stack and spills of every kernel; needs nvcc, no GPU.
kernel-usage: $(VENV)/installed
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" cmake --preset cuda -DTHALWEG_INPLACE=OFF -DPython_EXECUTABLE=$(CURDIR)/$(RUN) \
	  -Dpybind11_DIR="$$($(RUN) -m pybind11 --cmakedir)"
	$(RUN) benchmarks/kernel_usage.py build/cuda

lint: $(VENV)/installed
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(VENV)/bin/clang-format --dry-run --Werror $$(find cpp tests/emulation -name '*.[ch]pp' -o -name '*.cu' -o -name '*.cuh' )

types: $(VENV)/installed
	$(RUN) -m mypy

check: lint types

format: $(VENV)/installed
	$(RUN) -m ruff check --fix --quiet . || true
	$(RUN) -m ruff format --quiet .
	$(VENV)/bin/clang-format -i $$(find cpp tests/emulation -name '*.[ch]pp' -o -name '*.cu' -o -name '*.cuh' )

# One package whose planes are compared has compiled dependencies that nothing else needs; it goes into a folder of its own.
LANDSCAPER := build/landscaper
$(LANDSCAPER)/installed: $(VENV)/installed
	$(RUN) -m pip install --quiet --no-deps --only-binary :all: --target $(LANDSCAPER) landscaper==1.3.1 gudhi==3.13.0 \
	  topopy==1.0.4 nglpy==1.1.7 treelib==1.8.0 coloraide==8.13.1 drawsvg==2.4.2 pandas python-dateutil six tzdata \
	  || echo "landscaper cannot be installed here; its rows will be missing"
	mkdir -p $(LANDSCAPER) && touch $@

bench: $(VENV)/installed $(LANDSCAPER)/installed
	$(RUN) benchmarks/run.py
	$(RUN) benchmarks/report.py

# The finders of other packages go into a folder of their own, without what they depend on: torch stays as it is. What
# fastai and Lightning need to be imported is named; fastprogress 1.0.3 is the last one that needs no web framework.
PEERS := build/peers
$(PEERS)/installed:
	$(RUN) -m pip install --quiet --no-deps --target $(PEERS) torch-lr-finder==0.2.2 pytorch-ignite==0.5.5 \
	  pytorch-lightning==2.6.6 lightning-utilities torchmetrics fastai==2.8.12 fastcore fastprogress==1.0.3 fastdownload \
	  fasttransform plum-dispatch beartype rich pygments markdown-it-py mdurl cloudpickle pandas python-dateutil six tzdata \
	  requests urllib3 idna certifi charset-normalizer
	touch $@

evidence: $(VENV)/installed $(PEERS)/installed
	$(RUN) benchmarks/evidence_lr_range.py --peers $(PEERS) --out build/lr_range_evidence.json
	cp build/lr_range_evidence.json benchmarks/results/
	$(RUN) benchmarks/report.py

report: $(VENV)/installed
	$(RUN) benchmarks/report.py

# The modules go into build/asan and stand in for the installed ones through THALWEG_TEST_MODULES (tests/conftest.py).
asan: $(VENV)/installed
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" cmake --preset asan -DPython_EXECUTABLE=$(CURDIR)/$(RUN)
	cmake --build --preset asan --parallel 2
	LD_PRELOAD="$$(c++ -print-file-name=libasan.so) $$(c++ -print-file-name=libstdc++.so)" \
	ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=halt_on_error=1 \
	THALWEG_TEST_MODULES=$(CURDIR)/build/asan OMP_NUM_THREADS=2 \
	$(RUN) -m pytest -m "not slow and not subprocess" -q

clean:
	rm -rf $(VENV) build $(OUT)
