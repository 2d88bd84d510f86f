"""The presets' sizes, initial weights, dropout, and the errors of a model."""

import dataclasses

import jax
import numpy as np
import pytest

from cgcnn_jax.data import elements
from cgcnn_jax.graph import CrystalGraphs
from cgcnn_jax.nn.basis import BinnedBasis
from cgcnn_jax.nn.model import CGCNN, count_parameters, init_variables
from tests.networks import RELEASED

pytestmark = pytest.mark.usefixtures("quicker_compiling")
PAPER = dataclasses.replace(
    RELEASED, table_shape=(104, 93), conv="gated", num_convs=3, basis=BinnedBasis(), activate_pooled=False
)

BEST = dataclasses.replace(RELEASED, conv="gated_update")


def variables_of(model: CGCNN, seed: int = 0):
    return init_variables(model, seed, np.zeros(model.table_shape, np.float32))


def parameters_of(model: CGCNN) -> int:
    return count_parameters(jax.eval_shape(lambda: variables_of(model)))


def two_atoms() -> CrystalGraphs:
    """One crystal of two atoms with a bond each, and a padding graph."""
    return CrystalGraphs(
        species=np.array([11, 17, 0], np.int32),
        node_weight=np.array([1, 1, 0], np.float32),
        distances=np.array([2.8, 2.8], np.float32),
        edge_weight=np.array([6, 6], np.float32),
        senders=np.array([1, 0], np.int32),
        receivers=np.array([0, 1], np.int32),
        n_node=np.array([2, 1], np.int32),
        n_edge=np.array([2, 0], np.int32),
        graph_mask=np.array([True, False]),
        angles=np.zeros((2, 0), np.float32),
    )


def test_the_reference_preset_has_the_parameters_of_the_published_weights():
    # 92*64+64 + 4 * (169*128+128 + 2*128 + 2*64) + 64*32+32 + 32+1 with 169 = 2*64 + 41: the count of the .pth.tar.
    assert 92 * 64 + 64 + 4 * (169 * 128 + 128 + 256 + 128) + 64 * 32 + 32 + 33 == 96_641
    assert parameters_of(RELEASED) == 96_641


def test_the_paper_preset_has_61505_parameters():
    # Embedding 93*64+64 = 6016; 3 convolutions, z of 64+64+10 = 138: 2 * (138*64+64) = 17792 each; 64*32+32 = 2080; 33.
    assert 6016 + 3 * 17792 + 2080 + 33 == 61_505
    assert parameters_of(PAPER) == 61_505


def test_the_best_preset_has_196225_parameters():
    # z of 64+64+41 = 169. A convolution: 2 * (169*64+64 + 64*64) in gate and core, 64*128+128 and 128*64+64 at the
    # atom, and 4 * 2*64 to normalise.
    convolution = 2 * (169 * 64 + 64 + 64 * 64) + (64 * 128 + 128) + (128 * 64 + 64) + 4 * 128
    assert 92 * 64 + 64 + 4 * convolution + 64 * 32 + 32 + 33 == 196_225
    assert parameters_of(BEST) == 196_225


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        # From 61505: a site model has no hidden layer after pooling, its output is 64+1; two layers per atom of 64*64+64.
        ({"pool": "site", "crystal_layers": 0}, 61_505 - 2080 - 33 + 65),
        ({"pool": "site", "crystal_layers": 0, "atom_layers": 2}, 61_505 - 2080 - 33 + 65 + 2 * 4160),
        # A vote for each of the four layers 0 ... 3.
        ({"pool": "softmax"}, 61_505 + 4 * 4160),
        ({"crystal_layers": 2}, 61_505 + 32 * 32 + 32),
        ({"n_output": 3}, 61_505 + 2 * 33),
        # Four more matrices of 64*64 without bias, and three normalisations of 2*64, in each of three convolutions.
        ({"conv": "gated_mlp"}, 61_505 + 3 * (2 * 4096 + 3 * 128)),
    ],
    ids=str,
)
def test_layers_and_pools_have_the_parameters_worked_out_by_hand(changes, expected):
    assert parameters_of(dataclasses.replace(PAPER, **changes)) == expected


def test_presets_of_the_configuration_are_these_models():
    from cgcnn_jax.config import build_atom_table, build_model
    from configs.base import PRESETS, get_config

    expected = {"reference": RELEASED, "paper": PAPER, "best": BEST}
    assert set(PRESETS) == set(expected)
    for preset, model in expected.items():
        config = get_config(preset)
        assert build_model(config, build_atom_table(config).shape, 1) == model


def test_initial_weights_follow_torch():
    """Uniform in +-1/sqrt(fan_in): variance 1 / (3 fan_in), biases too."""
    for path, kernel in jax.tree_util.tree_leaves_with_path(variables_of(RELEASED)["params"]):
        if "kernel" not in jax.tree_util.keystr(path):
            continue
        fan_in = kernel.shape[0]
        assert np.abs(kernel).max() <= fan_in**-0.5
        if kernel.size > 2000:
            # The largest of 2000 lies within 1 % of the bound but for 2e-9; the variance has an error of 0.9/sqrt(2000).
            assert np.abs(kernel).max() > 0.99 * fan_in**-0.5
            np.testing.assert_allclose(np.var(kernel), 1 / (3 * fan_in), rtol=0.1)
            np.testing.assert_allclose(np.mean(kernel), 0, atol=5 * (3 * fan_in * kernel.size) ** -0.5)
    bias = np.asarray(variables_of(RELEASED)["params"]["conv_0"]["gate"]["bias"])
    assert 0.5 * 169**-0.5 < np.abs(bias).max() <= 169**-0.5


def test_gate_and_core_start_differently():
    conv = variables_of(RELEASED)["params"]["conv_0"]
    assert np.abs(conv["gate"]["kernel"] - conv["core"]["kernel"]).mean() > 0.01


def test_a_scale_draws_gaussian_weights_and_zero_biases():
    params = variables_of(dataclasses.replace(PAPER, init_scale=0.1))["params"]
    kernel = np.asarray(params["conv_0"]["gate"]["kernel"])  # 138 * 64 = 8832 numbers: the deviation to 0.75 %
    np.testing.assert_allclose(kernel.std(), 0.1, rtol=0.04)
    # A share of 4.55 % of a Gaussian lies beyond two deviations; of a uniform one, none.
    np.testing.assert_allclose((np.abs(kernel) > 0.2).mean(), 0.0455, atol=0.01)
    assert not np.any(params["conv_0"]["gate"]["bias"])
    assert not np.any(params["output"]["bias"])


def test_the_seed_names_the_weights():
    one, same, other = (variables_of(PAPER, seed)["params"] for seed in (0, 0, 1))
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, one, same)))
    assert not any(jax.tree.leaves(jax.tree.map(np.array_equal, one, other)))


def test_dropout_acts_in_training_only():
    table = elements.atom_features("paper")
    model = dataclasses.replace(PAPER, dropout=0.5)
    variables = init_variables(model, 0, table)
    graphs = two_atoms()

    def train(key: int):
        return model.apply(variables, graphs, training=True, rngs={"dropout": jax.random.key(key)})[0]

    expected = PAPER.apply(variables, graphs)[0]
    np.testing.assert_array_equal(model.apply(variables, graphs)[0], expected)
    drawn = np.array([train(key) for key in range(6)])[:, 0]
    np.testing.assert_array_equal(train(3), drawn[3])
    assert len(np.unique(drawn)) == 6  # 2^32 masks
    assert expected[0] not in drawn


def test_dropout_keeps_the_mean_of_the_output():
    # Kept numbers are doubled: the mean over keys of the output is that without dropout (it is linear after the drop).
    model = dataclasses.replace(PAPER, dropout=0.5, num_convs=1)
    variables = init_variables(model, 0, elements.atom_features("paper"))
    graphs = two_atoms()
    keys = jax.vmap(jax.random.key)(np.arange(2000))
    drawn = jax.vmap(lambda key: model.apply(variables, graphs, training=True, rngs={"dropout": key})[0, 0])(keys)
    np.testing.assert_allclose(drawn.mean(), model.apply(variables, graphs)[0, 0], atol=5 * drawn.std() / 2000**0.5)
    assert drawn.std() > 0.01


def test_an_unknown_convolution_names_the_choices():
    with pytest.raises(
        ValueError,
        match=r"unknown convolution 'gatde'; choose one of \['gated', 'gated_mlp', 'gated_norm', 'gated_update', 'sum'\]",
    ):
        variables_of(dataclasses.replace(PAPER, conv="gatde"))


def test_an_unknown_pool_names_the_choices():
    with pytest.raises(ValueError, match=r"unknown pool 'max'; choose one of \['mean', 'site', 'softmax'\]"):
        variables_of(dataclasses.replace(PAPER, pool="max"))


def test_a_table_of_another_shape_is_an_error():
    with pytest.raises(ValueError, match=r"the element table is \(104, 92\), the model expects \(104, 93\)"):
        init_variables(PAPER, 0, np.zeros((104, 92), np.float32))


def test_the_site_model_sows_the_numbers_whose_mean_it_predicts():
    model = dataclasses.replace(PAPER, pool="site", crystal_layers=0)
    variables = init_variables(model, 0, elements.atom_features("paper"))
    graphs = two_atoms()._replace(node_weight=np.array([1, 3, 0], np.float32))
    prediction, sown = model.apply(variables, graphs, mutable=["intermediates"])
    sites = np.asarray(sown["intermediates"]["sites"][0])
    np.testing.assert_allclose(prediction[0], (sites[0] + 3 * sites[1]) / 4, rtol=1e-6)
    assert abs(float(sites[0, 0] - sites[1, 0])) > 1e-3
