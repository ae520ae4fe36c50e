# Every target sets up what it needs: .venv with the pinned dependencies and the compiled extension.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
NATIVE := $(shell find csrc -type f \( -name '*.c*' -o -name '*.h*' \) 2>/dev/null)

# Relative, so that a checkout may lie under a path with spaces. Both names: newer pip reads the second for the isolated
# build environment (cmake, ninja, pybind11), older pip the first.
export PIP_CONSTRAINT := constraints.txt
export PIP_BUILD_CONSTRAINT := constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# OpenMP threads that wait then sleep instead of spinning: on a busy machine a spinning torch makes tests 30 times slower.
export OMP_WAIT_POLICY := PASSIVE

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install demo test test-all test-csrc sanitize lint types format clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 12

install: $(STAMP) ## make .venv with the pinned dependencies and build the extension

$(STAMP): pyproject.toml setup.py constraints.txt CMakeLists.txt $(NATIVE)
	@echo "Setting up .venv and building the extension: a minute or two the first time."
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet torch
	$(BIN)/python -m pip install --quiet --editable '.[test,dev]'
	@# Without what they ask for (torchvision, wandb, clip, ...): the tests need their samplers, which need none of it.
	$(BIN)/python -m pip install --quiet --no-deps k-diffusion azula
	touch $@

demo: $(STAMP) ## 64 samples from 5,000 real digits, each evaluation checked; writes out/demo
	$(BIN)/geodiff demo --out out/demo

# One process a core, each with one thread of its own where a test does not ask for more. Tests of one file share what
# they set up, so they stay together, and the longest files begin (tests/conftest.py).
PARALLEL := -n $(or $(JOBS),auto) --dist loadfile --no-loadscope-reorder

test: $(STAMP) test-csrc ## the test suite without the heavy tests, C++ tests included; JOBS=N: on N processes
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -m "not heavy" $(PARALLEL)

test-all: $(STAMP) test-csrc ## the whole test suite
	$(BIN)/pytest -q

# doctest is one header: the system's, the one that DOCTEST_INCLUDE=FOLDER has, or Debian's package, unpacked in build/.
# Without any of them the C++ tests are left out, with a word about it; in CI that is an error.
FIND_DOCTEST = for at in "$(DOCTEST_INCLUDE)" /usr/include "$(CURDIR)/build/doctest/usr/include"; do \
	if test -f "$$at/doctest/doctest.h"; then echo "$$at"; break; fi; done
test-csrc: $(STAMP) ## the C++ tests of the CPU core, on every instruction set of this machine and emulated ones
	@if test -z "$$($(FIND_DOCTEST))"; then mkdir -p build/doctest && cd build/doctest && \
		{ apt-get -qq download doctest-dev || { apt-get -qq update && apt-get -qq download doctest-dev; }; } >/dev/null 2>&1 && \
		dpkg -x doctest-dev*.deb . || true; fi
	@at="$$($(FIND_DOCTEST))"; if test -n "$$at"; then \
		$(BIN)/cmake -S tests/csrc -B build/csrc -DCMAKE_BUILD_TYPE=Release -DDOCTEST_INCLUDE="$$at" >/dev/null && \
		$(BIN)/cmake --build build/csrc --parallel $(or $(MAX_JOBS),2) --target geodiff_tests && build/csrc/geodiff_tests; \
	else echo "test-csrc: left out: no doctest.h (install doctest-dev, or set DOCTEST_INCLUDE)"; test -z "$$CI"; fi

# A copy of the package with an instrumented core, so that the installed one stays as it is. The leak check is off: it sees
# the interpreter's own. Every kernel runs on every instruction set of this machine.
sanitize: $(STAMP) ## the kernel tests under AddressSanitizer and UndefinedBehaviorSanitizer
	rm -rf build/sanitize
	GEODIFF_CUDA=OFF CMAKE_ARGS=-DGEODIFF_SANITIZE=ON $(BIN)/python -m pip install --quiet --no-deps --target build/sanitize .
	LD_PRELOAD="$$(g++ -print-file-name=libasan.so) $$(g++ -print-file-name=libubsan.so)" \
	ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
	$(BIN)/pytest -q -o pythonpath=build/sanitize tests/denoiser

lint: $(STAMP) types ## ruff, mypy, import-linter and clang-format, changing nothing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(if $(NATIVE),$(BIN)/clang-format --dry-run --Werror $(NATIVE),@echo "clang-format: no sources in csrc")

# In a copy in which kernels/ lies where it is installed: both tools read folders, not installed packages.
types: $(STAMP) ## mypy, and that imports point one way
	rm -rf build/typed && mkdir -p build/typed
	cp -Rp geodiff build/typed && cp -Rp kernels build/typed/geodiff
	cd build/typed && ../../$(BIN)/mypy --config-file ../../pyproject.toml geodiff
	cd build/typed && PYTHONPATH=. ../../$(BIN)/lint-imports --no-logo ../../pyproject.toml

format: $(STAMP) ## let ruff and clang-format rewrite the sources
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(if $(NATIVE),$(BIN)/clang-format -i $(NATIVE))

clean: ## remove what was built, .venv included
	rm -rf .venv build dist out geodiff.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .benchmarks
	find geodiff -name '*.so' -delete
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
