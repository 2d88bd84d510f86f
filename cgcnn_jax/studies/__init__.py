"""Whole studies of the paper, each from its crystals to tables, pictures and a report."""
