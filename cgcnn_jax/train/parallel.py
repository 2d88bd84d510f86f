"""The devices that share every batch, on one host or on many, and what the hosts' processes tell each other.

Every device holds the state and takes a share of each batch; sums of losses, counts and gradients are added over the
devices, so that N devices take the step that one takes, up to the rounding of sums in another order. The functions of
train.step are written for the share of one device, and `Devices.compile` runs them on all.
"""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from cgcnn_jax.nn.ops import sum_over_devices

AXIS = "devices"
WAYS: tuple[str, ...] = ("shard", "pmap")

T = TypeVar("T")


@dataclass(frozen=True)
class Devices:
    """The devices of a run.

    Attributes:
      devices: Those of all processes, in the order of their shares. The default device if there are none.
      way: How functions are spread over several: "shard" (jit of shard_map) or "pmap"; the numbers are the same.
    """

    devices: tuple[jax.Device, ...] = ()
    way: str = "shard"

    @classmethod
    def choose(cls, count: int = 0, way: str = "shard") -> "Devices":
        """The first `count` devices of every process, or all of them if it is 0.

        Raises:
          ValueError: If this process has fewer, or there is no such way.
        """
        if way not in WAYS:
            raise ValueError(f"unknown train.parallel {way!r}; choose one of {list(WAYS)}")
        here = jax.local_device_count()
        if count > here:
            raise ValueError(f"train.devices is {count}, but this process has {here}: {jax.local_devices()}")
        by_process: dict[int, list[jax.Device]] = {}
        for device in jax.devices():
            by_process.setdefault(device.process_index, []).append(device)
        return cls(tuple(device for _, own in sorted(by_process.items()) for device in own[: count or None]), way)

    @property
    def count(self) -> int:
        return max(1, len(self.devices))

    @property
    def axis_name(self) -> str | None:
        """The mapped axis inside compiled functions; None on one device, where nothing is mapped."""
        return AXIS if self.count > 1 else None

    @functools.cached_property
    def own(self) -> slice:
        """Which shares this process's devices take."""
        places = [n for n, device in enumerate(self.devices) if device.process_index == jax.process_index()]
        return slice(places[0], places[-1] + 1) if places else slice(0, 1)

    def compile(self, function: Callable[..., T], dealt: int, donate: int | None = None) -> Callable[..., T]:
        """Compiles a function of one device's share to run on all devices at once.

        Args:
          function: Its results must be the same on all devices, as sums over them are.
          dealt: Which argument was placed with `deal`; each device gets its share of it. All others are shared.
          donate: Which argument's memory the results may take.

        Returns:
          The function, to be called with all shares where it took one: [n, ...] before is [n, n_device, ...] now. On one
          device it is compiled as it is.
        """
        donated = () if donate is None else (donate,)
        if self.count == 1:
            return jax.jit(function, donate_argnums=donated)
        n_argument = len(inspect.signature(function).parameters)
        if self.way == "pmap":
            return jax.pmap(
                function,
                AXIS,
                in_axes=tuple(1 if n == dealt else None for n in range(n_argument)),
                out_axes=None,
                devices=self.devices,
                donate_argnums=donated,
            )

        @functools.wraps(function)  # profiles and logs of compilations name it
        def of_share(*arguments: Any) -> T:
            own = [jax.tree.map(lambda x: x[:, 0], a) if n == dealt else a for n, a in enumerate(arguments)]
            return function(*own)

        specs = tuple(self._dealt.spec if n == dealt else self._shared.spec for n in range(n_argument))
        on_all = jax.shard_map(of_share, mesh=self._mesh, in_specs=specs, out_specs=self._shared.spec)
        return jax.jit(on_all, donate_argnums=donated)

    def share(self, tree: T) -> T:
        """Places arrays, equal in all processes, on every device; those that lie there stay."""
        if self.count == 1:
            return jax.tree.map(jnp.asarray, tree)

        def place(leaf: Any) -> jax.Array:
            if isinstance(leaf, jax.Array) and leaf.sharding.is_equivalent_to(self._shared, leaf.ndim):
                return leaf
            values = np.asarray(leaf)
            return jax.make_array_from_callback(values.shape, self._shared, lambda index: values[index])

        return jax.tree.map(place, tree)

    def deal(self, tree: Any) -> Any:
        """Places the shares `own` of this process [n, len(own), ...] on its devices, one on each."""
        if self.count == 1:
            return jax.tree.map(lambda shares: jnp.asarray(shares[:, 0]), tree)
        if self.way == "pmap":
            return tree  # which places its arguments itself
        return jax.tree.map(functools.partial(jax.make_array_from_process_local_data, self._dealt), tree)

    def gather(self, own: jax.Array) -> jax.Array:
        """Inside a compiled function: what each device has, [n, ...] -> [n, n_device, ...] on all."""
        if self.count == 1:
            return own[:, None]
        everyone = jnp.zeros((own.shape[0], self.count, *own.shape[1:]), own.dtype)
        return sum_over_devices(everyone.at[:, jax.lax.axis_index(AXIS)].set(own), AXIS)

    @functools.cached_property
    def _mesh(self) -> Mesh:
        return Mesh(np.array(self.devices), (AXIS,), axis_types=(AxisType.Auto,))

    @property
    def _shared(self) -> NamedSharding:
        return NamedSharding(self._mesh, PartitionSpec())

    @property
    def _dealt(self) -> NamedSharding:
        return NamedSharding(self._mesh, PartitionSpec(None, AXIS))


def is_first_process() -> bool:
    """Whether this process is the only one or the first of several, which alone writes files."""
    return jax.process_index() == 0


def from_first_process(tree: T) -> T:
    """What the first process has, in all of them; arrays must have the same shapes everywhere."""
    if jax.process_count() == 1:
        return tree
    return multihost_utils.broadcast_one_to_all(tree)


def any_process(claim: bool) -> bool:
    """Whether it is true in one process at least."""
    if jax.process_count() == 1:
        return claim
    return bool(multihost_utils.process_allgather(np.array(claim)).any())
