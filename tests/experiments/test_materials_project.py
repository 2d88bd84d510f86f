"""Queries of the Materials Project, against a stand-in for its client: the one place without the real thing."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from cgcnn_jax.data.crystal import Crystal
from cgcnn_jax.data.sources import read_jsonl
from cgcnn_jax.files import locked
from experiments import materials_project

_CORNERS = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
SALT = Structure(Lattice.cubic(5.64), ["Na"] * 4 + ["Cl"] * 4, [*_CORNERS, *(_CORNERS + 0.5)])
ALLOY = Structure(Lattice.cubic(3), [{"Na": 0.5, "K": 0.5}], [[0, 0, 0]])


class Client:
    """MPRester as far as it is used: materials.summary.search, by ids or chemical system, with fields."""

    def __init__(self) -> None:
        self.materials = SimpleNamespace(summary=self)
        self.asked: list[dict[str, Any]] = []
        self.breaks_at = 0  # the number of the search that fails, 0 for none
        self.breaks_with: Exception = ConnectionError("the server went away")
        self.documents = {
            f"mp-{number}": SimpleNamespace(
                material_id=f"mp-{number}",
                structure=ALLOY if number == 7 else SALT,
                band_gap=float(number),
                is_metal=number % 2 == 0,
                bulk_modulus={"voigt": 25.0, "reuss": 23.0, "vrh": 24.0} if number != 2 else None,
            )
            for number in (1, 2, 3, 7, 12, 101)
        }

    def search(
        self, *, fields: list[str], material_ids: list[str] | None = None, chemsys: list[str] | None = None
    ) -> list:
        self.asked.append({"fields": fields, "material_ids": material_ids, "chemsys": chemsys})
        if self.breaks_at == len(self.asked):
            raise self.breaks_with
        found = [one for id, one in self.documents.items() if material_ids is None or id in material_ids]
        # In no order, and nothing but what was asked for.
        return [SimpleNamespace(**{field: getattr(one, field) for field in fields}) for one in reversed(found)]


FIELDS = ("band_gap", "is_metal", "k_vrh")


def test_a_chemical_system_becomes_lines_that_the_source_reads(tmp_path: Path) -> None:
    client, output = Client(), tmp_path / "deep" / "nacl.jsonl.gz"
    done = materials_project.fetch(client, output, FIELDS, chemsys=["Na-Cl"], batch=2)
    assert (done.crystals, done.rejected) == (5, 1)
    crystals = list(read_jsonl(output))
    assert all(isinstance(one, Crystal) for one in crystals)
    assert [one.id for one in crystals] == ["mp-1", "mp-2", "mp-3", "mp-12", "mp-101"]
    assert dict(crystals[0].targets) == {"band_gap": 1.0, "is_metal": 0.0, "k_vrh": 24.0}
    assert dict(crystals[1].targets) == {"band_gap": 2.0, "is_metal": 1.0}
    np.testing.assert_allclose(crystals[0].lattice, 5.64 * np.eye(3))
    assert client.asked[0] == {"fields": ["material_id"], "material_ids": None, "chemsys": ["Na-Cl"]}
    assert client.asked[1]["fields"] == ["band_gap", "bulk_modulus", "is_metal", "material_id", "structure"]
    assert done.reasons is not None and "mp-7: site 0" in done.reasons.read_text()
    assert sorted(path.name for path in output.parent.iterdir()) == ["nacl.jsonl.gz", "nacl.rejected.csv"]


def test_a_stopped_query_goes_on_with_the_batches_that_are_missing(tmp_path: Path) -> None:
    client, output = Client(), tmp_path / "nacl.jsonl.gz"
    client.breaks_at = 3
    with pytest.raises(ConnectionError):
        materials_project.fetch(client, output, FIELDS, chemsys=["Na-Cl"], batch=2)
    assert not output.exists()
    with pytest.raises(ValueError, match=r"nacl\.jsonl\.gz\.parts holds a part of another query"):
        materials_project.fetch(client, output, ("band_gap",), chemsys=["Na-Cl"], batch=2)
    again = Client()
    seen: list[tuple[int, int]] = []
    done = materials_project.fetch(
        again, output, FIELDS, chemsys=["Na-Cl"], on_progress=lambda n, of: seen.append((n, of))
    )
    # Neither the ids nor the first two materials are asked for again.
    assert [one["material_ids"] for one in again.asked] == [["mp-3", "mp-7"], ["mp-12", "mp-101"]]
    assert (done.crystals, done.rejected, seen) == (5, 1, [(2, 6), (4, 6), (6, 6)])
    assert not (tmp_path / "nacl.jsonl.gz.parts").exists()


def test_the_clients_own_error_is_told_and_a_mistake_of_ours_is_not_hidden(tmp_path: Path) -> None:
    own = type("MPRestError", (Exception,), {"__module__": "mp_api.client.core.client"})
    for breaks_at in (1, 2):
        client = Client()
        client.breaks_at, client.breaks_with = breaks_at, own("REST query returned with error status code 403")
        with pytest.raises(OSError, match=r"does not answer the query: REST .* 403\. Is the key in MP_API_KEY right"):
            materials_project.fetch(client, tmp_path / f"{breaks_at}.jsonl.gz", FIELDS, chemsys=["Na-Cl"], batch=2)
    client.breaks_with, client.breaks_at = KeyError("ours"), 3
    with pytest.raises(KeyError):
        materials_project.fetch(client, tmp_path / "2.jsonl.gz", FIELDS, chemsys=["Na-Cl"], batch=2)


def test_the_same_crystals_are_the_same_file(tmp_path: Path) -> None:
    for name, batch in (("a", 1), ("b", 500)):
        materials_project.fetch(Client(), tmp_path / f"{name}.jsonl.gz", FIELDS, chemsys=["Na-Cl"], batch=batch)
    assert (tmp_path / "a.jsonl.gz").read_bytes() == (tmp_path / "b.jsonl.gz").read_bytes()


def test_batches_of_a_query_that_is_gone_are_not_taken_for_those_of_another(tmp_path: Path) -> None:
    client, output = Client(), tmp_path / "nacl.jsonl.gz"
    client.breaks_at = 2
    with pytest.raises(ConnectionError):
        materials_project.fetch(client, output, FIELDS, ids=["mp-1", "mp-2", "mp-3"], batch=2)
    # A kill in the midst of removing the finished parts leaves some of them, in any order.
    (tmp_path / "nacl.jsonl.gz.parts" / "query.json").unlink()
    materials_project.fetch(Client(), output, FIELDS, ids=["mp-12", "mp-101"], batch=2)
    assert [one.id for one in read_jsonl(output)] == ["mp-12", "mp-101"]


def test_two_queries_do_not_write_one_file(tmp_path: Path) -> None:
    output = tmp_path / "a.jsonl.gz"
    (tmp_path / "a.jsonl.gz.parts").mkdir()
    with (
        locked(tmp_path / "a.jsonl.gz.parts" / ".lock", ""),
        pytest.raises(ValueError, match=r"another process is writing .*a\.jsonl\.gz; wait for it"),
    ):
        materials_project.fetch(Client(), output, FIELDS, ids=["mp-1"])


def test_ids_come_in_their_order_and_lost_ones_are_told(tmp_path: Path) -> None:
    done = materials_project.fetch(Client(), tmp_path / "a.jsonl.gz", (), ids=["mp-12", "mp-999", "mp-1", "mp-12"])
    assert [one.id for one in read_jsonl(tmp_path / "a.jsonl.gz")] == ["mp-12", "mp-1"]
    assert done.reasons is not None and "mp-999: the Materials Project has no such material any more" in (
        done.reasons.read_text()
    )


def test_what_is_known_of_no_crystal_and_what_of_some_is_told(tmp_path: Path) -> None:
    output = tmp_path / "a.jsonl.gz"
    done = materials_project.fetch(Client(), output, FIELDS, chemsys=["Na-Cl"])
    assert done.known == {"band_gap": 5, "is_metal": 5, "k_vrh": 4}
    assert (tmp_path / "a.rejected.csv").exists()
    # The reasons of the query before do not stay beside the crystals of the next.
    assert materials_project.fetch(Client(), output, FIELDS, ids=["mp-1"]).reasons is None
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl.gz"]
    for document in (client := Client()).documents.values():
        document.formula_pretty = "NaCl"
    with pytest.raises(ValueError, match="none of 5 crystals has a number for formula_pretty"):
        materials_project.fetch(client, tmp_path / "b.jsonl.gz", ("band_gap", "formula_pretty"), chemsys=["Na-Cl"])
    assert not (tmp_path / "b.jsonl.gz").exists()


def test_nothing_found_a_missing_key_and_a_missing_package_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = Client()
    client.documents = {}
    with pytest.raises(ValueError, match="has nothing in Xe-He"):
        materials_project.fetch(client, tmp_path / "a.jsonl.gz", (), chemsys=["Xe-He"])
    monkeypatch.delenv("MP_API_KEY", raising=False)
    with pytest.raises(ValueError, match=r"wants a key: .*export MP_API_KEY=\.\.\."):
        materials_project.client()
    monkeypatch.setenv("MP_API_KEY", "x" * 32)
    monkeypatch.setitem(sys.modules, "mp_api", None)
    with pytest.raises(ValueError, match=r"pip install 'cgcnn-jax\[mp\]'"):
        materials_project.client()
