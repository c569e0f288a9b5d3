# `make smoke` and `make test` do all their own set-up.
PY := .venv/bin/python
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help install smoke test lint lock docs evidence claims images

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install:  ## set up .venv with the pinned packages (PYTHON=... picks the interpreter)
	@bash scripts/setup.sh

smoke: install  ## train two small tasks with two seeds each, then draw the figures
	$(PY) sweeps/launch.py suite=smoke seeds=2 cluster=local
	$(PY) analysis/make_figures.py
	@echo "Figures: $(CURDIR)/paper_figures"
	@ls -1 paper_figures/*.png paper_figures/*.pdf

# One thread per worker (their number: tests/conftest.py). Bytecode is kept for the many processes.
test: install  ## run the test suite, all but what is marked slow
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(PY) -m pytest -m "not slow" -n auto --dist loadgroup --durations 20

lint: install  ## check style, formatting and types
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

docs: install  ## build the documentation site in build/site, without network access
	@NO_MKDOCS_2_WARNING=1 DISABLE_MKDOCS_2_WARNING=true $(PY) -m mkdocs build --quiet --strict
	@echo "Documentation: $(CURDIR)/build/site/index.html"

evidence: install  ## write the tables and the figure of docs/evidence.md and README.md from the recorded runs
	$(PY) analysis/evidence.py recorded=true page=docs/evidence.md readme=README.md
	$(PY) analysis/make_figures.py recorded=true only=evidence out=build/evidence
	cp build/evidence/evidence.png docs/images/evidence.png

claims: install  ## write docs/claims.md and the table in README.md from the recorded runs
	$(PY) analysis/claims.py recorded=true out=docs/claims.md readme=README.md

images: install  ## draw the other figures of README.md and docs/ from the recorded runs and the released curves
	$(PY) analysis/make_figures.py runs=paper_figures/recorded/smoke published=none only=learning_curves out=build/images
	$(PY) analysis/make_figures.py recorded=true only=fig4 out=build/images
	cp build/images/learning_curves.png docs/images/smoke.png
	cp build/images/fig4.png docs/images/published_fig4.png

lock:  ## remake requirements/*.lock with uv (UPGRADE=1 takes newer versions)
	@UPGRADE=$(UPGRADE) bash scripts/lock.sh
