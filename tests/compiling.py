"""How programs are compiled in tests of what stands around them: networks this small compile for longer than they compute.

The numbers are tested elsewhere, with the programs that users have.
"""

import contextlib
import functools
import os
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

import jax

from cgcnn_jax import predict
from cgcnn_jax.train import loop

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


def quick_jit(function: Callable[..., Any]) -> Any:
    """jax.jit that does so for one program."""
    # What jax_disable_most_optimizations stands for.
    unoptimized = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
    return jax.jit(function, compiler_options=unoptimized | compiler_options())


@contextlib.contextmanager
def without_optimizations() -> Iterator[None]:
    """Compiles so in this process."""
    # jax does not tell apart what was compiled with and without them, and another process would round in another way.
    _forget_programs()
    jax.config.update("jax_disable_most_optimizations", True)
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", False)
        _forget_programs()


def _forget_programs() -> None:
    jax.clear_caches()
    # What is kept there was made by the jax.jit of its time, patched or not.
    loop.programs.cache_clear()
    predict.compiled_for.cache_clear()


@contextlib.contextmanager
def the_faster_way() -> Iterator[None]:
    """Compiles without optimisations and with `compiler_options`; not for populations, whose programs are parts of one."""
    # jax has no options for a part of a program.
    with without_optimizations(), patch("jax.jit", functools.partial(jax.jit, compiler_options=compiler_options())):
        yield


@contextlib.contextmanager
def the_way_of_populations() -> Iterator[None]:
    """Among tests that compile in `the_faster_way`, for one of a population."""
    with patch("jax.jit", getattr(jax.jit, "func", jax.jit)):
        yield


def quick() -> dict[str, str]:
    """The variables that make all of that of a process of its own."""
    flags = [f"--{name}={str(value).lower()}" for name, value in compiler_options().items()]
    return {
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "XLA_FLAGS": " ".join([os.environ.get("XLA_FLAGS", ""), *flags]).strip(),
    }
