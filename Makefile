# `make test` and `make demo` do all of their set-up, also on a fresh Debian machine. What is done stays done.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# To build the core.
BUILD := gcc libc6-dev python3-dev python3-venv
# To run devices, to name them, to make disks, and what the tests compare with.
PACKAGES := qemu-system-x86 pci.ids qemu-utils fdisk e2fsprogs \
	binutils xz-utils zstd kmod iproute2 iputils-ping busybox-static openssl \
	libiscsi7 libiscsi-bin tgt pciutils usbutils udev umockdev gir1.2-umockdev-1.0 python3-gi libusb-1.0-0 chromium
# The Debian kernels whose drivers the tests run.
KERNELS := 6.1 6.12

CORE := setup.py pyproject.toml vmkernel_core/core_build.py $(wildcard vmkernel_core/*.[ch] vmklinux/*.[ch])

.PHONY: setup check test demo bench clean

setup: $(VENV)/installed $(VENV)/packages
	for release in $(KERNELS); do $(BIN)/vmk kernel fetch $$release || exit; done

check: $(VENV)/installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

# Tests wait for links and timers more than they compute, so more of them run at a time than there are cores.
test: check setup
	$(BIN)/pytest -n 4 --dist loadgroup

demo: $(VENV)/installed
	tools/demo $(BIN)/vmk

bench: $(VENV)/installed $(VENV)/packages
	$(BIN)/vmk kernel fetch
	$(BIN)/python -m bench
	$(BIN)/python -m bench.nics
	$(BIN)/python -m bench.storage
	$(BIN)/python -m bench.iscsi
	$(BIN)/python -m bench.hcl

clean:
	rm -rf $(VENV) build dist *.egg-info vmkernel_core/_core.*
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .benchmarks
	find . -name __pycache__ -prune -exec rm -rf {} +

$(VENV)/packages: Makefile tools/apt-install
	tools/apt-install $(PACKAGES)
	mkdir -p $(VENV)
	touch $@

$(VENV)/installed: $(CORE) tools/apt-install
	tools/apt-install $(BUILD) || ! command -v dpkg-query  # elsewhere than on Debian the compiler has to be there
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[test]'
	touch $@
