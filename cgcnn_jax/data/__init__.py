"""Crystals to graphs: numpy and pymatgen on the host, no jax."""
