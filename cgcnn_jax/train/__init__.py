"""Fitting a model: losses, metrics, optimizer, steps and the loop."""
