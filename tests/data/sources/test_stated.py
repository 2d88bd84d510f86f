"""A CIF that is cut short or contradicts itself is refused, with and without the fast reader."""

import itertools
import sys

import pytest
import spglib

from cgcnn_jax.data.crystal import Crystal, CrystalError, CrystalFile
from cgcnn_jax.data.sources import cif, stated
from cgcnn_jax.data.sources.cdvae import CrystalText
from cgcnn_jax.data.sources.files import read_structure

# Rock salt as the Crystallography Open Database has it, but in the subgroup Fmmm, whose operations fit a page.
ROCK_SALT = """\
data_NaCl
_chemical_formula_sum 'Cl Na'
_cell_formula_units_Z 4
_cell_length_a 5.64
_cell_length_b 5.64
_cell_length_c 5.64
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_symmetry_space_group_name_H-M 'F m m m'
loop_
_symmetry_equiv_pos_as_xyz
x,y,z
x,y+1/2,z+1/2
x+1/2,y,z+1/2
x+1/2,y+1/2,z
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
Na1 Na 0 0 0 1
Cl1 Cl 0.5 0.5 0.5 1
"""
FORMULA = "_chemical_formula_sum 'Cl Na'\n_cell_formula_units_Z 4\n"
OPERATIONS = ROCK_SALT[ROCK_SALT.index("loop_") : ROCK_SALT.index("loop_\n_atom")]


@pytest.fixture(params=["with gemmi", "without"], autouse=True)
def reader(request, monkeypatch):
    """Both ways to read; a missing gemmi is that of a plain installation."""
    if request.param == "without":
        monkeypatch.setitem(sys.modules, "gemmi", None)
    cif.has_gemmi.cache_clear()
    yield
    monkeypatch.undo()
    cif.has_gemmi.cache_clear()


def read(text: str, folder) -> Crystal:
    (folder / "a.cif").write_text(text)
    return CrystalFile("a", folder / "a.cif").read()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", ""),
        ("'Cl Na'\n_cell_formula_units_Z 4", "'Na4 Cl4'"),
        ("'Cl Na'\n_cell_formula_units_Z 4", "'Na4 Cl4'\n_cell_formula_units_Z 4"),  # as pymatgen writes it
        ("'Cl Na'\n_cell_formula_units_Z 4", "'Cl Na'"),
        ("'Cl Na'", "?"),
        ("'Cl Na'", "'Na x Cl(1-x)'"),
        (FORMULA, ""),
        (OPERATIONS, ""),  # the name is enough: F m m m has the same sites
        ("Na1 Na ", "Na1 Na1+ "),
        (" 0.5 1\n", " 0.5 ?\n"),
    ],
)
def test_a_file_that_agrees_with_itself_is_read(tmp_path, before, after):
    assert before in ROCK_SALT
    assert sorted(read(ROCK_SALT.replace(before, after), tmp_path).species) == [11] * 4 + [17] * 4


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        # Cut short between two rows it is still a CIF.
        ("Cl1 Cl 0.5 0.5 0.5 1\n", "", r"its sites make Na4, but _chemical_formula_sum is 'Cl Na' with 4 units"),
        ("'Cl Na'\n_cell_formula_units_Z 4", "'Na8 Cl8'", "its sites make Cl4 Na4, but .* is 'Na8 Cl8'"),
        ("_units_Z 4", "_units_Z 8", "its sites make Cl4 Na4"),
        ("_units_Z 4", "_units_z 8", "its sites make Cl4 Na4"),
        ("_formula_sum 'Cl Na'", "_formula_Sum 'Cl K'", "its sites make Cl4 Na4"),
        ("'Cl Na'", "'Cl K'", "its sites make Cl4 Na4"),
        ("'Cl Na'", "'Cl H2 Na O'", "its sites make Cl4 Na4"),  # hydrogens that X-rays do not see
        ("x+1/2,y+1/2,z\n", "", "the 3 symmetry operations are no group; some are missing"),
        ("x,y+1/2,z+1/2\nx+1/2,y,z+1/2\nx+1/2,y+1/2,z\n", "", "its sites make Cl1 Na1"),  # a subgroup is a group
        ("x+1/2,y+1/2,z\n", "x+1/2,y+1/2,y\n", "the symmetry operation 'x.1/2,y.1/2,y' is none"),
        ("x+1/2,y+1/2,z\n", "x+1/2,y+1/2\n", "the symmetry operation 'x.1/2,y.1/2' "),
        (OPERATIONS, OPERATIONS.replace("x,y,z\n", "a\n"), "the symmetry operation 'a' "),
        (FORMULA + "_cell", "_cell", None),
        ("_cell_length_a 5.64", "_cell_length_a -5.64", "_cell_length_a is '-5.64', and the lattice read has 5.64"),
        ("_cell_angle_alpha 90", "_cell_angle_alpha 270", "_cell_angle_alpha is '270'"),
        ("_cell_angle_alpha 90", "_cell_angle_alpha 179", "_cell_angle_|lattice|thick"),
        ("_cell_length_a 5.64", "_cell_length_a 0", "a.cif: cannot be read"),
        ("0 0 0 1", ". 0 0 1", "site 0 has '.' as _atom_site_fract_x, which must be a number"),
        (
            "0 0 0 1",
            "0 0 0 .",
            "site 0 has '.' as _atom_site_occupancy, which must be a number greater than 0 and at most 1",
        ),
        ("0 0 0 1", "0 0 0 1.0001", "site 0 has '1.0001' as _atom_site_occupancy, .* at most 1"),
        ("0 0 0 1", "0 0 0 0", "site 0 has '0' as _atom_site_occupancy"),
        ("0 0 0 1", "0 0 0 -1", "site 0 has '-1' as _atom_site_occupancy"),
        ("0 0 0 1", "0 0 0 nan", "site 0 has 'nan' as _atom_site_occupancy"),
        ("0 0 0 1", "0 0 0 1O", "site 0 has '1O' as _atom_site_occupancy"),
        ("0 0 0 1", "0 0 0 0.5", "partially occupied"),
        ("0 0 0 1", "1e300 0 0 1", "a:|a.cif:"),
        ("0 0 0 1", "nan 0 0 1", "a.cif: cannot be read"),
        ("data_NaCl", ROCK_SALT.replace("NaCl", "one") + "data_NaCl", "2 data blocks with atoms"),
        ("data_NaCl", ROCK_SALT.replace("5.64", "3.4") + "data_NaCl", "2 data blocks are called 'NaCl'"),
        # Occupancies that are 1 but for rounding are held against the rest as any other.
        ("Cl1 Cl 0.5 0.5 0.5 1\n", "Cl2 Cl 0.25 0.5 0.5 0.9999\nCl1 Cl 0.5 0.5 0.5 1\n", "its sites make Cl8 Na4"),
        (
            "_equiv_pos_as_xyz",
            "_equiv_pos_as_XYZ",
            "_symmetry_equiv_pos_as_XYZ, which is read only as _symmetry_equiv_pos_as_xyz",
        ),
        ("_atom_site_occupancy", "_atom_site_Occupancy", "read only as _atom_site_occupancy"),
    ],
)
def test_a_file_that_contradicts_itself_is_refused(tmp_path, before, after, message):
    assert before in ROCK_SALT
    changed = ROCK_SALT.replace(before, after)
    if message is None:  # with no formula nothing speaks against the rest
        assert len(read(changed, tmp_path).species) == 8
        return
    with pytest.raises(CrystalError, match=message):
        read(changed, tmp_path)
    with pytest.raises(CrystalError):
        CrystalText("a", changed).read()


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (OPERATIONS, "", "it names the space group Qmmm, but no operations of it are known"),
        ("Na1 Na ", "Na1 Nq ", "site 0 is called 'Nq', which is not the symbol of an element"),
        ("Na1 Na ", "Na1 OH ", "site 0 is called 'OH'"),
    ],
)
def test_what_is_a_guess_needs_a_formula_that_confirms_it(tmp_path, before, after, message):
    bare = ROCK_SALT.replace(FORMULA, "").replace("F m m m", "Q m m m")
    assert before in bare
    with pytest.raises(CrystalError, match=message):
        read(bare.replace(before, after), tmp_path)


def test_a_guess_that_the_formula_confirms_is_taken(tmp_path):
    listed = "Na1 Na 0 0 0 1\nNa2 Na 0 .5 .5 1\nNa3 Na .5 0 .5 1\nNa4 Na .5 .5 0 1\n"
    listed += "Cl1 Cl .5 .5 .5 1\nCl2 Cl .5 0 0 1\nCl3 Cl 0 .5 0 1\nCl4 Cl 0 0 .5 1\n"
    text = ROCK_SALT.replace(OPERATIONS, "").replace("F m m m", "Q m m m")
    text = text[: text.index("Na1 Na")] + listed
    assert len(read(text, tmp_path).species) == 8
    with pytest.raises(CrystalError, match="no operations of it are known"):
        read(text.replace(FORMULA, ""), tmp_path)


DIAMOND = ("_symmetry_space_group_name_H-M 'F d -3 m'", 3 * [3.567] + 3 * [90], "C1 C {0} {0} {0} 1")
BISMUTH = ("_symmetry_space_group_name_H-M 'R -3 m'", [4.546, 4.546, 11.862, 90, 90, 120], "Bi1 Bi 0 0 0.2339 1")


def of_group(group: str, cell: list[float], atom: str, formula: str = "") -> str:
    """A CIF that names its space group and lists no operations."""
    names = ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma")
    lines = [f"_cell_{name} {value}" for name, value in zip(names, cell, strict=True)]
    return "\n".join(
        [
            "data_x",
            formula,
            *lines,
            group,
            ROCK_SALT[ROCK_SALT.index("loop_\n_atom") : ROCK_SALT.index("Na1")] + atom + "\n",
        ]
    )


@pytest.mark.parametrize(
    "group",
    [
        DIAMOND[0],
        "_space_group_IT_number 227",
        # Names that pymatgen does not know, and a number that it then takes.
        *(
            f"_symmetry_space_group_name_H-M '{name}'\n_space_group_IT_number 227"
            for name in ("F d -3 m Z", "F d 3 m", "?")
        ),
    ],
)
def test_a_group_of_two_origins_needs_operations(tmp_path, group):
    # The first origin has an atom at 0, the second at 1/8. pymatgen takes the first, where 1/8 makes sixteen atoms.
    for x, content in itertools.product((0, 0.125), ("", "_chemical_formula_sum C8\n_cell_formula_units_Z 1")):
        with pytest.raises(CrystalError, match=r"names the space group (Fd-3m|227), which has two origins.*list those"):
            read(of_group(group, DIAMOND[1], DIAMOND[2].format(x), content), tmp_path)


@pytest.mark.parametrize("tag", ["name_h-m", "name_H_M", "name_Hall", "name_H-M_"])
def test_a_group_is_seen_under_every_tag_that_names_it(tmp_path, tag):
    with pytest.raises(CrystalError, match=r"names the space group (Fd-3m|-F4vw2vw3)"):
        read(
            of_group(
                DIAMOND[0]
                .replace("name_H-M", tag)
                .replace("F d -3 m", "-F 4vw 2vw 3" if "Hall" in tag else "F d -3 m"),
                *[DIAMOND[1], DIAMOND[2].format(0.125)],
            ),
            tmp_path,
        )


def test_a_formula_without_units_does_not_make_up_for_lost_operations(tmp_path):
    # Copper by a name that pymatgen does not know; one atom of the four would be simple cubic.
    group, cell, atom = "_symmetry_space_group_name_H-M 'Fm3m'", 3 * [3.6] + 3 * [90], "Cu1 Cu 0 0 0 1"
    for formula in ("", "_chemical_formula_sum Cu"):
        with pytest.raises(CrystalError, match="names the space group Fm3m, but no operations of it are known"):
            read(of_group(group, cell, atom, formula), tmp_path)
    with pytest.raises(CrystalError, match=r"its sites make Cu1, but .* with 4 units"):
        read(of_group(group, cell, atom, "_chemical_formula_sum Cu\n_cell_formula_units_Z 4"), tmp_path)


def test_a_byte_order_mark_is_no_damage(tmp_path):
    (tmp_path / "a.cif").write_text(ROCK_SALT, encoding="utf-8-sig")
    assert len(CrystalFile("a", tmp_path / "a.cif").read().species) == 8


def test_the_content_of_the_cell_does_not_tell_the_origin(tmp_path):
    """A general position of I41/a makes sixteen atoms from both, 0.93 Å and 2.22 Å apart."""
    content = "_chemical_formula_sum Si16\n_cell_formula_units_Z 1"
    cell, atom = [9, 9, 7, 90, 90, 90], "Si1 Si 0.512 0.95 0.144 1"
    text = of_group("_symmetry_space_group_name_H-M 'I 41/a'", cell, atom, content)
    with pytest.raises(CrystalError, match="names the space group I41/a, which has two origins"):
        read(text, tmp_path)


def test_the_groups_of_two_origins_are_those_of_spglib():
    settings = [spglib.get_spacegroup_type(hall_number) for hall_number in range(1, 531)]
    # Choices are "1" and "2", with the axes before them ("2cab"), but b1, c1 of the monoclinic ones are cells.
    second = [one for one in settings if one.number > 15 and one.choice.startswith("2")]
    assert {str(one.number) for one in second} == {name for name in stated._TWO_ORIGINS.split() if name.isdecimal()}
    assert {one.international_short.replace("_", "") for one in second} <= set(stated._TWO_ORIGINS.split())


@pytest.mark.parametrize(
    ("group", "cell", "fits"),
    [
        ("P 4", [4, 4, 40, 90, 90, 90], True),
        ("P 4", [4, 4.002, 40, 90, 90, 90.05], True),  # as rounded as a cell may be
        ("P 4", [4, 5.5, 40, 90, 90, 90], False),
        ("P 1 2/m 1", [3.2, 5, 30, 90, 100, 90], True),
        ("P 1 2/m 1", [3.2, 3.2, 30, 90, 90, 120], False),
    ],
)
def test_a_long_axis_hides_no_misfit_of_the_short_ones(tmp_path, group, cell, fits):
    text = of_group(f"_symmetry_space_group_name_H-M '{group}'", cell, "C1 C 0.1 0.2 0.3 1")
    if fits:
        assert len(read(text, tmp_path).species) == 4
    else:
        with pytest.raises(CrystalError, match="whose operations do not fit its cell"):
            read(text, tmp_path)


def test_a_named_group_must_fit_the_cell(tmp_path):
    assert len(read(of_group(*BISMUTH), tmp_path).species) == 6
    rhombohedral = [4.746, 4.746, 4.746, 57.2, 57.2, 57.2]
    with pytest.raises(CrystalError, match="names the space group R-3m, whose operations do not fit its cell"):
        read(of_group(BISMUTH[0], rhombohedral, "Bi1 Bi 0.2339 0.2339 0.2339 1"), tmp_path)


@pytest.mark.parametrize("suffix", ["xsf", "cssr"])
def test_a_file_that_counts_its_atoms_must_have_them(tmp_path, suffix):
    text = read(ROCK_SALT, tmp_path).to_structure().to(fmt=suffix)
    path = tmp_path / f"b.{suffix}"
    path.write_text(text)
    assert len(CrystalFile("b", path).read().species) == 8
    path.write_text(text[: text.rindex("\nCl" if suffix == "xsf" else "\n8 Cl")])
    with pytest.raises(
        CrystalError, match=f"b.{suffix}: cannot be read .7 atoms, and the file says 8; it is cut short"
    ):
        CrystalFile("b", path).read()


@pytest.mark.parametrize("kind", ["SLAB", "Polymer"])
def test_an_xsf_of_less_than_three_periods_is_no_crystal(tmp_path, kind):
    text = read(ROCK_SALT, tmp_path).to_structure().to(fmt="xsf")
    assert text.count("CRYSTAL") == 1
    path = tmp_path / "c.xsf"
    path.write_text(text.replace("CRYSTAL", kind))
    with pytest.raises(CrystalError, match=f"c.xsf: cannot be read .a {kind}, which is not periodic in all directions"):
        CrystalFile("c", path).read()


def test_deuterium_is_hydrogen_in_formulas_too():
    assert stated.confirms("D2 O", "4", {"H": 8, "O": 4})
    assert stated.confirms("H2 O", "4", {"D": 8, "O": 4})


def test_sites_that_would_keep_pymatgen_for_minutes_are_refused(tmp_path):
    rows = "".join(f"O{i} O{'?' if i == 0 else ''} {i / 2e4:.6f} 0.3 0.4 1\n" for i in range(20000))
    text = ROCK_SALT.replace(FORMULA, "").replace("5.64", "2000.0").replace(OPERATIONS, "").replace("F m m m", "P 1")
    with pytest.raises(CrystalError, match="would keep pymatgen for more than a minute"):
        read(text[: text.index("Na1 Na")] + rows, tmp_path)


@pytest.mark.parametrize("counts", ["1 2000000000", "Na Cl\n1 99776000000000002", "Na Cl\n1 1_000"])
def test_a_poscar_of_more_atoms_than_lines_takes_no_memory(tmp_path, counts):
    path = tmp_path / "POSCAR"
    cell = "salt\n1.0\n4 0 0\n0 4 0\n0 0 4\n"
    path.write_text(f"{cell}{counts}\nDirect\n0 0 0\n0.5 0.5 0.5\n")
    with pytest.raises(CrystalError, match=r"POSCAR: cannot be read \(it states [\d,]+ atoms, and has (10|9) lines\)"):
        read_structure(path)
    path.write_text(f"{cell}Na Cl\n1 1\nDirect\n0 0 0\n0.5 0.5 0.5")
    assert len(read_structure(path)) == 2


SALT = "Na Cl\n{scale}\n4 0 0\n0 4 0\n0 0 4\n{symbols}1 1\n{mode}\n0 0 0{na}\n{half} {half} {half}{cl}\n"


@pytest.mark.parametrize("name", ["POSCAR", "a.vasp", "a.poscar"])
def test_a_poscar_that_names_no_elements_is_not_one_of_hydrogen_and_helium(tmp_path, name):
    path = tmp_path / name
    with_symbols = {"symbols": "Na Cl\n", "na": "", "cl": ""}
    for named in (with_symbols, {"symbols": "", "na": " Na", "cl": " Cl"}):
        path.write_text(SALT.format(scale=1.0, mode="Direct", half=0.5, **named))
        assert read_structure(path).formula == "Na1 Cl1"
    path.write_text(SALT.format(scale=1.0, mode="Direct", half=0.5, symbols="", na="", cl=""))
    with pytest.raises(CrystalError, match=rf"{name}: cannot be read \(it names no elements, as POSCARs of VASP 4 do"):
        read_structure(path)


@pytest.mark.parametrize("mode", ["Cartesian", "Selective dynamics\nkartesian"])
@pytest.mark.parametrize("symbols", ["Na Cl\n", ""])
def test_a_poscar_scaled_to_a_volume_has_no_cartesian_coordinates(tmp_path, mode, symbols):
    path = tmp_path / "POSCAR"
    named = {
        "symbols": symbols,
        "na": " T T T Na" if "S" in mode else " Na",
        "cl": " T T T Cl" if "S" in mode else " Cl",
    }
    path.write_text(SALT.format(scale=-70.0, mode=mode, half=2, **named))
    with pytest.raises(
        CrystalError, match="its scale is negative, the volume of the cell, and its coordinates are Cart"
    ):
        read_structure(path)
    path.write_text(
        SALT.format(scale=-64.0, mode=mode.replace("Cart", "Dir").replace("kart", "dir"), half=0.5, **named)
    )
    assert read_structure(path).volume == pytest.approx(64.0)
    path.write_text(SALT.format(scale=1.0, mode=mode, half=2, **named))
    assert read_structure(path).frac_coords[1].tolist() == [0.5, 0.5, 0.5]


def test_labels_that_may_be_two_elements_want_a_formula(tmp_path):
    sites = "".join(f"{label} {x} 0.3 0.4 1\n" for label, x in (("O1", 0.1), ("HO1", 0.3), ("HO2", 0.5), ("Cl3", 0.8)))
    text = ROCK_SALT[: ROCK_SALT.index("Na1 Na")].replace("_atom_site_type_symbol\n", "").replace(OPERATIONS, "")
    text = text.replace("F m m m", "P 1")
    with pytest.raises(
        CrystalError, match=r"site 1 is called 'HO1', which may be H or Ho; mend it, or state the content"
    ):
        read(text.replace(FORMULA, "") + sites, tmp_path)
    # What pymatgen makes of them is holmium, and the formula says otherwise.
    with pytest.raises(CrystalError, match="its sites make"):
        read(text.replace(FORMULA, "_chemical_formula_sum 'Cl H2 O'\n_cell_formula_units_Z 1\n") + sites, tmp_path)
    assert sorted(read(text.replace(FORMULA, "") + sites.replace("HO", "H"), tmp_path).species.tolist()) == [
        1,
        1,
        8,
        17,
    ]


def test_attached_hydrogens_are_atoms_without_positions(tmp_path):
    sites = "O1 O 0 0 0 1 {}\nCl1 Cl 0.5 0.5 0.5 1 0\n"
    text = ROCK_SALT[: ROCK_SALT.index("Na1 Na")].replace("_occupancy\n", "_occupancy\n_atom_site_attached_hydrogens\n")
    text = text.replace(OPERATIONS, "").replace("F m m m", "P 1").replace(FORMULA, "")
    with pytest.raises(CrystalError, match="site 0 has 2 hydrogen atoms attached, which have no positions"):
        read(text + sites.format(2), tmp_path)
    assert sorted(read(text + sites.format(0), tmp_path).species.tolist()) == [8, 17]


def test_hydrogen_that_pymatgen_sets_aside_is_told(tmp_path):
    text = ROCK_SALT[: ROCK_SALT.index("Na1 Na")].replace(OPERATIONS, "").replace("F m m m", "P 1").replace(FORMULA, "")
    for sites in ("O1 O-H 0 0 0 1\n", "O1 O 0 0 0 1\nH1 H 0 0 0 1\n"):
        with pytest.raises(CrystalError, match="oxygen with hydrogen, which has no position"):
            read(f"{text}{sites}Cl1 Cl 0.5 0.5 0.5 1\n", tmp_path)


def test_operations_that_pymatgen_passes_over_for_moments_are_told(tmp_path):
    moments = "loop_\n_atom_site_moment_label\n" + "".join(f"_atom_site_moment_crystalaxis_{x}\n" for x in "xyz")
    with pytest.raises(
        CrystalError, match=r"it has 4 symmetry operations, of which pymatgen takes 1: beside magnetic moments"
    ):
        read(ROCK_SALT.replace(FORMULA, "") + moments + "Na1 0 0 1\n", tmp_path)
    assert len(read(ROCK_SALT.replace(FORMULA, ""), tmp_path).species) == 8
