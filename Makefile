# Every target is a verb; `make help` is made from the ## comments.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
LOCALSTACK := .venv-localstack
LOCALSTACK_STAMP := $(LOCALSTACK)/.installed
AUDIT := .venv-audit
AUDIT_STAMP := $(AUDIT)/.installed
PYTEST := $(BIN)/pytest

.DEFAULT_GOAL := help
.PHONY: help setup demo run test unit integration strict postgres stores export chaos proof image compose-demo compose-test helm-test lint types format generate helm-generate bench build wheel-test audit lock clean

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-13s %s\n", $$1, $$2}'

$(STAMP): requirements-dev.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "longshore needs Python 3.11 or newer, found $$($(PYTHON) --version); run: make PYTHON=python3.12 setup"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { echo "python3 -m venv does not work here; on Debian: apt-get install python3-venv"; exit 1; }
	@echo "installing Longshore and its locked dependencies into $(VENV) (once, about a minute) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --no-deps --require-hashes -r requirements-dev.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

$(LOCALSTACK_STAMP): requirements-localstack.lock
	@test -x $(LOCALSTACK)/bin/python || $(PYTHON) -m venv $(LOCALSTACK)
	@echo "installing LocalStack into $(LOCALSTACK) (once, 250 MB, a minute or two) ..."
	@$(LOCALSTACK)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements-localstack.lock
	@touch $@

$(AUDIT_STAMP): requirements-audit.lock
	@test -x $(AUDIT)/bin/python || $(PYTHON) -m venv $(AUDIT)
	@echo "installing the tools of the audit into $(AUDIT) (once, 200 MB, about a minute) ..."
	@$(AUDIT)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements-audit.lock
	@touch $@

setup: $(STAMP)  ## Make .venv with everything in it

demo: $(STAMP)  ## Watch 2,000 events travel topic -> queues -> handlers, and check the books
	@$(BIN)/longshore demo

run: $(STAMP)  ## Run the fleet of config/fleet.yaml on an embedded AWS until Ctrl-C
	@$(BIN)/longshore run --local

test: $(STAMP)  ## Run every test and print branch coverage
	@$(PYTEST) --cov

unit: $(STAMP)  ## Run the tests that need no server, in virtual time
	@$(PYTEST) tests/unit tests/conformance tests/property tests/architecture -m "not integration"

integration: $(STAMP) $(LOCALSTACK_STAMP)  ## Run the tests against LocalStack, PostgreSQL and Redis (apt-get install postgresql redis-server)
	@$(PYTEST) -m "strict or postgres or redis" tests/conformance
	@$(PYTEST) -m "strict or postgres or redis" --ignore tests/conformance

strict: $(STAMP) $(LOCALSTACK_STAMP)  ## Run the tests against LocalStack only
	@$(PYTEST) -m strict

postgres: $(STAMP)  ## Run the tests against PostgreSQL only (apt-get install postgresql)
	@$(PYTEST) -m postgres

stores: $(STAMP)  ## Run the tests of idempotency stores, on PostgreSQL and Redis too (apt-get install postgresql redis-server)
	@$(PYTEST) -m "postgres or redis or not strict" tests/conformance/test_store.py tests/chaos/test_once.py tests/chaos/test_store_trouble.py tests/integration/test_preflight.py

export: $(STAMP)  ## Lint the exported templates with cfn-lint and parse the Terraform
	@$(PYTEST) -m export

chaos: $(STAMP)  ## Kill, starve and blind the worker, at full dose
	@LONGSHORE_DOSE=full $(PYTEST) tests/chaos

proof: $(STAMP)  ## Prove that effects happen once and limits hold: 20,000 events, workers killed, on each store (apt-get install postgresql redis-server)
	@LONGSHORE_DOSE=full $(PYTEST) -q --no-header -m "postgres or redis or not strict" tests/chaos/test_once.py tests/chaos/test_fleet_limits.py

image:  ## Build the image, longshore:latest and longshore:VERSION (PYTHON_IMAGE names another base)
	@command -v docker >/dev/null || { echo "there is no docker command here; install Docker, or run the fleet without it: make run"; exit 1; }
	@version=$$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml); revision=$$(git rev-parse HEAD 2>/dev/null || echo unknown); \
	docker build $(if $(PYTHON_IMAGE),--build-arg PYTHON_IMAGE=$(PYTHON_IMAGE)) --build-arg VERSION=$$version --build-arg REVISION=$$revision \
	  --tag longshore:$$version --tag longshore:latest .

compose-demo:  ## Bring the compose file up with three workers, publish some hundred events, and check the books
	@deploy/compose-demo

compose-test: $(STAMP)  ## Build the image and run the compose file for real; root on Debian needs no engine and no registry
	@tests/compose/prepare
	@$(PYTEST) tests/compose -m compose

helm-test: $(STAMP)  ## Lint and render the Helm chart with Helm 3 and 4, and check what comes out
	@$(BIN)/python tests/helm/tools.py
	@$(PYTEST) tests/helm -m helm

lint: $(STAMP)  ## Check style, types, import layers, module sizes and generated files
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache
	@$(PYTEST) -q --no-header tests/architecture

types: $(STAMP)  ## Check the types
	@$(BIN)/mypy

format: $(STAMP)  ## Rewrite the code in the house's format
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

generate: $(STAMP)  ## Write the example config, its schema and the settings table anew
	@$(BIN)/python -m worker.settings.generate
	@$(BIN)/python -m worker.telemetry.reference > docs/reference/metrics.md

helm-generate: $(STAMP)  ## Write the chart's README and the fleet's part of its values schema anew
	@$(BIN)/python helm/generate.py

bench: $(STAMP)  ## Measure CPU per message (FIFO, batches and guards, too) and per event, planning, idle cost and start-up
	@$(BIN)/python -m benchmarks

build: $(STAMP)  ## Build the wheel and the source archive into dist/
	@$(BIN)/python -m build --no-isolation --outdir dist

wheel-test: $(STAMP)  ## Build the wheel, look into it, and begin a service with it outside of this folder
	@$(PYTEST) -m wheel

audit: $(STAMP) $(AUDIT_STAMP)  ## Bill of materials, known vulnerabilities, Dockerfiles, workflows
	@rm -rf $(AUDIT)/service && $(BIN)/longshore new service --directory $(AUDIT)/service > /dev/null
	@$(AUDIT)/bin/python .ci/audit.py $(AUDIT)/bin $(AUDIT)/service

lock: $(STAMP)  ## Resolve the dependencies anew (needs uv)
	@uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --no-emit-find-links --all-extras --group dev -o requirements-dev.lock pyproject.toml
	@uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --no-emit-find-links --extra uvloop --extra orders --extra postgresql --extra redis -c requirements-dev.lock -o requirements.lock pyproject.toml
	@uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --no-emit-find-links -c requirements-dev.lock -o requirements-build.lock requirements-build.in
	@uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --no-emit-find-links -o requirements-localstack.lock requirements-localstack.in
	@uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --no-emit-find-links -o requirements-audit.lock requirements-audit.in
	@uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --no-emit-find-links -o requirements-export.lock requirements-export.in

clean:  ## Remove everything that was built or installed
	@rm -rf $(VENV) $(LOCALSTACK) $(AUDIT) var dist build .pytest_cache .mypy_cache .ruff_cache .coverage htmlcov
