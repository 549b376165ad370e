# `make` alone lists the targets.
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
METAKD := $(BIN)/metakd
DATA ?= data
OPTIONS ?=
CALLS_CHECKED := --jaxtyping-packages=lightning_metakd,beartype.beartype

.DEFAULT_GOAL := help
.PHONY: help install peers bench demo cifar-fs cifar-fs-learners cifar-fs-teaching transfer cifar-fs-efficientnet maml maml-full intents continual label-efficiency domains kinds-of-teachers meta-kd wrong-labels wrong-support where-it-pays specialists two-domains misled-gates wide-teachers plain-conv4 published zoo learned-optimiser test test-thorough test-all check lint format type notebooks docs report clean
.DELETE_ON_ERROR:

help:  ## List the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /|/' | column -t -s '|'

# --- set-up --------------------------------------------------------------------------------------

install: $(VENV)/.installed  ## Make the environment in .venv, unless it is there

# torch and torchvision are taken together: a pair of different builds does not import
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,benchmarks,pretrained,text]'
	@touch $@

# learn2learn 0.2.0 builds on Python 3.11 only where its Cython files are compiled anew, and imports gym
peers: install  ## The libraries that benchmarks compare with; needs a C compiler
	$(BIN)/python -m pip install --quiet --constraint constraints.txt gym
	$(BIN)/python -m pip install --quiet --no-deps --config-settings=--build-option=build_ext learn2learn==0.2.0

# --- runs ----------------------------------------------------------------------------------------
# Experiments leave alone what is complete and resume what was stopped. OPTIONS=--dry-run prints what is left;
# other OPTIONS go to every training, for instance --trainer.max_time=00:00:14:00 on a slower machine.

demo: install  ## Learning where four labels in ten are wrong: seven rows, and a page to look at; 4 to 7 minutes
	$(METAKD) demo

cifar-fs: install  ## The main table on real CIFAR-FS (DATA=folder of images)
	$(BIN)/python -m experiments.main_table --data $(DATA) $(OPTIONS)

cifar-fs-learners: install  ## The learners' table on real CIFAR-FS
	$(BIN)/python -m experiments.learners --data $(DATA) $(OPTIONS)

cifar-fs-teaching: install  ## Ways of teaching on real CIFAR-FS: two teachers, three seeds, controls
	$(BIN)/python -m experiments.teaching --data $(DATA) $(OPTIONS)

transfer: install  ## Learned strategies carried to other students, teachers and tasks
	$(BIN)/python -m experiments.transfer --data $(DATA) $(OPTIONS)

cifar-fs-efficientnet: install  ## EfficientNet-Lite0, trained on ImageNet, as a teacher on real CIFAR-FS
	$(BIN)/python -m experiments.efficientnet --data $(DATA) $(OPTIONS)

maml: install  ## MAML beside an independent implementation, 2,000 meta-steps each; hours, resumable
	$(BIN)/python -m experiments.maml_against_higher --steps 2000 --data $(DATA) --output docs/results/maml.md

maml-full: install  ## MAML as published, 60,000 meta-steps; a day and a half on a CPU core, resumable
	$(METAKD) fit --resume --config configs/experiment/meta_kd_cifar_fs_5w5s_maml.yaml --data.source.root=$(DATA)

intents: install  ## Students of texts, alone and taught by MiniLM, on CLINC150 and BANKING77 (DATA=folder)
	$(BIN)/python -m experiments.intents --data $(DATA) $(OPTIONS)

continual: install  ## CIFAR-100 as a stream of ten tasks, seven ways to keep what was learned (DATA=folder of images)
	$(BIN)/python -m experiments.continual --data $(DATA) $(OPTIONS)

label-efficiency: install  ## Accuracy by labels a class on 20 new classes, from three starts (DATA=folder of images)
	$(BIN)/python -m experiments.label_efficiency --data $(DATA) $(OPTIONS)

domains: install  ## Students of photographs and drawn characters, beside students of one of them
	$(BIN)/python -m experiments.domains --data $(DATA) $(OPTIONS)

kinds-of-teachers: install  ## Names of classes, and a network that adapts to the task, as teachers on real CIFAR-FS
	$(BIN)/python -m experiments.kinds_of_teachers --data $(DATA) $(OPTIONS)

meta-kd: install  ## Teachers, a strategy meta-trained over tasks, and its use on another task (DATA=folder of images)
	$(BIN)/python -m experiments.three_stages --data $(DATA) $(OPTIONS)

zoo: install  ## The networks that come with the package: trained where they are missing, and tested (DATA=folder of images)
	$(BIN)/python -m experiments.zoo --data $(DATA) $(OPTIONS)

wrong-labels: install  ## A gate for each row learned under wrong labels and carried to other classes, beside its rivals
	$(BIN)/python -m experiments.wrong_labels --data $(DATA) $(OPTIONS)
	$(if $(OPTIONS),,$(BIN)/python -m experiments.carried_gates --data $(DATA))

where-it-pays: install  ## The regret of one learned run to the best that one could have chosen, by regime
	$(BIN)/python -m experiments.regimes --data $(DATA) $(OPTIONS)
	$(if $(OPTIONS),,$(BIN)/python -m experiments.gate_reading --data $(DATA))
	$(if $(OPTIONS),,$(BIN)/python -m experiments.gate_horizon --data $(DATA))

wrong-support: install  ## Class means that count support rows by how far student and teacher believe their labels
	$(BIN)/python -m experiments.wrong_support --data $(DATA) $(OPTIONS)

specialists: install  ## A student of teachers that know a quarter of its classes each, beside rules and single teachers
	$(BIN)/python -m experiments.specialists --data $(DATA) $(OPTIONS)

two-domains: install  ## A student of photographs and characters with a teacher for each, and whom it learns to believe
	$(BIN)/python -m experiments.two_domains --data $(DATA) $(OPTIONS)

misled-gates: install  ## What misleads a gate of two domains, and whether what mends it does harm elsewhere
	$(BIN)/python -m experiments.misled_gates --data $(DATA) $(OPTIONS)

wide-teachers: install  ## ResNet-12 as published, trained on a GPU, and what it teaches a plain Conv4-64
	$(BIN)/python -m experiments.wide_teachers --data $(DATA) $(OPTIONS)

plain-conv4: install  ## A plain Conv4-64 trained for long, taught or not, beside published ones
	$(BIN)/python -m experiments.plain_conv4 --data $(DATA) $(OPTIONS)

published: install  ## Published learners from scratch for a part of their length, beside the published numbers
	$(BIN)/python -m experiments.published --data $(DATA) $(OPTIONS)

learned-optimiser: install  ## A learned update rule beside the best step sizes of SGD and Adam (DATA=folder of images)
	$(BIN)/python -m experiments.learned_optimiser --output docs/results/learned-optimiser.md --data $(DATA)

bench: peers  ## Speed and memory beside other libraries, for benchmarks/README.md; an hour on two quiet cores
	$(BIN)/python -m benchmarks.steps --output benchmarks/README.md --summary docs/results/speed.md
	$(BIN)/python -m benchmarks.data --data $(DATA) --output benchmarks/README.md
	$(BIN)/python -m benchmarks.scaling --output benchmarks/README.md
	$(BIN)/python -m benchmarks.processes --output benchmarks/README.md
	$(BIN)/python -m benchmarks.output_cache --output benchmarks/README.md
	$(BIN)/python -m benchmarks.training --data $(DATA) --output benchmarks/README.md
	$(BIN)/python -m benchmarks.start_up --output benchmarks/README.md

# --- checks --------------------------------------------------------------------------------------

test: install  ## The default test suite
	$(BIN)/python -m pytest -q -n 2 --dist worksteal

test-thorough: install  ## The longer tests too, with shapes and types of every call checked; 7 minutes
	$(BIN)/python -m pytest -q -n 2 --dist worksteal -m 'not slow and not gpu' $(CALLS_CHECKED)

test-all: install  ## Slow tests too
	$(BIN)/python -m pytest -q -n 2 --dist worksteal -m '' $(CALLS_CHECKED)

check: lint type test-thorough  ## Everything that a change must pass

lint: install  ## Style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: install  ## Rewrite to the style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

type: install  ## Types
	$(BIN)/mypy

notebooks: install  ## Execute the notebooks (DATA=folder of images); with their pictures they lie in runs/notebooks
	mkdir -p runs/notebooks
	export METAKD_DATA="$${METAKD_DATA:-$(abspath $(DATA))}"; \
	for notebook in notebooks/*.py; do \
	  $(BIN)/jupytext --quiet --to ipynb --execute --output runs/$${notebook%.py}.ipynb $$notebook || exit 1; done

docs: install  ## The site, in runs/site; a link that leads nowhere fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "open runs/site/index.html"

report: install  ## Table of all results under runs/, and runs/report.html to look at
	$(METAKD) report --html runs/report.html

clean:  ## Remove what tests and builds left behind; runs stay
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis dist build *.egg-info
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
