"""The parts of the benchmarks that compute: exponents, supercells, and what a profile is made of."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import growth, profile_step, workload
from cgcnn_jax.data.featurize import Featurizer


def test_exponents_are_those_of_powers() -> None:
    x = [10.0, 30.0, 100.0, 1000.0]
    for power in (0.0, 0.5, 1.0, 2.0):
        np.testing.assert_allclose(growth.exponents(x, [3 * value**power for value in x]), power, atol=1e-12)


@pytest.mark.parametrize(
    ("y", "text"),
    [
        ((1, 10, 100), "linear"),
        ((5, 5, 5), "constant"),
        ((100, 10, 10), "falling to 100 (-1.00), constant from there"),
        ((1, 100, 10_000), "above linear (2.00)"),
        # Exponents log10(2) = 0.30 and log10(10) = 1.
        ((1, 2, 20), "below linear to 100 (0.30), linear from there"),
        ((1, 10, 1000), "linear to 100, above linear from there (2.00)"),
    ],
)
def test_the_table_says_where_growth_stops_being_linear(y: tuple[float, ...], text: str) -> None:
    assert growth.describe((10, 100, 1000), y) == text


def test_stretches_of_one_kind_are_named_once() -> None:
    # Exponents 0.3, 0.3, 1, 1, 2: each stretch with the exponent between its ends.
    assert growth.describe((1, 10, 100, 1000, 10_000, 100_000), (1, 2, 4, 40, 400, 40_000)) == (
        "below linear to 100 (0.30), linear to 10,000, above linear from there (2.00)"
    )


def test_the_bounds_of_linear_growth() -> None:
    exponents = (-0.19, 0.21, 0.84, 0.86, 1.14, 1.16)
    assert [growth.kind(exponent) for exponent in exponents] == [
        *("constant", "below linear", "below linear"),
        *("linear", "linear", "above linear"),
    ]


def test_a_case_that_failed_is_measured_by_the_next_call(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    answers = iter([{"problem": "more than 300 s"}, {"seconds": 2.0}])
    monkeypatch.setattr(growth, "_in_a_process", lambda *arguments: next(answers))
    case = growth.Case()
    found = [growth.Record(tmp_path, "data").get(case) for _ in range(3)]
    assert found == [{"problem": "more than 300 s"}, {"seconds": 2.0}, {"seconds": 2.0}]


def test_a_supercell_folds_back_and_a_displaced_one_does_not(rock_salt) -> None:
    rng = np.random.default_rng(0)
    equal = growth.supercell(rock_salt, 6, 0.0, rng)
    unequal = growth.supercell(rock_salt, 6, growth.DISPLACEMENT, rng)
    assert len(equal.species) == len(unequal.species) == 48
    # Six of equal volume, in a box of 3 x 2 x 1.
    np.testing.assert_allclose(sorted(np.linalg.norm(equal.lattice, axis=1)), 5.64 * np.array([1, 2, 3]))
    featurizer = Featurizer()
    # Na and Cl.
    assert len(featurizer(equal).graphs.species) == 2
    assert len(featurizer(unequal).graphs.species) == 48
    # 6 neighbours at 2.82 Å and 12 at 3.99 Å, as in the cell that was repeated.
    np.testing.assert_allclose(
        np.unique(featurizer(equal).graphs.distances.round(2)),
        np.unique(featurizer(rock_salt).graphs.distances.round(2)),
    )


def test_no_two_repeated_crystals_are_alike(rock_salt) -> None:
    found = list(workload.Repeated([rock_salt, replace(rock_salt, id="other")], 5))
    assert [one.id for one in found] == ["NaCl.0", "other.0", "NaCl.1", "other.1", "NaCl.2"]
    np.testing.assert_allclose(found[4].lattice, 5.64 * 1.002 * np.eye(3))


HLO = """HloModule jit_train, is_scheduled=true

FileNames
1 "loop.py"
2 "/package/nn/norm.py"
3 "/package/graph.py"

FunctionNames
1 "train"
2 "weighted_moments"
3 "select"

FileLocations
1 {file_name_id=1 function_name_id=1 line=1}
2 {file_name_id=2 function_name_id=2 line=9}
3 {file_name_id=3 function_name_id=3 line=5}

StackFrames
1 {file_location_id=1 parent_frame_id=1}
2 {file_location_id=2 parent_frame_id=2}
3 {file_location_id=3 parent_frame_id=2}

%body (param: f32[8]) -> f32[8] {
  %param = f32[8]{0} parameter(0)
  %wrapped_reduce-window = f32[4]{0} fusion(%param), kind=kLoop, calls=%pieces
  %ynn_fusion = f32[1]{0} fusion(%wrapped_reduce-window), kind=kCustom, metadata={op_name="jit(train)/square" stack_frame_id=2}
  %copy.3 = f32[8]{0} copy(%param)
  %gather.7 = f32[8]{0} gather(%copy.3), metadata={op_name="jit(train)/gather" stack_frame_id=3}
  ROOT %dot.1 = f32[8]{0} dot(%gather.7), metadata={op_name="jit(train)/transpose(jvp(CGCNN))/conv_0/core/transpose"}
}
"""


def test_operations_are_traced_back_to_the_functions_that_made_them() -> None:
    found = profile_step.origins(HLO)
    assert found["ynn_fusion"] == "loop.py:train /package/nn/norm.py:weighted_moments jit(train)/square"
    assert found["wrapped_reduce-window"] == found["ynn_fusion"]
    assert found["gather.7"] == "loop.py:train /package/graph.py:select jit(train)/gather"
    assert found["copy.3"] == ""
    parts = {name: profile_step.part_of(name, found[name]) for name in found if name != "param"}
    assert parts == {
        "wrapped_reduce-window": "statistics and other sums over rows",
        "ynn_fusion": "statistics and other sums over rows",
        "copy.3": "copies",
        "gather.7": "batch assembly",
        "dot.1": "matrix products, backward",
    }


@pytest.mark.parametrize(
    ("name", "path", "part"),
    [
        ("dot_general.1", "jit(train)/while/body/jvp(CGCNN)/conv_0/gate/dot_general", "matrix products, forward"),
        (
            "dot_general.2",
            "jit(train)/while/body/transpose(jvp(CGCNN))/conv_0/core/dot_general",
            "matrix products, backward",
        ),
        ("cublas-gemm.4", "jit(predict)/while/body/CGCNN/conv_1/gate/dot_general", "matrix products, forward"),
        ("fusion.3", "jit(train)/while/body/jvp(CGCNN)/conv_2/gate/add", "gathers"),
        ("fusion.4", "jit(train)/while/body/transpose(jvp(CGCNN))/conv_2/mul", "gate and activation"),
        (
            "dot_general.5",
            "jit(train)/while/body/transpose(jvp(CGCNN))/conv_2/dot_general",
            "statistics and other sums over rows",
        ),
        (
            "wrapped_scatter.5",
            "jit(train)/while/body/transpose(jvp(CGCNN))/conv_3/core/scatter-add",
            "sums over bonds and atoms (scatter)",
        ),
        ("fusion.6", "jit(train)/while/body/optimizer/mul", "optimiser"),
        ("fusion.7", "jit(train)/while/body/jvp(CGCNN)/basis/exp", "bond features"),
        ("fusion.8", "jit(train)/while/body/jvp(CGCNN)/crystal_0/add", "embedding, pooling, head, loss"),
        ("wrapped_add.3", "jit(train)/while/body/add", "other"),
    ],
)
def test_parts_of_a_step(name: str, path: str, part: str) -> None:
    assert profile_step.part_of(name, path) == part


def test_an_operation_inside_another_counts_once() -> None:
    # A loop of 10 with operations of 3 and 4 in it; then one of 5 beside it.
    events = [(0.0, 10.0, "while"), (1.0, 3.0, "dot"), (5.0, 4.0, "add"), (10.0, 5.0, "dot")]
    assert profile_step.self_times(events) == {"while": 3.0, "dot": 8.0, "add": 4.0}
