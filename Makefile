# SPDX-License-Identifier: Apache-2.0
# Every target sets up .venv by itself. Another interpreter: make test PYTHON=python3.12 (after make clean).

PYTHON ?= python3
PHOTOS ?= ../shared/data/fox
REFERENCE ?= images/0022.jpg
TARGET ?= images/0073.jpg
REFERENCE_CONTEXT ?= images/002*.jpg
TARGET_CONTEXT ?= images/007*.jpg
CAMERAS ?= cameras.json

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
FIGURE := build/demo/bridge.png

# A sourced ROS puts its own packages and pytest plugins in front of those in .venv.
unexport PYTHONPATH PYTHONHOME

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help test lint demo clean photos

help: ## list these targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 14

test: $(READY) ## run every test
	$(BIN)/python -m pytest -q --durations=5

lint: $(READY) ## style, types, and which module may import which
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_architecture.py

demo: photos $(READY) ## the pose between two photographs, with a figure (PHOTOS=folder)
	@mkdir -p $(dir $(FIGURE))
	$(BIN)/pose_bridge estimate "$(PHOTOS)/$(REFERENCE)" "$(PHOTOS)/$(TARGET)" \
	    --reference-context "$(PHOTOS)/$(REFERENCE_CONTEXT)" --target-context "$(PHOTOS)/$(TARGET_CONTEXT)" \
	    --cameras "$(PHOTOS)/$(CAMERAS)" --budget 60 --figure $(FIGURE)

clean: ## remove .venv and everything that was built
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find pose_bridge tests -name __pycache__ -type d -prune -exec rm -rf {} +

photos:
	@test -f "$(PHOTOS)/$(REFERENCE)" && test -f "$(PHOTOS)/$(TARGET)" || { echo "There is no $(PHOTOS)/$(REFERENCE) with\
	 $(TARGET): give your own photographs with make demo PHOTOS=folder REFERENCE=a.jpg TARGET=b.jpg\
	 REFERENCE_CONTEXT='near_a*.jpg' TARGET_CONTEXT='near_b*.jpg' CAMERAS=cameras.json." >&2; exit 2; }

# The stamp is touched last, so a failed installation is tried again.
$(READY): setup.py pyproject.toml
	@command -v "$(PYTHON)" >/dev/null || { echo "There is no $(PYTHON) here: apt install python3 python3-venv," \
	    "or name an interpreter with PYTHON=..." >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "pose_bridge needs Python 3.10 or" \
	    "newer and $(PYTHON) is older: apt install python3.11 python3.11-venv, then add PYTHON=python3.11" >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON) cannot make a virtual environment: apt" \
	    "install $$("$(PYTHON)" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')" >&2; exit 1; }
	@echo "Setting up $(VENV); the first time takes a minute or two."
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || "$(PYTHON)" -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet --no-input --disable-pip-version-check -e '.[test,dev]' </dev/null
	@touch $@
