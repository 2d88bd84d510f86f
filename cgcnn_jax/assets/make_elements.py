"""Writes elements.csv from the mendeleev package.

pip install mendeleev==0.4.0 six; python -m cgcnn_jax.assets.make_elements

The version is part of the recipe: 0.4.0 (September 2017) gives the released 92-column table for all 100 elements and
all nine properties. Version 1.3 computes the atomic volume from the density, which puts gases at 1e4 cm^3/mol, counts f
electrons as valence electrons, and has La and Ac in group 3 instead of Lu.
"""

import csv
import io
import warnings
from importlib import metadata
from pathlib import Path
from typing import Any

VERSION = "0.4.0"
LAST = 103

COMMENT = f"""\
# Element properties from mendeleev {VERSION} (L. Mentel, MIT licence), written by cgcnn_jax/assets/make_elements.py.
# Electronegativity: Pauling. covalent_radius: single bond, Pyykko and Atsumi (2009); _cordero: Cordero et al. (2008).
# paper_group and paper_period place the elements as 18 groups in 9 periods: La-Lu and Ac-Lr are periods 8 and 9.
# Empty: unknown, or no group.
"""


def render() -> str:
    """The text of elements.csv.

    Raises:
      ImportError: If mendeleev is missing or of another version.
    """
    try:
        found = metadata.version("mendeleev")
    except metadata.PackageNotFoundError:
        found = "none"
    if found != VERSION:
        raise ImportError(
            f"elements.csv needs mendeleev {VERSION}, found {found}; pip install mendeleev=={VERSION} six"
        )
    with warnings.catch_warnings():  # a package of 2017 under the SQLAlchemy of today
        warnings.simplefilter("ignore")
        from mendeleev import element  # type: ignore[import-not-found,unused-ignore]

        rows = [_row(element(z)) for z in range(1, LAST + 1)]
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return COMMENT + text.getvalue()


def _row(element: Any) -> dict[str, int | str]:
    z = element.atomic_number
    group, period = element.group_id, element.period
    cordero = element.covalent_radius_cordero
    return {
        "atomic_number": z,
        "symbol": element.symbol,
        "group": "" if group is None else group,
        "period": period,
        "paper_group": z - 54 if 57 <= z <= 71 else z - 86 if 89 <= z <= 103 else group,
        "paper_period": 8 if 57 <= z <= 71 else 9 if 89 <= z <= 103 else period,
        "electronegativity": _number(element.en_pauling),
        "covalent_radius (pm)": _number(element.covalent_radius_pyykko),
        "valence_electrons": element.nvalence(),
        "ionization_energy (eV)": _number(element.ionenergies.get(1)),
        "electron_affinity (eV)": _number(element.electron_affinity),
        "block": element.block,
        "atomic_volume (cm^3/mol)": _number(element.atomic_volume),
        "covalent_radius_cordero (Å)": _number(None if cordero is None else cordero / 100),
    }


def _number(value: float | None) -> str:
    """Eight digits: the source holds 0.352 as 0.35200000000000004."""
    return "" if value is None else f"{value:.8g}"


if __name__ == "__main__":
    path = Path(__file__).with_name("elements.csv")
    path.write_text(render(), encoding="utf-8")
    print(f"wrote {path}")
