"""Structures on their way to a prediction."""

from typing import Any

from cgcnn_jax.data.crystal import Crystal, CrystalError, Rejected
from cgcnn_jax.data.portion import build


def test_what_has_no_graph_is_named_by_its_id(rock_salt: Crystal, copper: Crystal) -> None:
    def featurize(crystal: Crystal) -> Any:
        if crystal is copper:
            raise CrystalError(f"{crystal.id}: of copper")
        raise ZeroDivisionError("flat")

    portion = build([Rejected("0", "0: no file"), rock_salt, copper], featurize)
    assert portion.reasons == {
        0: "0: no file",
        1: f"{rock_salt.id}: no graph could be built (ZeroDivisionError: flat)",
        2: f"{copper.id}: of copper",
    }
