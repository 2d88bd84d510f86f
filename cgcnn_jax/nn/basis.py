"""Bond lengths as feature vectors."""

import math

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array


def gaussian_basis(distances: Array, *, cutoff: float, spacing: float) -> Array:
    r"""Expands bond lengths in Gaussians on an even grid.

    u_k = exp(-(d - mu_k)^2 / spacing^2),  mu_k = 0, spacing, ..., up to cutoff.
    Adjacent Gaussians cross at exp(-1/4) = 0.78: the grid has no blind spots.

    Args:
      distances: Bond lengths in Å, [n_edge]. Padding may hold any finite value.
      cutoff: Centre of the last Gaussian in Å.
      spacing: Grid spacing and width in Å.

    Returns:
      Bond features u, [n_edge, 1 + floor(cutoff / spacing)].

    Raises:
      ValueError: If not 0 < spacing < cutoff.

    Source: released CGCNN code (8 Å, 0.2 Å -> 41 features); the paper's supplement bins distances, see binned_basis.
    """
    if not 0 < spacing < cutoff:
        raise ValueError(f"need 0 < spacing < cutoff, got spacing={spacing} Å and cutoff={cutoff} Å")
    # 8 / 0.2 is 39.999... in some arithmetic; a grid that reaches the cutoff ends on it.
    centers = jnp.asarray(spacing * np.arange(1 + math.floor(cutoff / spacing + 1e-6)), distances.dtype)
    return jnp.exp(-jnp.square((distances[:, None] - centers[None, :]) / spacing))


def binned_basis(distances: Array, *, low: float, high: float, num_bins: int) -> Array:
    r"""One-hot distance bins of equal width.

    u_k = 1 for k = floor(num_bins (d - low) / (high - low)), 0 else. Shorter bonds count to the first bin and longer
    ones to the last: a bond that exists is in some category.

    Args:
      distances: Bond lengths in Å, [n_edge].
      low: Lower edge of the first bin, Å.
      high: Upper edge of the last bin, Å.
      num_bins: Number of bins.

    Returns:
      Bond features u, [n_edge, num_bins].

    Raises:
      ValueError: If not low < high.

    Source: the paper's supplement: ten categories from 0.7 to 5.2 Å.
    """
    if not low < high:
        raise ValueError(f"need low < high, got {low} Å and {high} Å")
    index = jnp.floor((distances - low) * (num_bins / (high - low))).astype(jnp.int32)
    return nn.one_hot(jnp.clip(index, 0, num_bins - 1), num_bins, dtype=distances.dtype)


def reciprocal_basis(distances: Array, *, shortest: float, cutoff: float, num_gaussians: int) -> Array:
    r"""Expands reciprocal bond lengths in Gaussians on an even grid.

    u_k = exp(-((1/d - mu_k) / s)^2),  mu_k = 1/cutoff + k s,  s = (1/shortest - 1/cutoff) / (num_gaussians - 1).
    A Gaussian is s d^2 wide in d: fine where bonds are short and strong, coarse where they are long and many. Bonds
    outside the range count as those at its ends: a bond that exists is seen, and padding of length 0 is no 1/0.

    Args:
      distances: Bond lengths in Å, [n_edge]. Padding may hold any finite value.
      shortest: Distance of the last Gaussian in Å.
      cutoff: Distance of the first Gaussian in Å.
      num_gaussians: Number of Gaussians.

    Returns:
      Bond features u, [n_edge, num_gaussians].

    Raises:
      ValueError: If not 0 < shortest < cutoff, or there are fewer than two Gaussians.

    Source: the energy-like -c/d of PotNet (Lin et al., 2023) and ComFormer (Yan et al., 2024). The factor c scales grid
    and widths alike, so it drops out of u.
    """
    if not 0 < shortest < cutoff:
        raise ValueError(f"need 0 < shortest < cutoff, got shortest={shortest} Å and cutoff={cutoff} Å")
    if num_gaussians < 2:
        raise ValueError(f"need at least 2 Gaussians to span a range, got {num_gaussians}")
    spacing = (1 / shortest - 1 / cutoff) / (num_gaussians - 1)
    centers = jnp.asarray(1 / cutoff + spacing * np.arange(num_gaussians), distances.dtype)
    reciprocal = 1 / jnp.clip(distances, shortest, cutoff)
    return jnp.exp(-jnp.square((reciprocal[:, None] - centers[None, :]) / spacing))


class GaussianBasis(nn.Module):
    """`gaussian_basis` with its settings."""

    cutoff: float = 8.0
    spacing: float = 0.2

    def __call__(self, distances: Array) -> Array:
        return gaussian_basis(distances, cutoff=self.cutoff, spacing=self.spacing)


class BinnedBasis(nn.Module):
    """`binned_basis` with its settings."""

    low: float = 0.7
    high: float = 5.2
    num_bins: int = 10

    def __call__(self, distances: Array) -> Array:
        return binned_basis(distances, low=self.low, high=self.high, num_bins=self.num_bins)


class ReciprocalBasis(nn.Module):
    """`reciprocal_basis` with its settings."""

    shortest: float = 0.7
    cutoff: float = 8.0
    num_gaussians: int = 128

    def __call__(self, distances: Array) -> Array:
        return reciprocal_basis(distances, shortest=self.shortest, cutoff=self.cutoff, num_gaussians=self.num_gaussians)


Basis = GaussianBasis | BinnedBasis | ReciprocalBasis
