# Two commands on a fresh machine:  make demo   and   make test
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-browser lint slow docs site clean

demo: $(VENV)/.package
	$(BIN)/posteriori demo --out demo

# mypy keeps one processor busy for minutes on a fresh machine and runs beside the tests; either's failure is a failure.
test: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	@$(BIN)/mypy > $(VENV)/mypy.log 2>&1 & types=$$!; \
	echo "mypy, beside: OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal"; \
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal; tests=$$?; \
	wait $$types; types=$$?; cat $(VENV)/mypy.log; \
	test $$tests -eq 0 && test $$types -eq 0

# Pages in a real browser: Debian's chromium, or the one that CHROMIUM names. Skipped where there is none.
test-browser: $(VENV)/.browser
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m browser -rs tests/report

slow: $(VENV)/.dev
	$(BIN)/python -m pytest -m slow

docs: $(VENV)/.package
	$(BIN)/posteriori methods --markdown --scores docs/results/exact.json > docs/methods.md
	$(BIN)/posteriori problem-file > docs/problem-file.md

# build/site/html/index.html; a warning is an error. Nothing is fetched when the pages are read.
site: $(VENV)/.site
	OMP_NUM_THREADS=1 $(BIN)/python docs/site/build.py build/site

lint: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(VENV)/.package: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e .
	touch $@

$(VENV)/.dev: $(VENV)/.package
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

$(VENV)/.site: $(VENV)/.package
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[docs]'
	touch $@

$(VENV)/.browser: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[browser]'
	touch $@

clean:
	rm -rf $(VENV) demo build/site .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
