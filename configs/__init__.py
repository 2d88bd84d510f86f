"""Experiment configurations: base.py holds every field, each other file changes a few."""
