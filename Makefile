# Two commands do everything on a fresh machine: `make demo` and `make test`. Both set up .venv themselves.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PORT ?= 0
ROLES ?= --role prefill=cpu:0/openvino --role decode=cpu:1/onnxruntime

.PHONY: demo test check bench tokens setup clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt torch==2.13.0
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[torch,openvino,onnxruntime,dev]'
	touch $(STAMP)

demo: setup
	@PYTHONUNBUFFERED=1 exec $(BIN)/inlay serve demo/target $(ROLES) --name inlay-demo --port $(PORT) \
	  --ask "What does os.path.join do?"

test: setup
	$(BIN)/python -m pytest tests

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest tests/unit -m "not slow"
	$(BIN)/python docs/check.py

tokens: setup
	$(BIN)/python -m pytest tests/integration/test_same_tokens.py --all-models -s

bench: setup
	$(BIN)/python benchmarks/serving.py
	$(BIN)/python benchmarks/step_time.py

clean:
	rm -rf $(VENV) build dist
