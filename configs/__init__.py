"""Experiment configurations: base.py holds every field, each other file changes a few."""

import importlib
from pathlib import Path

from ml_collections import ConfigDict


def named(name: str) -> ConfigDict:
    """The configuration of a file here and, after a colon, its preset: band_gap, or band_gap:best.

    Raises:
      ValueError: If there is no such file or preset, listing what there is.
    """
    file, _, preset = name.partition(":")
    known = sorted(path.stem for path in Path(__file__).parent.glob("[!_]*.py"))
    if file not in known:
        raise ValueError(f"unknown property {file!r}; choose one of {', '.join(known)}")
    return importlib.import_module(f"configs.{file}").get_config(preset or None)
