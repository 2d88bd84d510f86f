import importlib
import re
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from cgcnn_jax import config as configs
from cgcnn_jax.data.featurize import Featurizer
from cgcnn_jax.data.neighbors import NearestK, Radius, VoronoiBonds, WholeShells
from cgcnn_jax.nn.basis import BinnedBasis, GaussianBasis, ReciprocalBasis
from cgcnn_jax.nn.ops import PRECISIONS
from configs import base
from tests.experiments.runs import ROOT, Run

PROPERTIES = sorted(path.stem for path in (ROOT / "configs").glob("*.py") if path.stem not in ("__init__", "base"))


def load(name: str, preset: str | None = None) -> ConfigDict:
    return importlib.import_module(f"configs.{name}").get_config(preset)


def test_every_property_of_the_paper_has_a_configuration() -> None:
    assert PROPERTIES == [
        "absolute_energy",
        "band_gap",
        "bulk_modulus",
        "fermi_energy",
        "formation_energy",
        "metal_classification",
        "perovskite",
        "perovskite_sites",
        "poisson_ratio",
        "shear_modulus",
    ]


@pytest.mark.parametrize("preset", base.PRESETS)
@pytest.mark.parametrize("name", PROPERTIES)
def test_configuration_is_valid_given_data_and_survives_json(name: str, preset: str) -> None:
    config = load(name, preset).copy_and_resolve_references()
    if name != "formation_energy":
        with pytest.raises(ValueError, match=r"no embedded data\. It wants .*docs/data\.md"):
            configs.validate(config)
        with config.unlocked():
            config.data.source, config.data.path = "jsonl", "somewhere"
    configs.validate(config)
    plain = configs.to_dict(config)
    assert configs.differences(plain, configs.to_dict(configs.from_dict(plain))) == []


def test_fields_mean_what_they_are_called() -> None:
    config = base.get_config()
    config.data.source, config.data.path, config.data.target = "jsonl", "somewhere", "y"
    graph, bonds, optimizer = config.graph, config.bonds, config.optimizer
    table = configs.build_atom_table(config)
    graph.num_neighbors, graph.cutoff, graph.shell_tolerance, graph.bond_tolerance = 7, 5.0, 0.3, 0.7
    graph.quotient, graph.quotient_tolerance, graph.share_last_shell = True, 0.01, True
    rules = {
        "shells": WholeShells(num_neighbors=7, cutoff=5.0, tolerance=0.3, share_last=True),
        "nearest": NearestK(num_neighbors=7, cutoff=5.0, published_padding=False),
        "radius": Radius(cutoff=5.0),
        "voronoi": VoronoiBonds(cutoff=5.0, tolerance=0.7),
    }
    for graph.neighbors, rule in rules.items():
        assert configs.build_featurizer(config, table) == Featurizer(rule, True, 0.01, tuple(range(1, 104)))
    graph.neighbors, graph.fidelity, graph.quotient = "nearest", "published", False
    rule = NearestK(num_neighbors=7, cutoff=5.0, published_padding=True)
    assert configs.build_featurizer(config, table) == Featurizer(rule, False, 0.01, tuple(range(1, 104)))
    config.graph.angles = True
    assert configs.build_featurizer(config, table) == Featurizer(rule, False, 0.01, tuple(range(1, 104)), True)
    with pytest.raises(
        ValueError, match=r"graph\.share_last_shell goes with graph\.neighbors=shells; got True with nearest"
    ):
        configs.validate(config)
    graph.share_last_shell = False
    with pytest.raises(ValueError, match=r"config\.graph\.angles must be False with graph\.fidelity=published"):
        configs.validate(config)
    graph.neighbors, graph.angles = "shells", False
    with pytest.raises(
        ValueError, match=r"graph\.fidelity goes with graph\.neighbors=nearest; got published with shells"
    ):
        configs.validate(config)

    bonds.cutoff, bonds.spacing, bonds.low, bonds.high, bonds.num_bins, bonds.num_gaussians = 6.0, 0.5, 0.4, 5.5, 9, 31
    bases = {
        "gaussian": GaussianBasis(cutoff=6.0, spacing=0.5),
        "reciprocal": ReciprocalBasis(shortest=0.4, cutoff=6.0, num_gaussians=31),
        "bins": BinnedBasis(low=0.4, high=5.5, num_bins=9),
    }
    config.model.precision = "bfloat16" if "bfloat16" in PRECISIONS else PRECISIONS[-1]
    for bonds.basis, basis in bases.items():
        model = configs.build_model(config, table.shape, 1)
        assert model.basis == basis and model.precision == config.model.precision

    optimizer.name, optimizer.momentum, optimizer.milestones, optimizer.factor = "sgd", 0.7, (3, 5), 0.2
    settings = configs.build_optimizer_settings(config)
    assert (settings.name, settings.momentum, settings.milestones, settings.factor) == ("sgd", 0.7, (3, 5), 0.2)


def test_one_of_several_properties_may_have_no_unit() -> None:
    config = base.get_config()
    config.data.source, config.data.path = "jsonl", "somewhere"
    config.data.target, config.data.unit = "band_gap,n", "eV,"
    configs.validate(config)
    assert configs.units(config) == ("eV", "")
    assert configs.units(configs.from_dict(configs.to_dict(config))) == ("eV", "")
    assert configs.learned(config) == (("band_gap", "n"), ("eV", ""))


@pytest.mark.parametrize("name", PROPERTIES)
def test_file_is_short_and_names_its_row_command_and_error(name: str) -> None:
    text = (ROOT / "configs" / f"{name}.py").read_text()
    code = text.split('"""')[2]
    assert len([line for line in code.splitlines() if line.strip()]) <= 25
    assert "Paper, " in text
    assert f"--config=configs/{name}.py" in text


def test_every_field_has_a_comment_or_a_name_that_says_it_all() -> None:
    lines = Path(base.__file__).read_text().splitlines()
    fields = [line for line in lines if re.match(r"    config\.\w+\.\w+ = ", line)]
    assert len(fields) > 50
    bare = [re.split(r" = ", line.strip())[0] for line in fields if "#" not in line]
    assert bare == [
        "config.data.source",
        "config.split.kind",
        "config.split.seed",
        "config.atoms.table",
        "config.bonds.num_bins",
        "config.model.num_classes",
        "config.model.conv",
        "config.optimizer.factor",
        "config.train.epochs",
        "config.train.seed",
    ]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        (
            "data.source",
            "sql",
            r"config\.data\.source must be one of demo, jsonl, directory, files, matbench, jarvis, cdvae, ase; got 'sql'",
        ),
        ("data.target", "", r"config\.data\.target must name the property"),
        ("train.seed", 2**31, r"config\.train\.seed must be 0 to 2147483647; got 2147483648"),
        ("split.seed", -1, r"config\.split\.seed must be 0 to 2147483647; got -1"),
        ("data.unit", "eV,eV", r"config\.data\.unit must name a unit for each target"),
        (
            "model.conv",
            "gate",
            r"config\.model\.conv must be one of sum, gated, gated_norm, gated_mlp, gated_update; got 'gate'",
        ),
        ("model.pool", "site", r"set config\.model\.crystal_layers=0"),
        ("model.dropout", 1.0, r"config\.model\.dropout must be at least 0 and below 1"),
        ("train.epochs", 0, r"config\.train\.epochs must be greater than 0; got 0"),
        ("train.loss", "rmse", r"config\.train\.loss must be one of auto, mse, mae, huber in regression; got 'rmse'"),
        ("optimizer.l2", -1.0, r"config\.optimizer\.l2 must not be negative"),
        ("bonds.spacing", 9.0, r"config\.bonds\.spacing must be below bonds\.cutoff"),
        ("bonds.low", 6.0, r"config\.bonds\.low must be below bonds\.high"),
        ("bonds.num_gaussians", 1, r"config\.bonds\.num_gaussians must be at least 2; got 1"),
        ("atoms.properties", 4, r"config\.atoms\.properties must be one of 2, 3, 9; got 4"),
    ],
)
def test_wrong_value_names_field_rule_and_value(field: str, value: object, message: str) -> None:
    config = load("formation_energy").copy_and_resolve_references()
    group, name = field.split(".")
    with config.unlocked():
        config[group][name] = value
    with pytest.raises(ValueError, match=message):
        configs.validate(config)


def test_classification_has_its_own_loss() -> None:
    config = load("formation_energy").copy_and_resolve_references()
    with config.unlocked():
        config.model.task, config.train.loss = "classification", "mae"
    with pytest.raises(
        ValueError, match=r"config\.train\.loss must be one of auto, cross_entropy in classification; got 'mae'"
    ):
        configs.validate(config)


def test_the_reciprocal_basis_needs_a_range_of_distances() -> None:
    config = load("formation_energy").copy_and_resolve_references()
    with config.unlocked():
        config.bonds.basis, config.bonds.low, config.bonds.high = "reciprocal", 8.0, 9.0
    with pytest.raises(
        ValueError, match=r"config\.bonds\.low must lie between 0 and bonds\.cutoff \(8\.0 Å\); got 8\.0"
    ):
        configs.validate(config)


def test_unknown_atom_table_lists_the_choices() -> None:
    config = load("formation_energy").copy_and_resolve_references()
    with config.unlocked():
        config.atoms.table = "magpie"
    with pytest.raises(
        ValueError, match=r"one of auto, paper, released or the path of an atom_init\.json; got 'magpie'"
    ):
        configs.build_atom_table(config)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--config=configs/formation_energy.py", "--config.train.epoch=3"), 'Did you mean "epochs"'),
        (("--config=configs/formation_energy.py", "--config.train.epochs=x"), "invalid literal for int"),
        (("--config=configs/formation_energy.py:papper",), "choose one of reference, paper, best"),
        (("--config=configs/formation_energies.py",), "no such file; from the project's folder there are"),
        (("--confg=configs/formation_energy.py",), "Did you mean: config"),
        ((), "--config=FILE says what to train"),
        (("--config=configs/band_gap.py",), "no embedded data"),
    ],
)
def test_mistakes_on_the_command_line_are_told_without_a_traceback(
    run: Run, arguments: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    is_flag_error = not any(text in message for text in ("says what to train", "no embedded data", "no such file"))
    done = run("train", *arguments, f"--workdir={tmp_path / 'run'}", status=2 if is_flag_error else 1)
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 3


def test_a_configuration_from_before_a_field_was_added_does_what_it_did() -> None:
    old = configs.to_dict(load("formation_energy"))
    del old["graph"]["share_last_shell"], old["train"]["loss"], old["bonds"]["num_gaussians"]
    assert configs.from_dict(old).graph.share_last_shell is False
    assert configs.from_dict(old).train.loss == "auto"
    assert configs.differences(configs.upgraded(old), configs.to_dict(load("formation_energy"))) == []


def test_fields_without_effect_may_differ_and_exist() -> None:
    plain = configs.to_dict(load("formation_energy"))
    moved = {**plain, "data": {**plain["data"], "path": "/elsewhere", "workers": 7, "on_error": "skip"}}
    assert configs.differences(plain, moved) == []
    for name in configs.WITHOUT_EFFECT:
        group, field = name.split(".")
        assert field in plain[group]
