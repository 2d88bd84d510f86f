"""Which crystals train, choose the model (val) and judge it (test)."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

NAMES = ("train", "val", "test")
Split = dict[str, np.ndarray]  # name -> indices, ascending; no crystal stands in two


def by_ratio(ids: Sequence[str], ratios: Sequence[float], seed: int, groups: Sequence[str] | None = None) -> Split:
    """A shuffle cut by shares, such as (0.6, 0.2, 0.2).

    Args:
      ids: Crystal ids; the split depends on them and the seed, not on their order.
      ratios: Shares of train, val and test; they add up to at most 1.
      seed: Names the shuffle.
      groups: A group per crystal (its composition, say) that is not divided; shares are then approximate.

    Raises:
      ValueError: If the shares are negative or add up to more than 1, or a split with a share gets no crystal.
    """
    if len(ratios) != 3 or min(ratios) < 0 or sum(ratios) > 1 + 1e-9:
        raise ValueError(f"split.ratios must be three shares adding up to at most 1, got {tuple(ratios)}")
    part = _cut(groups or ids, np.array(ratios) * len(ids), seed)
    split = {name: np.flatnonzero(part == number) for number, name in enumerate(NAMES)}
    for name, ratio in zip(NAMES, ratios, strict=True):
        if ratio > 0 and len(split[name]) == 0:
            raise ValueError(f"{len(ids)} crystals are too few for split.ratios {tuple(ratios)}: {name} would be empty")
    return split


def by_size(ids: Sequence[str], sizes: Sequence[int], seed: int) -> Split:
    """A shuffle cut by numbers of crystals (train, val, test). Raises ValueError if there are too few."""
    if len(sizes) != 3 or min(sizes) < 0 or sum(sizes) > len(ids):
        raise ValueError(f"split.sizes must be three numbers adding up to at most {len(ids)}, got {tuple(sizes)}")
    part = _cut(ids, np.array(sizes), seed)
    return {name: np.flatnonzero(part == number) for number, name in enumerate(NAMES)}


def k_fold(
    ids: Sequence[str], num_folds: int, fold: int, val_ratio: float, seed: int, groups: Sequence[str] | None = None
) -> Split:
    """Fold `fold` of `num_folds` is the test split; val is a share of the rest.

    Raises:
      ValueError: If the fold does not exist or holds no crystal.
    """
    if not 0 <= fold < num_folds:
        raise ValueError(f"data.fold must be 0 to {num_folds - 1}, got {fold}")
    part = _cut(groups or ids, np.full(num_folds, len(ids) / num_folds), seed)
    if not (part == fold).any():
        raise ValueError(f"split.num_folds={num_folds} is too many: fold {fold} holds none of {len(ids)} crystals")
    return _one_fold(ids, part == fold, val_ratio, seed, groups)


def from_source(labels: Sequence[str | None]) -> Split:
    """The split recorded in the source; val or test may be absent. Raises ValueError if a label is unknown or train is."""
    known = {label for label in labels if label is not None}
    if not {"train"} <= known <= set(NAMES):
        raise ValueError(
            f"split.kind=source needs crystals marked train, and val and test if any; the source has {sorted(known)} "
            "(--config.split.kind=ratio draws a split)"
        )
    return {name: np.flatnonzero([label == name for label in labels]) for name in NAMES}


def from_test(ids: Sequence[str], labels: Sequence[str | None], val_ratio: float, seed: int) -> Split:
    """The test recorded in the source; val is a share of its train and val together, drawn as in k_fold.

    Raises ValueError as from_source does, or if train or val would be empty.
    """
    from_source(labels)  # which knows what labels there may be
    return _with_test(ids, labels, np.array([label == "test" for label in labels]), val_ratio, seed)


def are_folds(labels: Sequence[str | None]) -> bool:
    """Whether the source marks crystals by the numbers of folds."""
    known = {label for label in labels if label is not None}
    return bool(known) and all(label.isdecimal() for label in known)


def from_folds(ids: Sequence[str], labels: Sequence[str | None], fold: int, val_ratio: float, seed: int) -> Split:
    """The source's fold `fold` as test; val is a share of the other folds, drawn as in k_fold.

    A crystal of no fold is in none of the splits. Raises ValueError if the source has no such fold.
    """
    known = {label for label in labels if label is not None}
    if str(fold) not in known:
        raise ValueError(f"data.fold must be one of the source's folds, {', '.join(sorted(known))}; got {fold}")
    return _with_test(ids, labels, np.array([label == str(fold) for label in labels]), val_ratio, seed)


def from_files(ids: Sequence[str], files: Mapping[str, str]) -> Split:
    """Id files, one id a line, for each of train, val and test.

    Raises:
      ValueError: If an id is not in the data or stands in two files.
    """
    place = {id: index for index, id in enumerate(ids)}
    owner: dict[str, str] = {}
    split: Split = {}
    for name in NAMES:
        path = files.get(name)
        # Whole lines: an id led by its folder may hold a space.
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines() if path else []
        listed = [line.strip() for line in lines if line.strip()]
        unknown = [id for id in listed if id not in place]
        if unknown:
            raise ValueError(
                f"{path}: {len(unknown)} of {len(listed)} ids are not in the data: {', '.join(unknown[:5])}"
            )
        for id in listed:
            if id in owner:
                raise ValueError(f"{path}: {id} stands twice, first in {owner[id]}")
            owner[id] = str(path)
        split[name] = np.sort(np.array([place[id] for id in listed], dtype=int))
    return split


def _with_test(
    ids: Sequence[str], labels: Sequence[str | None], is_test: np.ndarray, val_ratio: float, seed: int
) -> Split:
    """The split of the crystals that have a label; those of none are in no part of it."""
    marked = np.flatnonzero([label is not None for label in labels])
    split = _one_fold([ids[i] for i in marked.tolist()], is_test[marked], val_ratio, seed)
    return {name: marked[index] for name, index in split.items()}


def _one_fold(
    ids: Sequence[str], is_test: np.ndarray, val_ratio: float, seed: int, groups: Sequence[str] | None = None
) -> Split:
    """The split that tests on some crystals and draws val from the others."""
    rest = np.flatnonzero(~is_test)
    keys = [(groups or ids)[i] for i in rest.tolist()]
    part = _cut(keys, np.array([1 - val_ratio, val_ratio]) * len(rest), seed + 1)
    train, val = (rest[part == number] for number in (0, 1))
    if not len(train) or (val_ratio and not len(val)):
        raise ValueError(
            f"{len(rest)} crystals outside of test are too few for split.val_ratio={val_ratio:g}: "
            f"{'val' if len(train) else 'train'} would be empty"
        )
    return {"train": train, "val": val, "test": np.flatnonzero(is_test)}


def _cut(keys: Sequence[str], sizes: np.ndarray, seed: int) -> np.ndarray:
    """Shuffles the distinct keys and cuts them into parts of given numbers of crystals; the part of each crystal.

    Crystals of one key stay together; what is left over gets part len(sizes).
    """
    # Sorted by name first, so that the order of the files does not matter.
    # As objects: an array of texts would give every one of them the room of the longest.
    names, key_of = np.unique(np.array(keys, dtype=object), return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(names))
    counts = np.bincount(key_of)[order]
    # A key belongs to the part in which its middle falls.
    middle = np.cumsum(counts) - counts / 2
    part_of_key = np.empty(len(names), dtype=int)
    part_of_key[order] = np.searchsorted(np.cumsum(sizes), middle)
    return part_of_key[key_of]
