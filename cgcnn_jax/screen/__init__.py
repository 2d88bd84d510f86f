"""Screening: predictions for any number of structures, by many workers, that survives what happens to them."""
