"""Crystal graphs to numbers: jax and flax.linen, no pymatgen."""
