"""What a run trains: crystals, their split, the scaling of their labels and the network, and what to know of them."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from cgcnn_jax import config as configs
from cgcnn_jax.data import duplicates
from cgcnn_jax.data.dataset import Dataset
from cgcnn_jax.data.duplicates import Twins
from cgcnn_jax.data.splits import NAMES, Split
from cgcnn_jax.judging import looks
from cgcnn_jax.nn.model import CGCNN, Variables, init_variables
from cgcnn_jax.predict import Predictor, describe
from cgcnn_jax.scaling import TargetScaler

SEEN = "seen_by_init_from"
"""How many crystals of val and test trained the network that a run starts from, of test also how many chose its weights; and
with which of its training crystals others were compared by their looks (`judging.Looks.of`). None of an imported network, which
does not say what trained it."""


@dataclass(frozen=True)
class Setup:
    """What a configuration says to train, with the crystals at hand.

    Attributes:
      crystals: The data set.
      split: Indices of train, val and test.
      scaler: Fitted on train.
      model: The network.
      variables: Its initial variables.
      about: What the run's checkpoints say of themselves; with SEEN if weights of init_from start it.
    """

    crystals: Dataset
    split: Split
    scaler: TargetScaler
    model: CGCNN
    variables: Variables
    about: dict[str, Any]

    @cached_property
    def twins(self) -> Twins:
        """Crystals that stand in two splits."""
        return duplicates.find(self.crystals.fingerprints, self.split)


def prepare(
    config: ConfigDict,
    atom_table: np.ndarray,
    crystals: Dataset,
    split: Split | None,
    tell: Callable[[str], None],
    *,
    has_weights: bool = False,
    digest: str = "",
) -> Setup:
    """Builds what a run trains; without a split the configured one.

    With `has_weights` it goes on from a checkpoint, so that the model of init_from is not read: it may be gone.
    `digest` is that of the crystals, if it is known.

    Raises:
      ValueError: If the split cannot be made, or the weights of init_from do not fit.
    """
    split = configs.build_split(config, crystals) if split is None else split
    ids = {name: [crystals.ids[i] for i in split[name]] for name in NAMES}
    scaler = configs.build_scaler(config, crystals.targets, split["train"])
    model = configs.build_model(config, atom_table.shape, scaler.n_output)
    about = describe(config, scaler, atom_table.shape, ids, digest or crystals.digest(atom_table))
    if has_weights or not config.init_from:
        variables = init_variables(model, config.train.seed, atom_table)
    else:
        start = Predictor.restore(config.init_from)
        variables = _variables_of_init_from(start, config, model, atom_table, scaler, tell)
        about[SEEN] = _seen(start, config, crystals, split, tell)
    return Setup(crystals, split, scaler, model, variables, about)


def _variables_of_init_from(
    start: Predictor,
    config: ConfigDict,
    model: CGCNN,
    atom_table: np.ndarray,
    scaler: TargetScaler,
    tell: Callable[[str], None],
) -> Variables:
    # Of the quotient predictions do not depend.
    old, new = (
        {"graph": {key: value for key, value in one["graph"].items() if not key.startswith("quotient")}}
        for one in (configs.upgraded(start.about["config"]), configs.to_dict(config))
    )
    other = configs.differences(old, new)
    variables = start.variables_for(model, atom_table, scaler)
    if start.scaler.as_in(scaler).units != scaler.units:
        tell(
            f"the weights of init_from predict {start.scaler.described}, and the labels are {scaler.described}: in another unit "
            "their first predictions are far off (config.data.unit names the labels', config.data.log10 takes logarithms)"
        )
    if other:
        tell(
            "the weights of init_from were trained on other graphs, so their first predictions may be far off:\n"
            + "\n".join(f"  {field}" for field in other)
        )
    return variables


def _seen(
    start: Predictor, config: ConfigDict, crystals: Dataset, split: Split, tell: Callable[[str], None]
) -> dict[str, Any] | None:
    """Counts, and tells, the crystals of val and test that the network to start from has seen; see SEEN."""
    of_start = start.about["split"] or {}
    trained, chosen = (set(of_start.get(part, ())) for part in ("train", "val"))
    if not trained:
        return None
    places = {name: split[name] for name in ("test", "val")}
    # What chose the old weights may choose the new ones, but is no test of them.
    ids = {"test": trained | chosen, "val": trained}
    is_seen = {name: np.array([crystals.ids[at] in ids[name] for at in places[name]], bool) for name in places}
    unknown = np.concatenate([places[name][~is_seen[name]] for name in places])
    compared = "none"
    # Only where the network sees the graphs of this run as its own; of the quotient it does not depend.
    own = configs.build_featurizer(config, np.asarray(start.weights.constants["atom_table"]))
    if replace(own, use_quotient=True, tolerance=0.0) == replace(start.featurizer, use_quotient=True, tolerance=0.0):
        alike, compared = looks(start, [config.init_from], crystals.store.take(unknown))
        for name in places:
            is_seen[name] |= np.isin(places[name], unknown[alike])
    seen = {name: int(some.sum()) for name, some in is_seen.items()}
    if any(seen.values()):
        counts = " and ".join(f"{n} of {len(split[name])} {name}" for name, n in seen.items() if n)
        least, by = ("at least ", "ids") if compared == "none" else ("at least " * (compared == "some"), "ids or looks")
        tell(
            f"{least}{counts} crystals are some that the model of init_from was trained on or chosen by, by their {by}: the "
            "error on them is of memory. Keep its split (config.split), or judge by crystals that it has not seen"
        )
    return {**seen, "looks_compared_with": compared}


def facts(config: ConfigDict, crystals: Dataset, split: Split, twins: Twins) -> Iterator[str]:
    """What to know of the data before training."""
    if config.data.source == "demo":
        yield (
            "The demo crystals' labels come from a machine-learned potential (CHGNet), not from DFT or experiment:\n"
            "this set is for trying the software. For your own: --config.data.source=directory --config.data.path=..."
        )
    atoms, nodes = int(crystals.store.n_atom.sum()), int(crystals.graphs.n_node.sum())
    yield (
        f"{len(crystals)} crystals ({len(crystals.rejected)} left out), {atoms} atoms as {nodes} nodes; "
        + ", ".join(f"{name} {len(split[name])}" for name in NAMES)
    )
    if len(split["val"]) or len(split["test"]):
        yield _about_twins(config, crystals, split, twins)
    if not len(split["val"]):
        averaged = "averaged " if config.train.average_decay else ""
        yield f"no crystal validates: the {averaged}weights after the last epoch are kept"
    if configs.atom_table_name(config).endswith(".json"):
        yield f"atom features of {configs.atom_table_name(config)}"


def _about_twins(config: ConfigDict, crystals: Dataset, split: Split, twins: Twins) -> str:
    """Whether what is judged was trained on, and what to do."""
    in_train = np.array([other == "train" for _, other in twins.split], bool)
    if not in_train.any():
        return "no crystal of val or test has a twin in train"
    one, other = twins.crystal[in_train], twins.twin[in_train]
    counts = " and ".join(
        f"{twins.n_of(name)} of {len(split[name])} {name}" for name in ("test", "val") if len(split[name])
    )
    first = ", ".join(f"{crystals.ids[a]} = {crystals.ids[b]}" for a, b in zip(one[:3], other[:3], strict=True))
    apart = np.abs(crystals.targets[one] - crystals.targets[other])
    known = ~np.isnan(apart)
    if config.model.task == "classification":
        labels = f"labels agree in {np.count_nonzero(apart[known] == 0)} of {np.count_nonzero(known)}"
    else:
        scaled = (apart / np.maximum(np.nanstd(crystals.targets, axis=0), 1e-30))[known]
        labels = f"labels differ by {scaled.mean() if len(scaled) else 0:.2g} standard deviations on average"
    remedy = (
        "To keep twins in one split: --config.split.by_structure=True"
        if configs.split_kind(config) in ("ratio", "k_fold")
        else "This split is given; judge without them where that matters"
    )
    return (
        f"{counts} crystals have a twin in train, alike to the network within {duplicates.TOLERANCE} Å "
        f"({first}{', ...' if len(one) > 3 else ''}; {labels}).\n"
        f"The error on them is of memory. {remedy}. All are listed in duplicates.csv"
    )


def check_data(before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> None:
    """Raises ValueError, saying why, if the data are not those that the run began with."""
    if before is None or all(before[key] == now[key] for key in ("data_digest", "split")):
        return
    old, new = ({id for ids in about["split"].values() for id in ids} for about in (before, now))
    if old != new:
        what = f"the data changed since this run began: {len(new - old)} crystals are new and {len(old - new)} are gone"
    elif before["data_digest"] != now["data_digest"]:
        what = "the data changed since this run began: labels, structures or their order differ"
    else:
        what = "the split changed since this run began: crystals moved between train, val and test"
    raise ValueError(f"{what}. Choose another --workdir, or restore the data")
