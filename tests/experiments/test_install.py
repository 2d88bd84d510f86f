"""Sets that are fetched over real HTTP, brought by hand, damaged, changed or short; and the command around them."""

import dataclasses
import gzip
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cgcnn_jax.data import sets
from cgcnn_jax.data.sets import DataSet, File
from cgcnn_jax.data.sources import read_demo
from cgcnn_jax.files import locked
from experiments import fetch as command
from experiments.install import install
from tests.experiments.runs import ROOT
from tests.experiments.server import Server, serve


@pytest.fixture(scope="module")
def records() -> bytes:
    """A JARVIS file of 300 crystals, gzipped."""
    demo = [crystal for _, crystal in zip(range(300), read_demo(), strict=False)]
    listed = [
        {
            "jid": crystal.id,
            "atoms": {
                "lattice_mat": crystal.lattice.tolist(),
                "coords": crystal.frac_coords.tolist(),
                "elements": [site.specie.symbol for site in crystal.to_structure()],
                "cartesian": False,
            },
            "formation_energy_peratom": -1.0,
            "slme": "na",
        }
        for crystal in demo
    ]
    return gzip.compress(json.dumps(listed).encode())


@pytest.fixture
def server(records: bytes) -> Iterator[Server]:
    with serve() as running:
        running.files["set.json.gz"] = records
        yield running


def a_set(server: Server, sha256: str = "", n_record: int = 300) -> DataSet:
    file = File("set.json.gz", server.url("set.json.gz"), sha256)
    return DataSet("a_set", "", (file,), n_record, "jarvis", "free", "nobody", "")


def test_a_set_comes_checked_and_alone(server: Server, tmp_path: Path, records: bytes) -> None:
    said: list[str] = []
    assert install(a_set(server, hashlib.sha256(records).hexdigest()), tmp_path, said.append) == 300
    assert [path.name for path in (tmp_path / "a_set").iterdir()] == ["set.json.gz"]
    assert said == []
    # Again: nothing is downloaded, all is checked.
    assert install(a_set(server, hashlib.sha256(records).hexdigest()), tmp_path) == 300
    assert len(server.ranges) == 1


def test_without_a_published_checksum_the_one_seen_is_told(server: Server, tmp_path: Path, records: bytes) -> None:
    said: list[str] = []
    install(a_set(server), tmp_path, said.append)
    assert said == [
        f"set.json.gz has SHA-256 {hashlib.sha256(records).hexdigest()}; none is published to compare it with"
    ]


def test_a_changed_file_is_removed_and_the_next_start_completes(server: Server, tmp_path: Path, records: bytes) -> None:
    chosen = a_set(server, hashlib.sha256(records).hexdigest())
    server.files["set.json.gz"] = records[:-1] + b"?"
    with pytest.raises(
        ValueError, match=r"is not the published file: its checksum is \w{64}, not \w{64}\. It is removed"
    ):
        install(chosen, tmp_path)
    assert not list((tmp_path / "a_set").rglob("set.json.gz*"))
    server.files["set.json.gz"] = records
    assert install(chosen, tmp_path) == 300


def test_a_truncated_file_with_right_headers_is_found_by_reading_it(
    server: Server, tmp_path: Path, records: bytes
) -> None:
    server.files["set.json.gz"] = records[: len(records) // 2]
    with pytest.raises(
        ValueError,
        match=r"cannot be read \(.*damaged after record \d+.*It is removed(.|\n)*put it at\n  .*set\.json\.gz\n",
    ):
        install(a_set(server), tmp_path)
    server.files["set.json.gz"] = records
    assert install(a_set(server), tmp_path) == 300


def test_a_wrong_number_of_records_is_refused(server: Server, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a_set has 300 records in .*, should have 301; removed set\.json\.gz"):
        install(a_set(server, n_record=301), tmp_path)
    assert not (tmp_path / "a_set" / "set.json.gz").exists()


def test_half_a_download_is_not_a_set_and_is_gone_on_with(
    server: Server, tmp_path: Path, records: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("experiments.download.time.sleep", lambda seconds: None)
    server.faults = ["cut", *[503] * 9]
    with pytest.raises(OSError, match="bytes are kept in"):
        install(a_set(server), tmp_path)
    assert [path.name for path in (tmp_path / "a_set").iterdir()] == [".part"]
    server.faults = []
    assert install(a_set(server), tmp_path) == 300
    assert server.ranges[-1] == f"bytes={len(records) // 2}-"


def test_a_file_put_there_by_hand_is_checked(tmp_path: Path, server: Server, records: bytes) -> None:
    chosen = a_set(server, hashlib.sha256(records).hexdigest())
    unreachable = dataclasses.replace(chosen, files=(dataclasses.replace(chosen.files[0], url="http://127.0.0.1:1/x"),))
    by_hand = tmp_path / "a_set" / "set.json.gz"
    with pytest.raises(
        OSError,
        match=rf"(?s)If this machine cannot have it: bring\n  http://127\.0\.0\.1:1/x\n.*put it at\n  {by_hand}",
    ):
        install(unreachable, tmp_path)
    by_hand.write_bytes(records[:1000])
    with pytest.raises(ValueError, match=r"is not the published file: .* Remove it, and start again to download it"):
        install(unreachable, tmp_path)
    assert by_hand.exists()
    by_hand.write_bytes(records)
    assert install(unreachable, tmp_path) == 300


def test_a_set_of_several_files_keeps_those_that_are_done(tmp_path: Path, server: Server) -> None:
    cif = next(iter(read_demo())).to_structure().to(fmt="cif")
    table = f'material_id,cif,e\n{{}},"{cif}",1.5\n'
    files = []
    for name in ("train", "val", "test"):
        server.files[f"{name}.csv"] = table.format(name).encode()
        content = server.files[f"{name}.csv"]
        blob = hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
        files.append(File(f"{name}.csv", server.url(f"{name}.csv"), git_blob=blob))
    chosen = DataSet("tables", "", tuple(files), 3, "cdvae", "", "", "")
    server.faults = ["", 404]
    with pytest.raises(OSError, match=r"val\.csv: the server answers 404"):
        install(chosen, tmp_path)
    assert not list((tmp_path / "tables").glob("*.csv"))
    assert install(chosen, tmp_path) == 3
    # train.csv was asked for once.
    assert len(server.ranges) == 4
    assert sorted(path.name for path in (tmp_path / "tables").iterdir()) == ["test.csv", "train.csv", "val.csv"]


def test_two_processes_do_not_fetch_one_set(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a_set" / ".part").mkdir(parents=True)
    with (
        locked(tmp_path / "a_set" / ".part" / ".lock", "not reached"),
        pytest.raises(ValueError, match="another process is fetching a_set; wait for it"),
    ):
        install(a_set(server), tmp_path)
    assert install(a_set(server), tmp_path) == 300


def test_sets_are_well_described() -> None:
    assert len(sets.SETS) > 30
    for name, one in sets.SETS.items():
        assert name == one.name and one.about and one.licence and one.cite and one.facts and one.records > 0
        for file in one.files:
            assert file.url.startswith("https://") and not (file.sha256 and file.git_blob)
            assert len(file.sha256) in (0, 64) and len(file.git_blob) in (0, 40)
            assert file.sha256 or file.git_blob or "no checksum is published" in one.facts


def test_a_set_that_is_not_there_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CGCNN_JAX_DATA", str(tmp_path))
    assert sets.data_folder() == tmp_path
    with pytest.raises(FileNotFoundError, match=r"mp_20 is not there .*\n  python -m experiments\.fetch mp_20\n"):
        sets.locate("mp_20")
    (tmp_path / "mp_20").mkdir()
    for name in ("train", "val", "test"):
        (tmp_path / "mp_20" / f"{name}.csv").touch()
    assert sets.locate("mp_20") == tmp_path / "mp_20"
    with pytest.raises(ValueError, match="'mp_21' is no set that can be fetched"):
        sets.locate("mp_21")


def fetch(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command, without any way to the network."""
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:1")
    clean = {key: value for key, value in os.environ.items() if key not in ("MP_API_KEY", "no_proxy", "NO_PROXY")}
    return subprocess.run(
        [sys.executable, "-m", "experiments.fetch", *arguments],
        cwd=ROOT,
        env=clean | nowhere | {"CGCNN_JAX_DATA": str(folder)},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_command_says_whose_a_set_is_and_how_to_use_it(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CGCNN_JAX_DATA", str(tmp_path / "data"))
    monkeypatch.setitem(sets.SETS, "a_set", a_set(server))
    command._fetch("a_set", tmp_path / "data")
    said = capsys.readouterr().out
    assert f"a_set: 300 records, checked, in {tmp_path / 'data' / 'a_set'}\nlicence: free\ncite:    nobody\n" in said
    # The file has slme, too, but no number.
    use = f"--config.data.source=jarvis --config.data.path={tmp_path}/data/a_set/set.json.gz"
    assert said.endswith(
        f"use:     {use} --config.data.target=PROPERTY   (of the first 100 crystals: formation_energy_peratom)\n"
    )


def test_a_benchmark_is_used_with_the_crystals_it_is_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CGCNN_JAX_DATA", str(tmp_path))
    first = "python -m experiments.fetch jarvis_megnet   (the crystals of these values)"
    task = "--config.data.source=jarvis --config.data.task=megnet_e_form"
    assert command._usage("megnet_e_form", tmp_path) == [first, task]
    # Elsewhere both files are named, for a task's name is looked up in the default folder.
    other = tmp_path / "other"
    file, crystals = (sets.place(name, other) for name in ("megnet_e_form", "jarvis_megnet"))
    crystals.parent.mkdir(parents=True)
    crystals.touch()
    named = f"--config.data.source=jarvis --config.data.task={file} --config.data.path={crystals}"
    assert command._usage("megnet_e_form", other) == [named]
    spaced = tmp_path / "my sets"
    assert command._usage("matbench_phonons", spaced)[-1].split(" ", 2)[2].startswith(f"--config.data.path='{spaced}/")
    assert command._usage("matbench_phonons", other)[-1] == (
        f"--config.data.source=matbench --config.data.task=matbench_phonons --config.data.path={other}/matbench_phonons/"
        "matbench_phonons.json.gz"
    )


def test_the_command_checks_what_was_brought(tmp_path: Path) -> None:
    """No set is small enough to make here, so a benchmark's wrong content stands for all."""
    name = "dft_3d_slme"
    brought = tmp_path / name / f"{name}.json.zip"
    brought.parent.mkdir()
    brought.write_bytes(b"wrong")
    wrong = fetch(tmp_path, name)
    assert wrong.returncode == 1 and f"{brought} is not the published file" in wrong.stderr
    assert sets.SETS[name].files[0].git_blob in wrong.stderr and brought.exists()


def test_the_command_lists_and_explains(tmp_path: Path) -> None:
    listed = fetch(tmp_path, "--list")
    assert listed.returncode == 0
    assert "matbench_log_kvrh                   10987  Matbench v0.1, task log_kvrh" in listed.stdout
    offline = fetch(tmp_path, "matbench_phonons")
    assert offline.returncode == 1
    by_hand = tmp_path / "matbench_phonons" / "matbench_phonons.json.gz"
    assert "cannot be reached" in offline.stderr and f"put it at\n  {by_hand}" in offline.stderr
    for arguments, message in (
        (("matbench_phonon",), "unknown set 'matbench_phonon'; --list shows them"),
        (("materials_project", "--output=x.jsonl.gz"), "either --chemsys=Li-Fe-O or --ids=FILE"),
        (("materials_project", "--output=x.jsonl.gz", "--chemsys=Li-O"), "export MP_API_KEY=..."),
    ):
        wrong = fetch(tmp_path, *arguments)
        assert wrong.returncode == 1 and message in wrong.stderr and "Traceback" not in wrong.stderr
