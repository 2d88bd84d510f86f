"""RELEASED: the network of the published code, which tests change to what they need with dataclasses.replace."""

from cgcnn_jax.nn.basis import GaussianBasis
from cgcnn_jax.nn.model import CGCNN

RELEASED = CGCNN(
    n_output=1,
    table_shape=(104, 92),
    features=64,
    conv="gated_norm",
    num_convs=4,
    basis=GaussianBasis(),
    pool="mean",
    activate_pooled=True,
    atom_layers=0,
    crystal_layers=1,
    crystal_features=32,
    dropout=0.0,
)
