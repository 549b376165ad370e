# Every target is one of the README's commands; `make` alone lists them.
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
METAKD := $(BIN)/metakd
DATA ?= data
OPTIONS ?=

.DEFAULT_GOAL := help
.PHONY: help install peers bench demo cifar-fs cifar-fs-learners cifar-fs-teaching transfer cifar-fs-efficientnet maml maml-full test test-all check lint format type notebooks report clean
.DELETE_ON_ERROR:
.SECONDARY:

help:  ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /|/' | column -t -s '|'

# --- set-up --------------------------------------------------------------------------------------

install: $(VENV)/.installed  ## Make the environment in .venv, unless it is there

# torch and torchvision are taken together: a pair of different builds does not import
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,benchmarks,pretrained]'
	@touch $@

# learn2learn 0.2.0 builds on Python 3.11 only where its Cython files are compiled anew, and imports gym
peers: install  ## The libraries that benchmarks compare with; needs a C compiler
	$(BIN)/python -m pip install --quiet --constraint constraints.txt gym
	$(BIN)/python -m pip install --quiet --no-deps --config-settings=--build-option=build_ext learn2learn==0.2.0

# --- runs ----------------------------------------------------------------------------------------
# A run is complete when its final.ckpt is there; one that was stopped goes on from its last.ckpt.
# OPTIONS are added to every training, for instance OPTIONS=--trainer.max_time=00:00:14:00 on a slower machine.

trained = runs/$(1)/latest/checkpoints/final.ckpt
tested = runs/$(1)/latest/results.jsonl

demo: install  ## Teacher, meta-distillation, test and result table on synthetic images, in minutes
	$(METAKD) fit --config configs/experiment/single_task_synthetic_teacher.yaml
	$(METAKD) fit --config configs/experiment/meta_kd_synthetic_5w5s.yaml
	$(METAKD) test --ckpt_path runs/meta_kd_synthetic_5w5s/latest/checkpoints/final.ckpt
	$(METAKD) report --folder runs/meta_kd_synthetic_5w5s.test

# The main table: a teacher, a start, four students from it for the same time, and their tests.
TEACHER := $(call trained,single_task_cifar_fs_teacher)
START := $(call trained,single_task_cifar_fs_start)
PLAIN := single_task_cifar_fs_plain
ALONE := meta_kd_cifar_fs_5w5s_alone
CONSTANT := meta_kd_cifar_fs_5w5s_constant
GATE := meta_kd_cifar_fs_5w5s_match_gate
ROWS := $(PLAIN) $(ALONE) $(CONSTANT) $(GATE)
TAUGHT := $(CONSTANT) $(GATE)

$(foreach row,$(ROWS),$(call trained,$(row))): $(START)
$(foreach row,$(TAUGHT),$(call trained,$(row))): $(TEACHER)

runs/%/latest/checkpoints/final.ckpt: | install
	$(METAKD) fit --resume --config configs/experiment/$*.yaml --data.source.root=$(DATA) $(OPTIONS)

# $(call a_test,row,how,shots,config,further options)
define a_test
TESTS += runs/table/$(2)_$(3)shot/$(1)/latest/results.jsonl
runs/table/$(2)_$(3)shot/$(1)/latest/results.jsonl: $(TEACHER) $(call trained,$(1))
	$(METAKD) test --runs=runs/table/$(2)_$(3)shot --experiment=$(1) --config configs/experiment/$(4).yaml \
	--model.initialisation.checkpoint=$(call trained,$(1)) --data.k_shot=$(3) --data.source.root=$(DATA) $(5)
endef

EVALUATE := meta_kd_cifar_fs_5w5s_evaluate
FINE_TUNE := meta_kd_cifar_fs_5w5s_fine_tune
$(CONSTANT)_TEACHES := --model.teacher_at_test=true --model.loss=configs/loss/match_gate_constant.yaml
$(GATE)_TEACHES := --model.teacher_at_test=true --model.loss=configs/loss/match_gate_per_sample.yaml \
	--model.initialisation.strategy_file=runs/$(GATE)/latest/strategy.safetensors
$(foreach shots,1 5,$(foreach row,$(ROWS), \
	$(eval $(call a_test,$(row),evaluate,$(shots),$(EVALUATE))) \
	$(eval $(call a_test,$(row),fine_tune,$(shots),$(FINE_TUNE)))) \
	$(foreach row,$(TAUGHT),$(eval $(call a_test,$(row),with_teacher,$(shots),$(FINE_TUNE),$($(row)_TEACHES)))))

cifar-fs: $(TESTS)  ## The main table on real CIFAR-FS (DATA=folder of images), resumable
	$(METAKD) report --folder runs/table --baseline $(PLAIN) --output README.md --section cifar-fs

# The learners' table: no teacher, one start, each learner trained for the same time, tested as it adapts.
NEAREST_MEAN := meta_kd_cifar_fs_5w5s_alone
LEARNED := $(foreach learner,alone ridge anil reptile,meta_kd_cifar_fs_5w5s_$(learner))
$(foreach row,$(LEARNED),$(call trained,$(row))): $(START)
# at the rate of its training some episodes of one image a class lead Reptile to infinity; the better of two on validation
meta_kd_cifar_fs_5w5s_reptile_1SHOT := --model.learner.init_args.inner_lr=0.02

# $(call a_learner_test,row,experiment trained,configuration of the test,shots,further options)
define a_learner_test
LEARNER_TESTS += runs/learners/$(4)shot/$(1)/latest/results.jsonl
runs/learners/$(4)shot/$(1)/latest/results.jsonl: $(call trained,$(2))
	$(METAKD) test --runs=runs/learners/$(4)shot --experiment=$(1) --config configs/experiment/$(3).yaml \
	--model.initialisation.checkpoint=$(call trained,$(2)) --data.k_shot=$(4) --data.n_query=15 --data.n_episodes=2000 \
	--data.source.root=$(DATA) $(5)
endef

$(foreach shots,1 5, \
	$(eval $(call a_learner_test,$(PLAIN),$(PLAIN),$(NEAREST_MEAN),$(shots))) \
	$(eval $(call a_learner_test,$(PLAIN)_logistic,$(PLAIN),$(NEAREST_MEAN),$(shots),--model.learner=configs/learner/logistic.yaml)) \
	$(foreach row,$(LEARNED),$(eval $(call a_learner_test,$(row),$(row),$(row),$(shots),$($(row)_$(shots)SHOT)))))

cifar-fs-learners: $(LEARNER_TESTS)  ## The learners' table on real CIFAR-FS, resumable
	$(METAKD) report --folder runs/learners --baseline $(PLAIN) --output README.md --section cifar-fs-learners

# Ways of teaching: one student over cached embeddings, two teachers, three seeds, controls.
cifar-fs-teaching: $(TEACHER) $(foreach run,teacher_wrn start start_held_out,$(call trained,single_task_cifar_fs_$(run)))  ## Ways of teaching on real CIFAR-FS, resumable
	$(METAKD) precompute --config configs/experiment/meta_kd_cifar_fs_teaching.yaml --data.source.source.root=$(DATA)
	$(BIN)/python -m benchmarks.teaching --data $(DATA)
	$(METAKD) report --folder runs/teaching --baseline KD --controls KD_logit_standardisation \
	--output README.md --section cifar-fs-teaching
	$(BIN)/python -m benchmarks.teaching --table held_out --data $(DATA)
	$(METAKD) report --folder runs/held_out --baseline KD --controls KD_logit_standardisation \
	--output README.md --section cifar-fs-held-out
	$(BIN)/python -m benchmarks.teaching --table unseen --data $(DATA)
	$(METAKD) report --folder runs/unseen --baseline KD --output README.md --section cifar-fs-unseen

# Strategies of rows above, carried to another student, other teachers and other tasks.
TASKS := cifar_fs_teacher_wrn fc100_teacher omniglot_teacher
transfer: cifar-fs-teaching $(foreach task,$(TASKS),$(call trained,single_task_$(task)))  ## Learned strategies on other tasks, resumable
	$(BIN)/python -m benchmarks.transfer --data $(DATA)
	$(METAKD) report --folder runs/transfer --baseline constant --output README.md --section transfer

# A teacher that was trained on ImageNet, and reads images in its own way.
LITE0 := meta_kd_cifar_fs_5w5s_efficientnet
cifar-fs-efficientnet: $(call trained,$(LITE0))  ## EfficientNet-Lite0 as a teacher on real CIFAR-FS, resumable
	for shots in 1 5; do $(METAKD) test --runs=runs/$(LITE0).test --experiment=$(LITE0) \
	--config configs/experiment/$(LITE0).yaml --ckpt_path=$(call trained,$(LITE0)) \
	--data.k_shot=$$shots --data.source.root=$(DATA) || exit 1; done
	$(METAKD) report --folder runs/$(LITE0).test --output README.md --section cifar-fs-efficientnet

maml: install  ## MAML beside an independent implementation, 2,000 meta-steps each; hours, resumable
	$(BIN)/python -m benchmarks.maml_against_higher --steps 2000 --data $(DATA) --output README.md

maml-full: install  ## MAML as published, 60,000 meta-steps; a day and a half on a CPU core, resumable
	$(METAKD) fit --resume --config configs/experiment/meta_kd_cifar_fs_5w5s_maml.yaml --data.source.root=$(DATA)

bench: peers  ## Speed and memory beside other libraries, for benchmarks/README.md; 40 minutes on two quiet cores
	$(BIN)/python -m benchmarks.steps --output benchmarks/README.md --summary README.md
	$(BIN)/python -m benchmarks.data --data $(DATA) --output benchmarks/README.md
	$(BIN)/python -m benchmarks.scaling --output benchmarks/README.md
	$(BIN)/python -m benchmarks.output_cache --output benchmarks/README.md

# --- checks --------------------------------------------------------------------------------------

test: install  ## The default test suite
	$(BIN)/python -m pytest -q -n 2 --dist worksteal

test-all: install  ## Slow tests too
	$(BIN)/python -m pytest -q -m '' -n 2 --dist worksteal

check: lint type test  ## Everything that a change must pass

lint: install  ## Style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: install  ## Rewrite to the style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

type: install  ## Types
	$(BIN)/mypy

notebooks: install  ## Execute the notebooks; the results lie in runs/notebooks
	mkdir -p runs/notebooks
	for notebook in notebooks/*.ipynb; do \
	  $(BIN)/jupyter execute --output=$(CURDIR)/runs/$$notebook $$notebook || exit 1; done

report: install  ## Table of all results under runs/
	$(METAKD) report

clean:  ## Remove what tests and builds left behind; runs stay
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis dist build *.egg-info
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
