"""How programs are compiled in tests of what stands around them: networks this small compile for longer than they compute.

The numbers are tested elsewhere, with the programs that users have.
"""

import functools
import os

import jax

# The way of earlier releases of XLA to write fusions, which compiles in half the time; later ones have dropped it.
_WAY = {"xla_cpu_use_fusion_emitters": False}


@functools.cache
def compiler_options() -> dict[str, bool]:
    """Of jax.jit: those that compile faster, where this release has them."""
    try:
        jax.jit(lambda: 0, compiler_options=_WAY)()
    except jax.errors.JaxRuntimeError:
        return {}
    return _WAY


def quick() -> dict[str, str]:
    """The variables that are to a process of its own what the fixture quicker_compiling is to pytest's."""
    flags = [f"--{name}={str(value).lower()}" for name, value in compiler_options().items()]
    return {
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "XLA_FLAGS": " ".join([os.environ.get("XLA_FLAGS", ""), *flags]).strip(),
    }
