"""Eight devices take the steps of one with every pool; every convolution with the mean is in tests/train/test_parallel.py."""

import json

import numpy as np
import pytest

from cgcnn_jax.nn.pool import POOLS

PROGRAM = """
    import json, os, sys
    os.environ["XLA_FLAGS"] += " --xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    import jax, numpy as np
    from tests.train.conftest import build

    def ends(problem):
        fitted = problem.run()
        weights = {"params": fitted.state.weights.params, "stats": fitted.state.weights.batch_stats}
        named = jax.tree_util.tree_leaves_with_path(weights | {"values": fitted.values})
        return {jax.tree_util.keystr(path): np.asarray(leaf, float).ravel().tolist() for path, leaf in named}

    # Plain descent: Adam scales up the rounding of gradients that are zero but for it.
    descent = {"name": "sgd", "learning_rate": 0.02}
    found = {}
    for count in (1, 8):
        settings = {"epochs": 2, "batch_size": 7, "devices": count}
        for pool in json.loads(sys.argv[1]):
            layers = {"crystal_layers": 0, "atom_layers": 1} if pool == "site" else {}
            found[f"{pool} {count}"] = ends(build(model={"pool": pool} | layers, settings=settings, optimizer=descent))
    print(json.dumps(found))
"""


@pytest.mark.slow
def test_eight_devices_take_the_steps_of_one_with_every_pool(on_devices):
    pools = [name for name in POOLS if name != "mean"]
    found = json.loads(on_devices(8, PROGRAM, json.dumps(pools)).splitlines()[-1])
    assert len(found) == 2 * len(pools)
    for name in {key.rsplit(" ", 1)[0] for key in found}:
        one, eight = found[f"{name} 1"], found[f"{name} 8"]
        assert one.keys() == eight.keys()
        for leaf in one:
            # Six steps, each to the rounding of sums in another order.
            np.testing.assert_allclose(one[leaf], eight[leaf], rtol=5e-5, atol=5e-6, err_msg=f"{name} {leaf}")
