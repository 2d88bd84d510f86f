"""Figures and the run report; needs the extra `plot`."""
