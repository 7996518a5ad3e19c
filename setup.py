"""Builds the C core with cffi (API mode); everything else is said in pyproject.toml."""

from setuptools import setup

setup(cffi_modules=["vmkernel_core/core_build.py:ffibuilder"])
