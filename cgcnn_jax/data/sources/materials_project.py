"""The Materials Project, through a client of its own package mp-api that the caller has opened.

A. Jain et al., APL Mater. 1, 011002 (2013), doi:10.1063/1.4812323; the data are CC BY 4.0.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from cgcnn_jax.data.crystal import Crystal, CrystalError, Rejected, as_number

# Of MPRester.materials.summary; what is not here has no unit, or one to be looked up in the API's documentation.
UNITS = {
    "formation_energy_per_atom": "eV/atom",
    "energy_per_atom": "eV/atom",
    "energy_above_hull": "eV/atom",
    "band_gap": "eV",
    "efermi": "eV",
    "total_magnetization": "µB/cell",
    "density": "g/cm³",
    "volume": "Å³/cell",
    "k_vrh": "GPa",
    "g_vrh": "GPa",
}
# Moduli come as {voigt, reuss, vrh}; a name asks for one of them.
_INSIDE = {
    f"{letter}_{average}": (field, average)
    for letter, field in (("k", "bulk_modulus"), ("g", "shear_modulus"))
    for average in ("voigt", "reuss", "vrh")
}


def find_ids(client: Any, **query: Any) -> list[str]:
    """Ids of the materials that a query of MPRester.materials.summary.search finds, in order of their numbers.

    Raises:
      OSError: If the Materials Project cannot be reached or refuses.
    """
    found = _search(client, **query, fields=["material_id"])
    return sorted({str(one.material_id) for one in found}, key=lambda id: (len(id), id))


def read_materials_project(client: Any, ids: Sequence[str], properties: Sequence[str]) -> Iterator[Crystal | Rejected]:
    """The crystals of some ids, in their order, in one query.

    Args:
      client: An open mp_api.client.MPRester.
      ids: Such as mp-149.
      properties: Fields of MPRester.materials.summary that are numbers or truths (is_metal becomes 0 or 1), and k_vrh,
        g_vrh (also _voigt and _reuss) for the moduli in GPa.

    Yields:
      A Crystal for each id, and a Rejected for one that the database does not have or that cannot be used.

    Raises:
      OSError: If the Materials Project cannot be reached or refuses.
    """
    fields = sorted(
        {_INSIDE[name][0] if name in _INSIDE else name for name in properties} | {"material_id", "structure"}
    )
    found = {str(one.material_id): one for one in _search(client, material_ids=list(ids), fields=fields)}
    for id in ids:
        if id not in found:
            yield Rejected(id, f"{id}: the Materials Project has no such material any more")
            continue
        try:
            targets = {name: _value(found[id], name) for name in properties}
            yield Crystal.from_structure(id, found[id].structure, targets)
        except CrystalError as error:
            yield Rejected(id, str(error))


def _search(client: Any, **query: Any) -> list[Any]:
    try:
        return client.materials.summary.search(**query)
    except Exception as error:
        # The client's own error, such as for a wrong key, is a plain Exception.
        if type(error).__module__.partition(".")[0] != "mp_api":
            raise
        raise OSError(
            f"the Materials Project does not answer the query: {error}. Is the key in MP_API_KEY right, and every field one "
            "of its summary? The same command goes on with what is missing"
        ) from error


def _value(document: Any, name: str) -> float:
    field, average = _INSIDE.get(name, (name, ""))
    value = getattr(document, field, None)
    if average and value is not None:
        value = value.get(average) if isinstance(value, dict) else getattr(value, average, None)
    return as_number(value)
