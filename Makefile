# `make demo` and `make test` do everything from a clean clone, each making its environment first.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
OPEN_CLIP := open_clip_torch==3.3.0 timm==1.0.31 torchvision==0.29.1 ftfy==6.3.1 regex wcwidth

.PHONY: demo test check docs format soak wheel lowest image-steps notebooks open-clip licences clean

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(VENV)/.installed
	$(BIN)/unicross demo

# A worker for each core, so one thread each. `pytest tests/test_x.py` runs a file by itself.
test: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses=auto --dist=loadgroup

check: $(VENV)/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# The site of the documents, in build/site; a broken link is an error.
docs: $(VENV)/.installed
	$(BIN)/mkdocs build --strict

format: $(VENV)/.installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Half an hour of indexing, serving, searching, kills and full disks; see tests/soak.py.
soak: $(VENV)/.installed
	$(BIN)/python tests/soak.py --minutes 30

# The wheel, built and installed alone into a fresh environment: PYTHON=python3.13 make wheel
wheel:
	PYTHON=$(PYTHON) .ci/wheel

# What the Dockerfile does, in a plain shell.
image-steps:
	tests/image_steps.sh

# A quick part of the tests against the oldest releases that pyproject.toml admits. Warnings about what those
# releases will change are not errors here.
lowest: .venv-lowest/.installed
	.venv-lowest/bin/pytest -W default tests/test_cli.py tests/test_store.py tests/test_search.py tests/test_export.py tests/test_serve.py

.venv-lowest/.installed: pyproject.toml constraints-lowest.txt
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/pip install --quiet --constraint constraints-lowest.txt --editable '.[fast,photos,check,s3,gcs,lora,onnx,serve,milvus,tensorboard,report]' milvus-lite pytest hypothesis httpx2
	touch $@

# Both notebooks, executed; `python tests/notebooks.py --write` keeps their outputs.
notebooks: $(VENV)/.installed
	$(BIN)/python tests/notebooks.py

# Pairs against open_clip itself, with CLIP's real vocabulary, which comes with it; a skipped test is an error here.
# torchvision, which it needs, has no CPU build on PyPI and stays out of the environment.
open-clip: $(VENV)/.installed
	$(BIN)/pip install --quiet --upgrade --no-deps --target build/open_clip $(OPEN_CLIP)
	PYTHONPATH=build/open_clip:tests OMP_NUM_THREADS=1 $(BIN)/pytest -p torchvision_ops -rs --junit-xml=build/open_clip.xml tests/test_model_open_clip.py tests/test_model_pairs.py
	grep -q 'skipped="0"' build/open_clip.xml

# The licence of every installed package, as the packages say it.
licences: $(VENV)/.installed
	$(BIN)/python tests/licences.py

clean:
	rm -rf $(VENV) .venv-lowest runs build dist .pytest_cache .mypy_cache .ruff_cache
