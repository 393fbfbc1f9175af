"""Packaging hook; everything is in setup.cfg."""

from setuptools import setup

setup()
