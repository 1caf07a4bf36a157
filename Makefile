# Needs make and Python 3.11, 3.12 or 3.13; everything else is installed into .venv.

fits = $(shell $(1) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && echo yes)
PYTHON ?= $(firstword $(foreach p,python3.12 python3.11 python3.13 python3,$(if $(call fits,$(p)),$(p),)))
PYTHON_VERSION := $(if $(call fits,$(PYTHON)),$(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])'))
# Sets of packages: `default` is TensorFlow 2.16 with tensorflow-io; `newest` TensorFlow 2.20 with
# NumPy 2, the only one for Python 3.13; `lowest` the lowest versions in setup.py.
SET ?= $(if $(filter 3.13,$(PYTHON_VERSION)),newest,default)
LOCK := requirements/$(SET).lock
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready-$(SET)-$(PYTHON_VERSION)
TESTS ?= not long
BACKENDS := .venv-backends
BACKENDS_NEEDS := requirements/backends.in
BROWSER := .venv-browser
BROWSER_NEEDS := requirements/browser.in
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
# Rooms whose tests take seconds. `make test` runs everything.
CHECK_TESTS := tests/test_architecture.py tests/test_readme.py tests/audio tests/config \
  tests/datasets tests/frontend tests/layers tests/utils \
  tests/rf/test_exact_graph.py tests/rf/test_exact_layers.py tests/rf/test_rho.py \
  tests/inference/test_frames.py tests/inference/test_stream.py
SBOM ?= sbom.cdx.json
PIP_AUDIT := pip-audit==2.10.1
TAG_ALONE := .venv-tag-alone
DIST_TOOLS := build==1.6.1 twine==7.0.0

BENCH_OUTPUT ?= benchmark_results
TORCH ?= torch==2.13.0
OPENVINO ?= openvino==2026.4.1
JAX ?= jax==0.10.2
# With glibc 2.35 or newer, pages of 2 MB make training faster (docs/performance.md).
HUGE_PAGES := GLIBC_TUNABLES=glibc.malloc.hugetlb=1

.PHONY: help setup train check test test-long lint docs bench soak fuzz next backends \
  test-browser mutants listed-mutants sbom audit dist tag-alone lock clean

help:
	@echo "make setup  .venv with the locked packages and rfkeras; PYTHON=python3.13 or SET=newest"
	@echo "            takes the newest packages instead, SET=lowest the lowest allowed versions"
	@echo "            (Python 3.11); VENV=FOLDER another folder. 'make test' takes the same"
	@echo "make train  train resnet_rf on the built-in data set, evaluate, export"
	@echo "make check  lint, type check and the quick tests: under 90 seconds"
	@echo "make test   lint, type check, all tests"
	@echo "make test-long  the tests of benchmarks and soak, which take minutes"
	@echo "make test-browser  the pages of 'rfkeras tag --html' and 'rfkeras export --to web' in"
	@echo "            headless Chromium, which must be on the PATH (Debian: apt-get install chromium)"
	@echo "make docs   build the documentation into site/"
	@echo "make bench  measure speed and memory against PyTorch and librosa; half an hour"
	@echo "make next   all but the slow tests on the newest packages, in .venv-newest"
	@echo "make backends  layers and networks on JAX and PyTorch, compared with TensorFlow"
	@echo "make mutants  break the code in 300 places: do the tests notice? An hour and a half"
	@echo "make listed-mutants  the faults that no test noticed once: four minutes"
	@echo "make soak   train for two hours and tag 5,000 files: is memory flat?"
	@echo "make fuzz   100,000 damaged files for the readers, 50,000 for the decoder; half an hour"
	@echo "make sbom   the bill of materials: the locked packages and bundled parts, $(SBOM)"
	@echo "make audit  check the locked packages for known vulnerabilities"
	@echo "make dist   build the wheel and the source distribution into dist/, and check them"
	@echo "make tag-alone  install rfkeras-tag into an empty environment, and tag a file with it"
	@echo "make lock   resolve the packages again into requirements/*.lock"

setup: $(READY)

# Another Python or another set of packages replaces what is in $(VENV).
$(READY): $(LOCK) setup.py
	@test -n "$(PYTHON_VERSION)" || { echo "Python 3.11, 3.12 or 3.13 is needed; set PYTHON=/path/to/python"; exit 1; }
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes -r $(LOCK)
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	$(BIN)/python -m pip check
	@touch $(READY)

train: setup
	$(HUGE_PAGES) $(BIN)/python train.py --model resnet_rf

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check: lint
	$(BIN)/python -m pytest -n 2 --dist loadscope -m "not slow and not long" $(CHECK_TESTS)

# The type stubs of the lowest versions have errors of their own.
test: $(if $(filter lowest,$(SET)),setup,lint)
	$(BIN)/python -m pytest -n 3 --dist loadscope --no-loadscope-reorder -m "$(TESTS)"

test-long: setup
	$(BIN)/python -m pytest -m long

docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Only the comparisons need PyTorch, OpenVINO and JAX, which does not work with the NumPy of the
# other sets.
bench: setup
	$(BIN)/python -m pip install --quiet $(TORCH) $(OPENVINO) $(if $(filter newest,$(SET)),$(JAX))
	$(BIN)/python -m benchmarks --output $(BENCH_OUTPUT) $(SECTIONS)

# Without TESTS, the slow tests run too, which takes twice as long.
next:
	$(MAKE) test SET=newest VENV=.venv-newest TESTS="not slow and not long"

# TensorFlow's outputs come from the usual environment: it has neither JAX nor PyTorch.
python_of = $(if $(filter tensorflow,$(1)),$(BIN),$(BACKENDS)/bin)/python
computed = KERAS_BACKEND=$(1) $(call python_of,$(1)) -m tests.helpers.backend_outputs
FRAMEWORKS := tensorflow jax torch
FRAMEWORK_FILES := $(FRAMEWORKS:%=$(BACKENDS)/%.keras)

backends: setup $(BACKENDS)/.ready
	$(foreach f,$(FRAMEWORKS),$(call computed,$(f)) $(BACKENDS)/$(f).npz &&) true
	$(foreach f,$(FRAMEWORKS),$(call computed,$(f)) --read $(BACKENDS)/$(f)_reads.npz $(FRAMEWORK_FILES) &&) true
	KERAS_BACKEND=jax RFKERAS_BACKEND_OUTPUTS=$(abspath $(BACKENDS)) \
	  $(BACKENDS)/bin/python -m pytest -p no:cacheprovider tests/layers/test_other_backends.py \
	  tests/tools/test_jax_batches.py tests/tools/test_growing_features.py \
	  tests/tools/test_train_on_jax.py tests/tools/test_sweep_on_jax.py
	$(foreach f,jax torch,$(BIN)/rfkeras export --model $(BACKENDS)/$(f).keras --to onnx --output $(BACKENDS)/$(f).onnx &&) true

$(BACKENDS)/.ready: $(BACKENDS_NEEDS)
	$(PYTHON) -m venv $(BACKENDS)
	$(BACKENDS)/bin/python -m pip install --quiet --extra-index-url $(TORCH_INDEX) \
	  -r $(BACKENDS_NEEDS)
	@touch $(BACKENDS)/.ready

test-browser: $(BROWSER)/.ready
	$(BROWSER)/bin/python -m pytest -p no:cacheprovider -rs tests/browser

$(BROWSER)/.ready: $(BROWSER_NEEDS)
	$(PYTHON) -m venv $(BROWSER)
	$(BROWSER)/bin/python -m pip install --quiet -r $(BROWSER_NEEDS)
	@touch $(BROWSER)/.ready

mutants: setup
	$(BIN)/python -m tools.mutants

listed-mutants: setup
	$(BIN)/python -m tools.mutants --listed

soak: setup
	$(BIN)/python -m benchmarks.soak --output $(BENCH_OUTPUT)/soak

fuzz: setup
	$(BIN)/python -m tests.robustness.fuzz --cases 100000
	$(BIN)/python -m tests.robustness.odd_files.mutate --files 50000 --tag 100

sbom: setup
	$(BIN)/python -m cyclonedx_py requirements --mc-type library --output-reproducible -o $(SBOM) $(LOCK)
	$(BIN)/python -m tools.bundled_parts $(SBOM)

# Strict: a package that could not be looked up is a failure, not a pass.
audit:
	$(PYTHON) -m venv .venv-audit
	.venv-audit/bin/python -m pip install --quiet $(PIP_AUDIT)
	.venv-audit/bin/pip-audit --strict --require-hashes --disable-pip -r $(LOCK)

# An old build/ would add its files to the wheel.
dist:
	rm -rf build dist rfkeras.egg-info
	$(PYTHON) -m venv .venv-dist
	.venv-dist/bin/python -m pip install --quiet $(DIST_TOOLS)
	.venv-dist/bin/python -m build --sdist --wheel --outdir dist .
	.venv-dist/bin/twine check --strict dist/*
	.venv-dist/bin/python tools/archives.py dist
	rm -rf build rfkeras.egg-info

tag-alone:
	rm -rf build rfkeras_tag.egg-info $(TAG_ALONE)
	$(PYTHON) -m venv $(TAG_ALONE)
	RFKERAS_DISTRIBUTION=rfkeras-tag $(TAG_ALONE)/bin/python -m pip install --quiet .
	cd $(TAG_ALONE) && bin/python -c "import soundfile; soundfile.write('a.wav', [0.1, -0.1] * 22050, 22050)"
	cd $(TAG_ALONE) && bin/rfkeras tag a.wav
	$(TAG_ALONE)/bin/python -c "import importlib.util as u; assert not u.find_spec('tensorflow')"
	rm -rf build rfkeras_tag.egg-info

# uv resolves for all versions of Python at once.
RESOLVE := uv pip compile --universal --python-version 3.11 --generate-hashes --no-annotate --no-header
lock:
	$(RESOLVE) setup.py --extra dev --extra tfio requirements/default.in -o requirements/default.lock
	$(RESOLVE) setup.py --extra dev requirements/newest.in -o requirements/newest.lock
	$(RESOLVE) --resolution lowest-direct setup.py --extra tfio --extra onnx --extra parquet \
	  --extra beam --extra serving --extra remote --extra tags --extra datasets --extra hub \
	  requirements/lowest.in -o requirements/lowest.lock

clean:
	rm -rf .venv .venv-newest .venv-lowest .venv-audit .venv-dist $(TAG_ALONE) $(BACKENDS) $(BROWSER) .mutants build dist *.egg-info
