"""Public data sets that experiments.fetch brings: where from, how they are checked, whose they are.

Addresses, checksums and counts are those that their publishers write down; `facts` of a set says where. Where nobody
publishes a checksum there is none here, and only the number of records is checked.
"""

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class File:
    """A file of a set.

    Attributes:
      name: In the set's folder.
      url: Where it is downloaded.
      sha256: Of the content; empty if nobody publishes it.
      git_blob: The name that git gives the content, SHA-1 of "blob SIZE\\0" and the content; empty if it is in no repository.
    """

    name: str
    url: str
    sha256: str = ""
    git_blob: str = ""


@dataclass(frozen=True)
class DataSet:
    """A set.

    Attributes:
      name: As experiments.fetch and `data.task` call it.
      about: What it is, in a line.
      files: All of it.
      records: How many crystals (of a benchmark: ids) it holds.
      source: `data.source` that reads it.
      licence: Terms of the data.
      cite: Whom to cite.
      facts: Where the addresses, checksums and counts were read.
      benchmark: Whether it holds labels and splits of crystals of another set rather than crystals.
    """

    name: str
    about: str
    files: tuple[File, ...]
    records: int
    source: str
    licence: str
    cite: str
    facts: str
    benchmark: bool = False


def data_folder() -> Path:
    """Where fetched sets lie: CGCNN_JAX_DATA, or the user's data folder (~/.local/share/cgcnn_jax on Linux)."""
    import platformdirs

    return Path(os.environ.get("CGCNN_JAX_DATA") or platformdirs.user_data_path("cgcnn_jax")).expanduser()


def place(name: str, folder: Path) -> Path:
    """Where the file of a set belongs, or the folder of its files if it has several."""
    files = SETS[name].files
    return folder / name / files[0].name if len(files) == 1 else folder / name


def missing(name: str, folder: Path) -> list[Path]:
    """The files of a set that are not there."""
    return [path for file in SETS[name].files if not (path := folder / name / file.name).is_file()]


def locate(
    name: str, folder: Path | None = None, *, otherwise: str = "name a file with --config.data.path=PATH"
) -> Path:
    """The `place` of a fetched set.

    Raises:
      FileNotFoundError: If it is not there, with the command that fetches it, and what to do `otherwise`.
      ValueError: If there is no such set.
    """
    if name not in SETS:
        raise ValueError(
            f"{name!r} is no set that can be fetched; name it with data.path, or choose one of {', '.join(SETS)}"
        )
    folder = folder or data_folder()
    if lacking := missing(name, folder):
        raise FileNotFoundError(
            f"{name} is not there ({lacking[0]}); fetch it with\n  python -m experiments.fetch {name}\nor {otherwise}"
        )
    return place(name, folder)


_MATMINER = "github.com/hackingmaterials/matminer, src/matminer/datasets/dataset_metadata.json (8ddb18c7)"
_MATBENCH = "A. Dunn et al., npj Comput. Mater. 6, 138 (2020), doi:10.1038/s41524-020-00406-3"
_MATERIALS_PROJECT = "A. Jain et al., APL Mater. 1, 011002 (2013), doi:10.1063/1.4812323"
_JARVIS = "K. Choudhary et al., npj Comput. Mater. 6, 173 (2020), doi:10.1038/s41524-020-00440-1"
_NIST = "NIST: free use, copying and distribution with NIST's notice (github.com/usnistgov/jarvis, LICENSE.rst)"
_CC_BY = "not stated with the file; from the Materials Project, whose data are CC BY 4.0"
_CDVAE = "T. Xie et al., ICLR 2022, arXiv:2110.06197"
_CASTELLI = "I. E. Castelli et al., Energy Environ. Sci. 5, 9034 (2012), doi:10.1039/c2ee22341d"

# SHA-256 and number of entries.
_MATBENCH_FILES = {
    "matbench_log_kvrh": ("44b113ddb7e23aa18731a62c74afa7e5aa654199e0db5f951c8248a00955c9cd", 10987),
    "matbench_log_gvrh": ("098af941f4c663270f1fe21abf20ffad6fb85ecbfcba5786ceac03983ac29da7", 10987),
    "matbench_perovskites": ("4641e2417f8ec8b50096d2230864468dfa08278dc9d257c327f65d0305278483", 18928),
    "matbench_phonons": ("4db551f21ec5f577e6202725f10e34dfc509aa7df3a6bdaac497da7f6dbbb9b3", 1265),
    "matbench_dielectric": ("83befa09bc2ec2f4b6143afc413157827a90e5e2e42c1eb507ccfa01bf26a1d6", 4764),
    "matbench_jdft2d": ("26057dc4524e193e32abffb296ce819b58b6e11d1278cae329a2f97817a4eddf", 636),
    "matbench_mp_gap": ("58b65746bd88329986ed66031a2ac1369c7c522f7bc9f9081528e07097c2c057", 106113),
    "matbench_mp_e_form": ("dedcb1d4ba2e3e50dbdd45ba5bc647a00e9c2bcf8f8bf556dc8e92caa39eb21f", 132752),
    "matbench_mp_is_metal": ("9a028ed5750a4c76ca36e9f3c8d48fe0bf3fb21b76ec2289e58ae7048d527919", 106113),
}
_MATBENCH_ORIGINS = {
    "matbench_log_kvrh": (_CC_BY, "M. de Jong et al., Sci. Data 2, 150009 (2015), doi:10.1038/sdata.2015.9"),
    "matbench_log_gvrh": (_CC_BY, "M. de Jong et al., Sci. Data 2, 150009 (2015), doi:10.1038/sdata.2015.9"),
    "matbench_perovskites": ("not stated with the file", _CASTELLI),
    "matbench_phonons": (_CC_BY, "G. Petretto et al., Sci. Data 5, 180065 (2018), doi:10.1038/sdata.2018.65"),
    "matbench_dielectric": (_CC_BY, "I. Petousis et al., Sci. Data 4, 160134 (2017), doi:10.1038/sdata.2016.134"),
    "matbench_jdft2d": ("not stated with the file; " + _NIST, "K. Choudhary et al., Sci. Rep. 7, 5179 (2017)"),
}

# Git's name of the content at commit 57afc55f, and number of different ids.
_LEADERBOARD = {
    "dft_3d_Tc_supercon": ("55bdabee28d445330ad44bb7a49623a533eeaf23", 616),
    "dft_3d_avg_elec_mass": ("56a4e85cbeeb14b8490e487722380e7f1b6b2c25", 17642),
    "dft_3d_avg_hole_mass": ("2b795c9537549ba52b7bf7328bd6263ea52b3dd6", 17642),
    "dft_3d_bulk_modulus_kv": ("cfdecfd865d8b18513029f27843a24909e66f482", 19680),
    "dft_3d_dfpt_piezo_max_dielectric": ("d37714279e74e729406bbeefe63ec75cac0a8195", 4704),
    "dft_3d_dfpt_piezo_max_dij": ("bff10fc795d26cd891cd9990d20f1a7b2f4d2f91", 3345),
    "dft_3d_ehull": ("5215c277242b223e006d8853d5353f3bcb83be94", 55359),
    "dft_3d_encut": ("3cb2b225db6efbcac2d9e059a536da7b80796de0", 55384),
    "dft_3d_epsx": ("705b8bc926465588b42f48f573abab48fb1bc7b9", 44490),
    "dft_3d_epsy": ("e7613c0f23d219e55e8d8309951189d06a019153", 44490),
    "dft_3d_epsz": ("3b8e8b0ccb6f30f6cc8d7105e356f6f59b222539", 44490),
    "dft_3d_exfoliation_energy": ("f0701e56ebec6a016ef3bb99307333316c9e6248", 812),
    "dft_3d_formation_energy_peratom": ("3439c6d8b96c9b84487211c444e9b94f76784cf4", 55711),
    "dft_3d_kpoint_length_unit": ("23780834fe239a33281eed3ced28f28afee77c16", 55390),
    "dft_3d_magmom_oszicar": ("cdc5b4539aac4297a9528f324e45744e4b29afe2", 52209),
    "dft_3d_max_efg": ("5b4c97ac63295fa2840a7fccf6e1c7d99a46df66", 11865),
    "dft_3d_mbj_bandgap": ("badb0c122b0113135d069f125f61f44ba5c911b9", 18166),
    "dft_3d_mepsx": ("5368acc2cdc605ea13d4a6b9d3190bd351caca04", 16808),
    "dft_3d_mepsy": ("b6868a23fe446dbd07d32556f1789030dacecd29", 16808),
    "dft_3d_mepsz": ("f7d459b1b3035e83937c545c9321176f59f7bf33", 16808),
    "dft_3d_n_Seebeck": ("6f029a369c1c5dd93c714d4ab451ccb8ef71f945", 23210),
    "dft_3d_n_powerfact": ("6be8c1bdb3f42cac3deacbb451b6580eb185d688", 23210),
    "dft_3d_optb88vdw_bandgap": ("7fb7e1a04267376ce488879cd43de1718bad9109", 55711),
    "dft_3d_optb88vdw_total_energy": ("3d2421022f9b8ea4a2c4cc620a9112a5a6de5dc9", 55711),
    "dft_3d_ph_heat_capacity": ("4d13c90dfbccb91da9ab1ca298ada950cdf840e9", 12054),
    "dft_3d_shear_modulus_gv": ("34bf013bdba788b8ac40112322e4a922e92a3e58", 19680),
    "dft_3d_slme": ("e2b1ed26bd859735da7b53cba57fe39296fa26fe", 9061),
    "dft_3d_spillage": ("61b34b5bcc1353f7ced7664114788c6eca8fcb4d", 11375),
    "megnet_e_form": ("37a208f0666cccc87c0c1e5fbe718cc01073ac62", 69239),
    "megnet_gappbe": ("55dac651a8d7af766612a9f4180c29f5611c7a4f", 69239),
}
_LEADERBOARD_URL = (
    "https://raw.githubusercontent.com/usnistgov/jarvis_leaderboard/57afc55f94c8a6f4562f73a3173968cd4b2f83b1/"
    "jarvis_leaderboard/benchmarks/AI/SinglePropertyPrediction/"
)

_CDVAE_URL = "https://raw.githubusercontent.com/txie-93/cdvae/f857f598d6f6cca5dc1ea0582d228f12dcc2c2ea/data/"
# Git's names of train.csv, val.csv and test.csv at that commit.
_CDVAE_FILES = {
    "perov_5": (
        "0769074b5d51d293b765c4371b8f55c468c9c9f2",
        "4a2c8dde98347dd0e01fa83dcf3982c2abe98f9f",
        "d3c5d5af4b27a2a139149f2bb73c8a3dba9d8ac1",
    ),
    "carbon_24": (
        "5e7ae970fbad8ddc46b6963e8cd6e425f11783a6",
        "b3e29b927883642426ca1d9632d00359b412742b",
        "9beca843fde489de1fe288b32f9e3ff710d42803",
    ),
    "mp_20": (
        "b1c9d498565ac2fd8d075a51ff2ef5e51ba6c21f",
        "7efe4d7ebeb4f460ceaad35e5326c42111d9c9a1",
        "5dc643041df53f5ce4970a79930ad262b4f07acd",
    ),
}


def _matbench(name: str) -> DataSet:
    sha256, records = _MATBENCH_FILES[name]
    licence, origin = _MATBENCH_ORIGINS.get(name, (_CC_BY, _MATERIALS_PROJECT))
    file = File(f"{name}.json.gz", f"https://ml.materialsproject.org/projects/{name}.json.gz", sha256)
    about = f"Matbench v0.1, task {name.removeprefix('matbench_')}"
    return DataSet(name, about, (file,), records, "matbench", licence, f"{_MATBENCH}; {origin}", _MATMINER)


def _jarvis(name: str, about: str, number: int, file: str, records: int, licence: str, cite: str) -> DataSet:
    files = (File(f"{file}.zip", f"https://ndownloader.figshare.com/files/{number}"),)
    facts = (
        "github.com/usnistgov/jarvis, jarvis/db/figshare.py and docs/databases.md (3b0c9d0f); no checksum is published"
    )
    return DataSet(name, about, files, records, "jarvis", licence, cite, facts)


def _leaderboard(name: str) -> DataSet:
    blob, records = _LEADERBOARD[name]
    file = File(f"{name}.json.zip", f"{_LEADERBOARD_URL}{name}.json.zip", git_blob=blob)
    about = f"JARVIS-Leaderboard: values and split of {name}, for data.task"
    cite = f"{_JARVIS}; K. Choudhary et al., npj Comput. Mater. 10, 93 (2024)"
    facts = "github.com/usnistgov/jarvis_leaderboard (57afc55f)"
    return DataSet(name, about, (file,), records, "jarvis", _NIST, cite, facts, benchmark=True)


def _cdvae(name: str, about: str, records: int, licence: str, cite: str) -> DataSet:
    files = tuple(
        File(f"{split}.csv", f"{_CDVAE_URL}{name}/{split}.csv", git_blob=blob)
        for split, blob in zip(("train", "val", "test"), _CDVAE_FILES[name], strict=True)
    )
    facts = "github.com/txie-93/cdvae, data/ (f857f598)"
    return DataSet(name, about, files, records, "cdvae", licence, f"{_CDVAE}; {cite}", facts)


SETS: dict[str, DataSet] = {
    one.name: one
    for one in (
        *(_matbench(name) for name in _MATBENCH_FILES),
        _jarvis(
            "jarvis_dft_3d_2021",
            "JARVIS-DFT 3D of August 2021",
            29204826,
            "jdft_3d-8-18-2021.json",
            55723,
            _NIST,
            _JARVIS,
        ),
        _jarvis(
            "jarvis_dft_3d",
            "JARVIS-DFT 3D of December 2022",
            38521619,
            "jdft_3d-12-12-2022.json",
            75993,
            _NIST,
            _JARVIS,
        ),
        _jarvis(
            "jarvis_megnet",
            "MP-2018.6.1, the MEGNet set: formation energies and gaps",
            26724977,
            "megnet.json",
            69239,
            _CC_BY,
            "C. Chen et al., Chem. Mater. 31, 3564 (2019), doi:10.1021/acs.chemmater.9b01294",
        ),
        *(_leaderboard(name) for name in _LEADERBOARD),
        _cdvae(
            "perov_5",
            "Perov-5: cubic perovskites, heats of formation and gaps",
            18928,
            "MIT (the repository)",
            _CASTELLI,
        ),
        _cdvae(
            "carbon_24",
            "Carbon-24: carbon at 10 GPa, energies",
            10153,
            "MIT (the repository)",
            "C. J. Pickard, doi:10.24435/materialscloud:2020.0026/v1",
        ),
        _cdvae(
            "mp_20",
            "MP-20: the Materials Project's crystals of at most 20 atoms",
            27136 + 9047 + 9046,  # rows of the three files; their README says 45,231
            "MIT (the repository); data of the Materials Project, CC BY 4.0",
            _MATERIALS_PROJECT,
        ),
    )
}
