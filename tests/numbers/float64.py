"""Value and gradient of this library's float32 against an independent function of float64 numbers."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

# Of float32: the largest relative error of one rounding.
ULP = 2.0**-24
# Central differences of float64 numbers of order 1: the error of the formula (STEP^2) and that of rounding (1e-16 / STEP)
# are both below 1e-9, a hundredth of an ULP.
STEP = 1e-5

Tree = Any


def as_float64(tree: Tree) -> Tree:
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree)


def central_differences(function: Callable[[Tree], float], at: Tree) -> Tree:
    """The gradient of a function of a tree of float64 arrays, entry by entry."""
    leaves, shape = jax.tree.flatten(as_float64(at))
    found = []
    for leaf in leaves:
        gradient = np.empty_like(leaf)
        for place in np.ndindex(leaf.shape):
            kept, ends = leaf[place], []
            for sign in (1, -1):
                leaf[place] = kept + sign * STEP
                ends.append(function(jax.tree.unflatten(shape, leaves)))
            leaf[place] = kept
            gradient[place] = (ends[0] - ends[1]) / (2 * STEP)
        found.append(gradient)
    return jax.tree.unflatten(shape, found)


def errors(found: Tree, expected: Tree) -> dict[str, float]:
    """For each leaf the largest error in ULPs of its largest number."""
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    named = jax.tree_util.tree_leaves_with_path(expected)
    return {
        jax.tree_util.keystr(path): float(np.abs(np.asarray(mine, np.float64) - leaf).max() / np.abs(leaf).max() / ULP)
        for (path, leaf), mine in zip(named, jax.tree.leaves(found), strict=True)
        if np.abs(leaf).max() > 0
    }


def check(
    ours: Callable[[Tree], jax.Array],
    reference: Callable[[Tree], np.ndarray],
    at: Tree,
    *,
    terms: int,
    seed: int = 0,
) -> None:
    """Compares value and gradient of the same formula, in float32 and in float64.

    The gradient is that of <out, upstream> with random numbers upstream. A number that is a sum of n terms is right to
    n roundings of the largest; each of a few operations on the way adds as much, so 8 n ULP of the largest number of an
    array are admitted: with n = 50 some 1e-5.

    Args:
      ours: A tree of arrays -> an array.
      reference: The same of float64 arrays.
      at: Where.
      terms: How many numbers the longest of the sums adds.
    """
    expected = reference(as_float64(at))
    upstream = np.random.default_rng(seed).normal(size=expected.shape)

    def with_value(tree: Tree) -> tuple[jax.Array, jax.Array]:
        out = ours(tree)
        return (out * upstream.astype(np.float32)).sum(), out

    gradient, value = jax.jit(jax.grad(with_value, has_aux=True))(at)
    slope = central_differences(lambda tree: float((reference(tree) * upstream).sum()), at)
    off = errors({"value": value, "gradient": gradient}, {"value": expected, "gradient": slope})
    assert len(off) > 1 and max(off.values()) < 8 * terms, off
