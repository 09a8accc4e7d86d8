# Two commands do everything on a fresh machine: `make demo` and `make test`. Both set up .venv themselves.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PORT ?= 0
# Two processes of tests, each taking whole files: no more, for memory.
SIDE_BY_SIDE := -n 2 --dist loadscope
# Every role at two unlike places, where there are two cores; the scheduler chooses for each request.
ifeq ($(shell nproc),1)
ROLES ?= --role prefill,decode=cpu:0/openvino:paged --role draft=cpu:0/openvino
else
ROLES ?= --role prefill,decode=cpu:0/openvino:paged --role prefill,decode=cpu:1/onnxruntime --role draft=cpu:1/onnxruntime
endif

# Frameworks that clash with the main environment: `make environments`, or one of them, for example `make environment-iree`.
NAMES := $(patsubst environments/%.txt,%,$(filter-out environments/clients-%,$(wildcard environments/*.txt)))
# Clients that others wrote, each in an environment without inlay: `make clients`.
CLIENTS := $(patsubst environments/%.txt,%,$(wildcard environments/clients-*.txt))
HOMES := $(or $(INLAY_ENVIRONMENTS),.environments)

.PHONY: demo test check thorough tokens handoff overlap conformance reports suite text bench clients setup clean environments
.PHONY: $(NAMES:%=environment-%) $(NAMES:%=conformance-%)

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt torch==2.13.0
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[torch,openvino,onnxruntime,compiled,structured,dev]'
	touch $(STAMP)

environments: $(filter-out environment-peers,$(NAMES:%=environment-%))

$(NAMES:%=environment-%): environment-%: $(HOMES)/%/.installed

$(NAMES:%=$(HOMES)/%/.installed): $(HOMES)/%/.installed: environments/%.txt constraints.txt pyproject.toml
	$(PYTHON) -m venv $(HOMES)/$*
	$(HOMES)/$*/bin/pip install --quiet --requirement environments/$*.txt --editable .
	touch $@

$(CLIENTS:%=$(HOMES)/%/.installed): $(HOMES)/%/.installed: environments/%.txt constraints.txt
	$(PYTHON) -m venv $(HOMES)/$*
	$(HOMES)/$*/bin/pip install --quiet --requirement environments/$*.txt
	if [ -e environments/bare/$*.txt ]; then $(HOMES)/$*/bin/pip install --quiet --no-deps --requirement environments/bare/$*.txt; fi
	touch $@

demo: setup
	@PYTHONUNBUFFERED=1 exec $(BIN)/inlay serve demo/target $(ROLES) --draft-model demo/draft --name inlay-demo --port $(PORT) \
	  --ask "What does os.path.join do?"

test: check
	$(BIN)/python -m pytest tests/conformance tests/integration -m "not thorough and not alone" $(SIDE_BY_SIDE)
	$(BIN)/python -m pytest tests/integration -m "alone and not thorough"

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python docs/check.py
	$(BIN)/python -m pytest tests/unit -m "not alone and not thorough" $(SIDE_BY_SIDE)
	$(BIN)/python -m pytest tests/unit -m alone

# What `make test` leaves out for its length.
thorough: setup
	$(BIN)/python -m pytest tests/unit tests/conformance tests/integration -m thorough

# Each of these shows one claim of the README on this machine and prints what it measured.
tokens: setup
	$(BIN)/python -m pytest tests/integration/test_same_tokens.py tests/integration/test_layers_served.py --all-models -s

handoff: setup
	$(BIN)/python -m pytest tests/integration/test_handoff_is_real.py -s -v

overlap: setup
	$(BIN)/python -m pytest tests/integration/test_overlap.py -s

conformance: setup
	$(BIN)/python -m pytest tests/conformance -s

# The same suite in the environment of a framework that has one.
$(NAMES:%=conformance-%): conformance-%: environment-%
	$(HOMES)/$*/bin/python -m pytest tests/conformance -s -k $*

# ExecuTorch's own test suite against our backends; hours, takes up where it stopped.
suite: environment-executorch
	$(HOMES)/executorch/bin/python benchmarks/executorch_suite.py

# The signed reports that docs/reference/support.md is made of; hours on two cores.
reports: setup
	for backend in reference contrary openvino onnxruntime inductor; do \
	  $(BIN)/inlay conform $$backend --full -o docs/conformance/$$backend.json; done
	$(BIN)/python docs/generate.py

text: setup
	$(BIN)/python demo/train.py evaluate

bench: setup
	$(BIN)/python benchmarks/serving.py
	$(BIN)/python benchmarks/step_time.py
	$(BIN)/python benchmarks/paged.py
	$(BIN)/python benchmarks/memory.py

# openai-python is in `make test`; here are all, vLLM's benchmark client, guidellm, aiperf, lm-eval and two agent frameworks.
clients: setup $(CLIENTS:%=$(HOMES)/%/.installed)
	$(BIN)/python benchmarks/clients.py

clean:
	rm -rf $(VENV) .environments build dist
