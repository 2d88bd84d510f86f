"""Many runs of one configuration with some fields changed: what to try, and how it is tried.

A sweep file is a configuration file (`get_config`) with one or both of
  get_trials(preset)   the changes to try, a list made with grid, product and random
  get_space(preset)    the ranges in which an adaptive search chooses
This module imports no jax, so that such a file is read at once.
"""

from cgcnn_jax.sweep.space import Integers as Integers
from cgcnn_jax.sweep.space import Overrides as Overrides
from cgcnn_jax.sweep.space import Space as Space
from cgcnn_jax.sweep.space import Uniform as Uniform
from cgcnn_jax.sweep.space import grid as grid
from cgcnn_jax.sweep.space import product as product
from cgcnn_jax.sweep.space import random as random
