"""Entry points; `python -m experiments.NAME --help` lists the flags of each."""
