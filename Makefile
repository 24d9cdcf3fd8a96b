# Every command installs what it needs: a virtual environment in .venv, and, below the cache folder of the user, a real
# etcd, kube-apiserver and registry.  Nothing is installed on the system.
.DEFAULT_GOAL := help
SHELL := /bin/bash
BIN := .venv/bin
PYTHON_RUN := $(BIN)/python

.PHONY: help venv demo up down test test-fast test-slow bench chaos soak lint format crds docs check-generated lock clean release docs-site

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

venv:  ## Make or update the virtual environment
	@dev/bootstrap.sh

demo: venv  ## Show the operator at work on a real control plane with a real private registry, then clean up
	@$(PYTHON_RUN) -m dev.demo

up: venv  ## Start control plane, registry and operator, and leave them running to play with
	@$(PYTHON_RUN) -m dev.up start

down: venv  ## Stop what `make up` started
	@$(PYTHON_RUN) -m dev.up stop

test: venv  ## Run the tests, on the real control plane (about a quarter of an hour; longer the first time)
	@$(PYTHON_RUN) -m pytest -m "not slow" $(ARGS)

test-fast: venv  ## Run the tests that need no control plane (about a minute)
	@$(PYTHON_RUN) -m pytest -m "not cluster and not slow" $(ARGS)

test-slow: venv  ## Run the tests that take a minute or more each: faults, crash points, outages, memory, upgrade
	@$(PYTHON_RUN) -m pytest -m slow $(ARGS)

bench: venv  ## Measure regcred against a bare client (QUICK=1: under 5 minutes; BASE=file: compare with an earlier run)
	@$(PYTHON_RUN) -m dev.bench $(if $(QUICK),--mode quick) $(if $(BASE),--base $(BASE)) $(ARGS)

chaos: venv  ## Do everything to the operator that a cluster does (ONLY=name, QUICK=1, WRITE=1: into docs/reliability.md)
	@$(PYTHON_RUN) -m dev.chaos $(ONLY) $(if $(QUICK),--quick) $(if $(WRITE),--write) $(ARGS)

soak: venv  ## Run for an hour under churn, kills and outages (MINUTES=60, SEED=n)
	@$(PYTHON_RUN) -m dev.soak $(if $(MINUTES),--minutes $(MINUTES)) $(ARGS)

lint: venv  ## Check style, types and layers
	@$(BIN)/ruff format --check --quiet . || { echo "run make format"; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

format: venv  ## Format the code
	@$(BIN)/ruff format --quiet .
	@$(BIN)/ruff check --quiet --fix .

crds: venv  ## Generate crds/ from the models
	@$(PYTHON_RUN) -m regcred.api.crd --write crds

docs: venv  ## Generate what restates the code: reference pages, dashboard, chart files
	@$(PYTHON_RUN) -m dev.docs --write
	@$(PYTHON_RUN) -m dev.dashboard --write
	@$(PYTHON_RUN) -m dev.chart --write

check-generated: venv  ## Check that generated files are current
	@$(PYTHON_RUN) -m regcred.api.crd --check crds
	@$(PYTHON_RUN) -m dev.docs --check
	@$(PYTHON_RUN) -m dev.dashboard --check
	@$(PYTHON_RUN) -m dev.chart --check

release: venv  ## Make wheel, sdist, image build context, manifests, chart, bill of materials and checksums into dist/
	@$(PYTHON_RUN) -m dev.release

docs-site: venv  ## Build the documentation as a web site into build/site
	@NO_MKDOCS_2_WARNING=1 PYTHONPATH=. $(BIN)/mkdocs build --strict --quiet --clean

lock: venv  ## Renew the locked requirements
	@uv=$$(command -v uv || echo .tool/bin/uv); \
	flags="--quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --upgrade"; \
	$$uv pip compile $$flags pyproject.toml -o requirements.txt && \
	$$uv pip compile $$flags pyproject.toml --group dev -o requirements-dev.txt && \
	printf 'checkov\nkubernetes-validate\n' | $$uv pip compile $$flags - -o requirements-linters.txt && \
	echo 'hatchling>=1.25' | $$uv pip compile $$flags - -o requirements-build.txt

clean:  ## Remove what the commands made in this folder
	rm -rf .venv .tool .run build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
