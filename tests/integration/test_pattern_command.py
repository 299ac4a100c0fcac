"""`qd-pattern`: bad input gives one message and nothing written; several sources, quantities, ranks."""

import logging
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from cif_files import ROCKSALT, XYZ, cif_text

from hpc.device import Device
from hpc.form_factors import scattering_factor
from hpc.pattern import main
from hpc.structure.files import read_structure
from hpc.structure.material import kind_pairs

SPHERE = "sphere --material pbs --diameter-nm 2 --energy-kev 22 --q 1 5 0.1"
ATOM = "1\n\nPb 0 0 0\n"


@pytest.fixture
def refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def run(arguments):
        before = sorted(entry.name for entry in tmp_path.iterdir())
        with pytest.raises(SystemExit) as caught:
            main([*arguments.split(), "-o", "out.xy"])
        assert caught.value.code not in (0, None)
        assert sorted(entry.name for entry in tmp_path.iterdir()) == before
        return capsys.readouterr().err

    return run


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("pbs", "unobtainium", "material must be one of"),
        ("--material pbs", "", "needs --material"),
        ("--diameter-nm 2", "", "needs --diameter-nm"),
        ("--diameter-nm 2", "--diameter-nm 0", "diameter_nm must be > 0, got 0"),
        ("--diameter-nm 2", "--diameter-nm -2", "diameter_nm must be > 0, got -2"),
        ("--diameter-nm 2", "--diameter-nm nan", "diameter_nm must be > 0, got nan"),
        ("--diameter-nm 2", "--diameter-nm two", "invalid float value: 'two'"),
        ("--energy-kev 22", "", "energy is missing"),
        ("--energy-kev 22", "--energy-kev 0", "energy_kev must be > 0"),
        ("--energy-kev 22", "--energy-kev 9999", "energy_kev must lie in"),
        ("--energy-kev 22", "--wavelength -1", "wavelength must be > 0"),
        ("--energy-kev 22", "--energy-kev 22 --wavelength 0.56", "not both"),
        ("--q 1 5 0.1", "--q 5 1 0.1", "Q range is empty"),
        ("--q 1 5 0.1", "--q 1 5 0", "q.step must be > 0"),
        ("--q 1 5 0.1", "--q -1 5 0.1", "q.min must be >= 0"),
        ("--q 1 5 0.1", "--q 1 90 0.1", "q must lie in 0 to 75.4"),
        ("--q 1 5 0.1", "", "--q"),
        ("--q", "--sigma -0.1 --q", "sigma must be >= 0"),
        ("--q", "--strain -1 --q", "strain must be > -1"),
        ("--q", "--tolerance 0 --q", "tolerance must be > 0"),
        ("--q", "--bin-width -1 --q", "bin_width must be > 0"),
        ("--q", "--realisations 0 --q", "realisations must be >= 1"),
        ("--q", "--seed -1 --q", "seed must be >= 0"),
        ("--q", "--centre Zn --q", "centre must be a site of PbS"),
        ("--q", "--centre 0.5,x,0 --q", "--centre takes site labels, bond, cell or x,y,z, got '0.5,x,0'"),
        ("--q", "--set alpha=89 --q", "--set takes GROUP.KEY=VALUE"),
        ("--q", "--set lattice.alpha_deg --q", "--set takes GROUP.KEY=VALUE"),
        ("--q", "--set lattice.alpha=89 --q", "lattice.alpha"),
        ("--q", "--set lattice.alpha_deg=[1 --q", "the value must be a number, a name, a list or a mapping"),
        ("--q", "--faults some --q", "faults must be one of"),
        ("--q", "--shape cube --q", "--shape is for crystal files"),
        ("--q", "--repeat 2 2 2 --q", "--repeat makes a block of unit cells"),
        ("--q", "--output-kind gr --q", "G(r) needs --r"),
        ("--q", "--output-kind gr --r 5 1 0.1 --q", "--r takes MIN MAX STEP"),
        ("--q 1 5 0.1", "--output-kind gr --r 0 50 1 --q 1 5 0.1", "step of q must be <"),
        ("--q", "--device cuda --q", "device=cuda"),
        ("pbs", "no.cif", "no.cif does not exist"),
        ("--q", "--b-iso Zn=1 --q", "the sites are ['Pb', 'S'], got ['Zn']"),
        ("--q", "--b-iso much --q", "--b-iso takes one number, or LABEL=NUMBER"),
        ("--q", "--b-iso -1 --q", "--b-iso"),
        ("sphere", "cylinder", "--material, --diameter-nm belong to a model particle"),
    ],
)
def test_bad_options_are_refused(refused, old, new, message):
    assert old in SPHERE
    assert message in refused(SPHERE.replace(old, new))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "cannot be read as a structure"),
        ("this is not a structure\n", "cannot be read as a structure"),
        ("3\n\nPb 0 0 0\n", "cannot be read as a structure"),
        ("0\n\n", "no atoms"),
        ("1\n\nPb nan 0 0\n", "position that is not finite"),
        ("2\n\nPb 0 0 0\nPb 0 0 0\n", "on top of each other"),
        ("1\n\nX 0 0 0\n", "element must be a chemical symbol"),
    ],
)
def test_bad_structure_files_are_refused(tmp_path, refused, content, message):
    (tmp_path / "atoms.xyz").write_text(content)
    error = refused("atoms.xyz --energy-kev 22 --q 1 5 0.1")
    assert message in error
    assert "atoms.xyz" in error or "site" in error or "element" in error


@pytest.mark.parametrize(
    "option",
    [
        "--material pbs",
        "--diameter-nm 2",
        "--centre Pb",
        "--shape cube",
        "--sigma 0.1",
        "--strain 0.01",
        "--faults deformation",
        "--set lattice.alpha_deg=89",
        "--realisations 2",
    ],
)
def test_options_of_model_particles_do_not_apply_to_files(tmp_path, refused, option):
    (tmp_path / "atoms.xyz").write_text(ATOM)
    assert option.split()[0] in refused(f"atoms.xyz --energy-kev 22 --q 1 5 0.1 {option}")


def test_without_output_the_pattern_goes_to_standard_output(capsys):
    main(SPHERE.split())
    lines = capsys.readouterr().out.splitlines()
    table = np.loadtxt(lines)
    np.testing.assert_allclose(table[:, 0], 1 + 0.1 * np.arange(41))
    data = [line for line in lines if not line.startswith("#")]
    assert all(len(line.split()[1].replace(".", "").lstrip("0")) >= 12 for line in data)


def test_a_place_that_cannot_be_written_is_one_message(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main([*SPHERE.split(), "-o", str(tmp_path / "no" / "out.xy")])
    assert "cannot write" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


DIMER = "2\n\nPb 0 0 0\nS 0 0 3\n"
CIF = cif_text(f"label {XYZ}", "Pb1 0 0 0\nS1 0.5 0.5 0.5\n", **ROCKSALT)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder with a dimer and a crystal."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dimer.xyz").write_text(DIMER)
    (tmp_path / "pbs.cif").write_text(CIF)
    return tmp_path


def pattern(line):
    main(line.split())


def columns(path):
    """Title line and values."""
    lines = Path(path).read_text().splitlines()
    return [line for line in lines if line.startswith("#")][-1], np.loadtxt(lines, unpack=True)


@pytest.mark.parametrize("kind", ["iq", "sq", "fq", "gr", "partials"])
def test_every_quantity_of_files_and_model_particles(here, kind):
    options = f"--energy-kev 22 --q 0.5 10 0.05 --r 1 6 0.5 --output-kind {kind}"
    pattern(f"dimer.xyz {options} -o file.dat")
    pattern(f"octahedron --material pbs --diameter-nm 1.5 {options} -o model.dat")
    expected = {
        "iq": "# Q [1/angstrom]   I [electron units]",
        "sq": "# Q [1/angstrom]   S",
        "fq": "# Q [1/angstrom]   F [1/angstrom]",
        "gr": "# r [angstrom]   G [1/angstrom^2]",
        "partials": "# Q [1/angstrom]   A_Pb-Pb   A_Pb-S   A_S-S",
    }
    for name in ("file.dat", "model.dat"):
        title, values = columns(name)
        assert title == expected[kind]
        assert len(values) == (4 if kind == "partials" else 2)
        assert len(values[0]) == (11 if kind == "gr" else 191)
        assert np.isfinite(values).all()
        assert f"# output_kind: {kind}" in Path(name).read_text()


def test_quantities_agree_with_each_other(here):
    options = "--energy-kev 22 --no-compton --q 0 10 0.1"
    for kind in ("iq", "sq", "fq"):
        pattern(f"dimer.xyz {options} --output-kind {kind} -o {kind}")
    (q, i), (_, s), (_, f) = (columns(kind)[1] for kind in ("iq", "sq", "fq"))
    np.testing.assert_allclose(f, q * (s - 1), atol=1e-12)
    lead, sulfur = (scattering_factor(e, q, energy_kev=22.0) for e in ("Pb", "S"))
    self_, mean = abs(lead) ** 2 + abs(sulfur) ** 2, (lead + sulfur) / 2
    np.testing.assert_allclose(s, 1 + (i - self_) / (2 * abs(mean) ** 2), rtol=1e-9)


def test_several_sources_are_files_in_a_folder(here, capsys):
    shutil.copy("dimer.xyz", "other.xyz")
    pattern("dimer.xyz other.xyz --energy-kev 22 --q 1 5 0.1 -o out")
    assert sorted(path.name for path in (here / "out").iterdir()) == ["dimer.xy", "other.xy"]
    np.testing.assert_array_equal(columns("out/dimer.xy")[1], columns("out/other.xy")[1])
    assert capsys.readouterr().out.count("41 points, Q = 1 to 5") == 2


def test_one_bad_source_does_not_stop_the_others(here, capsys):
    (here / "bad.xyz").write_text("2\n\nPb 0 0 0\nPb 0 0 0\n")
    with pytest.raises(SystemExit) as caught:
        pattern("bad.xyz dimer.xyz no.xyz --energy-kev 22 --q 1 5 0.1 -o out/")
    assert caught.value.code == 2
    assert [path.name for path in (here / "out").iterdir()] == ["dimer.xy"]
    errors = capsys.readouterr().err
    assert "error: bad.xyz: atoms 1 (Pb) and 2 (Pb) lie on top of each other" in errors
    assert "error: no.xyz does not exist" in errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("dimer.xyz pbs.cif", "several sources need a folder to write to: -o FOLDER/"),
        ("dimer.xyz pbs.cif -o dimer.xyz", "but dimer.xyz is a file"),
        (
            "dimer.xyz sub/dimer.xyz -o out/",
            "dimer.xyz and sub/dimer.xyz would both be written to out/dimer.xy",
        ),
        (
            "dimer.xyz pbs.cif -o out/ --save-structure s.xyz",
            "--save-structure writes the atoms of one source",
        ),
        ("pbs.cif -o out.xy", "describes a crystal, not a particle"),
        ("pbs.cif --shape ball --diameter-nm 2 -o out.xy", "shape must be one of"),
        ("pbs.cif --shape sphere -o out.xy", "needs --diameter-nm"),
        ("pbs.cif --shape sphere --diameter-nm 2 --material pbs -o out.xy", "--material is for shapes"),
        ("pbs.cif --repeat 2 2 0 -o out.xy", "repeat must be three whole numbers >= 1"),
        ("dimer.xyz --repeat 2 2 2 -o out.xy", "cannot be repeated: it has no unit cell"),
        ("dimer.xyz --bin-width 0.5 -o out.xy", "too coarse"),
        ("dimer.xyz -o out.xy --b-iso Zn=1", "--b-iso: the sites are ['Pb', 'S'], got ['Zn']"),
    ],
)
def test_what_does_not_fit_together_is_refused(here, capsys, arguments, message):
    before = sorted(path.name for path in here.iterdir())
    with pytest.raises(SystemExit):
        pattern(f"{arguments} --energy-kev 22 --q 1 20 0.1")
    assert message in capsys.readouterr().err
    assert sorted(path.name for path in here.iterdir()) == before


def test_b_of_a_file_is_kept_unless_it_is_given(here):
    header = "Properties=species:S:1:pos:R:3:b_iso:R:1"
    (here / "b.xyz").write_text(f"2\n{header}\nPb 0 0 0 1.3\nS 0 0 3 1.2\n")
    options = "--energy-kev 22 --q 1 15 0.1"
    pattern(f"b.xyz {options} -o file.xy")
    pattern(f"dimer.xyz {options} --b-iso Pb=1.3 S=1.2 -o given.xy")
    pattern(f"b.xyz {options} --b-iso S=0 -o one.xy")
    pattern(f"dimer.xyz {options} --b-iso Pb=1.3 -o same.xy")
    np.testing.assert_array_equal(columns("file.xy")[1], columns("given.xy")[1])
    np.testing.assert_array_equal(columns("one.xy")[1], columns("same.xy")[1])
    assert np.abs(columns("one.xy")[1] - columns("file.xy")[1]).max() > 1


def test_the_error_and_the_cost_are_said(here, caplog):
    with caplog.at_level(logging.INFO):
        pattern("pbs.cif --repeat 3 3 3 --energy-kev 22 --q 1 20 0.5 -o out.xy")
    assert "pbs.cif: 216 atoms, 2.32e+04 pairs, bins of 0.0" in caplog.text
    assert "estimated error" in caplog.text
    assert " MB" in caplog.text
    header = Path("out.xy").read_text()
    assert "# estimated_error: " in header
    assert "# bin_width_angstrom: 0.0" in header
    assert "# repeat: 3 3 3" in header


def test_options_of_variants_reach_the_particle(here):
    options = "--material pbs --diameter-nm 2 --energy-kev 22 --q 1 8 0.05"
    pattern(f"sphere {options} -o plain.xy")
    pattern(f"sphere {options} --set lattice.alpha_deg=89 -o alpha.xy")
    pattern(f"cube {options} --centre 0.25,0.25,0.25 bond -o cube.xy")
    plain, alpha, cube = (columns(name)[1][1] for name in ("plain.xy", "alpha.xy", "cube.xy"))
    assert 0.001 < np.abs(alpha / plain - 1).max() < 0.5
    assert np.abs(cube / plain - 1).max() > 0.1
    assert "'lattice': {'alpha_deg': 89.0}" in Path("alpha.xy").read_text()
    assert "# centres: (0.25, 0.25, 0.25) bond" in Path("cube.xy").read_text()


@pytest.mark.parametrize(
    "source",
    [
        "sphere --material pbs --diameter-nm 1.8 --centre Pb",
        "sphere --material pbs --diameter-nm 1.8 --centre Pb --strain 0.01 --b-iso 0.5",
        "sphere --material pbs --diameter-nm 1.8 --centre Pb --set disorder.core=0.1 --realisations 1 --seed 5",
        "pbs.cif --shape cube --diameter-nm 1.8 --centre Pb1",
        "pbs.cif --repeat 2 2 2",
    ],
)
def test_saved_atoms_have_the_same_pattern(here, source):
    options = "--energy-kev 22 --q 1 15 0.1"
    pattern(f"{source} {options} -o source.xy --save-structure atoms.xyz")
    pattern(f"atoms.xyz {options} -o again.xy")
    assert len(read_structure("atoms.xyz")) > 60
    np.testing.assert_allclose(columns("again.xy")[1], columns("source.xy")[1], rtol=2e-6)


def test_moments_of_a_gpu_give_the_same_pattern(here, monkeypatch):
    """The GPU's part is played by NumPy; `tests/kernels` tests the kernel itself."""
    gpu = Device(kind="cuda", index=0, name="played", free_bytes=0, compute_capability="9.0")

    def moments(positions, bins, device, *, part):
        assert device is gpu
        assert part == (0, 1)
        rows = []
        for a, b in kind_pairs(len(positions)):
            distance = np.linalg.norm(positions[a][:, None] - positions[b][None], axis=-1).ravel()
            distance = distance[distance > 0]
            rows.append(bins.moments_of(distance, np.full(len(distance), 1.0 if a == b else 2.0)))
        return np.stack(rows)

    options = "pbs.cif --repeat 2 2 2 --energy-kev 22 --q 1 20 0.5"
    pattern(f"{options} -o cpu.xy")
    monkeypatch.setattr("hpc.device.select_device", lambda *_, **__: gpu)
    monkeypatch.setattr("hpc.cuda.pairs.pair_moments_cuda", moments)
    pattern(f"{options} --device cuda -o gpu.xy")
    np.testing.assert_allclose(columns("gpu.xy")[1], columns("cpu.xy")[1], rtol=1e-9)


CONF = Path(__file__).resolve().parents[2] / "conf"


@pytest.mark.parametrize("group", ["surface", "lattice", "faults", "disorder", "coating", "motion"])
def test_every_choice_of_a_group_is_a_particle(here, group):
    """Those that are neutral are the plain particle, the others are not."""
    options = (
        f"--material {'pbse' if group == 'coating' else 'pbs'} --diameter-nm 2 --energy-kev 22 --q 1 6 0.2"
    )
    pattern(f"sphere {options} -o plain.xy")
    plain = columns("plain.xy")[1][1]
    names = sorted(path.stem for path in (CONF / group).glob("*.yaml"))
    assert len(names) > 1
    for name in names:
        pattern(f"sphere {options} --{group} {name} -o {name}.xy")
        difference = np.abs(columns(f"{name}.xy")[1][1] / plain - 1).max()
        if name in ("none", "ideal", "full", "independent"):
            assert difference == 0, name
        else:
            assert difference > 1e-4, name


def test_motion_of_a_structure_file_is_that_of_the_model(here):
    options = "--energy-kev 22 --q 1 15 0.1 --set motion.correlation=[0.5,0.2]"
    model = "sphere --material pbs --diameter-nm 2.5 --centre Pb"
    pattern(f"{model} {options} -o model.xy --save-structure dot.xyz")
    pattern(f"dot.xyz {options} -o file.xy")
    np.testing.assert_allclose(columns("file.xy")[1], columns("model.xy")[1], rtol=1e-6)
    assert "# motion: {'correlation': [0.5, 0.2]}" in Path("file.xy").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--set motion.surface_b=2", "motion.surface_b is for dots cut from a crystal"),
        ("--set motion.correlation=0.5", "motion.correlation must be a list of numbers"),
        ("--set motion.correlation=[0.5]", "2 shells of neighbours are needed"),
        ("--set lattice.alpha_deg=89", "--set belong to a model particle"),
        ("--motion jelly", "motion must be one of"),
        ("--texture 111=2", "--texture belong to a model particle"),
    ],
)
def test_motion_that_a_structure_file_cannot_have(refused, tmp_path, words, message):
    (tmp_path / "atom.xyz").write_text(ATOM)
    assert message in refused(f"atom.xyz --energy-kev 22 --q 1 5 0.1 {words}")


def test_texture(here):
    pattern(f"{SPHERE} -o plain.xy")
    pattern(f"{SPHERE} --texture 111=1 200=1 -o same.xy")
    pattern(f"{SPHERE} --texture 1,-1,-1=3 -o textured.xy")
    plain, same, textured = (columns(f"{name}.xy")[1] for name in ("plain", "same", "textured"))
    np.testing.assert_array_equal(same, plain)
    ratio = textured[1] / plain[1]
    assert ratio[np.argmin(np.abs(plain[0] - 1.83))] == pytest.approx(3, abs=0.2)
    assert ratio[np.argmin(np.abs(plain[0] - 2.99))] == pytest.approx(1, abs=0.05)
    assert "# texture: 1,-1,-1=3 by direction" in Path("textured.xy").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--texture 111", "--texture takes HKL=GAIN, for example 111=2"),
        ("--texture 11=2", "--texture takes HKL=GAIN"),
        ("--texture 000=2", "of a reflection"),
        ("--texture 111=-2", "the gain of 111 must be >= 0"),
        ("--texture 100=2 --texture-by reflection", "100 is no reflection of PbS (F m -3 m)"),
        ("--texture 111=2 222=3", "one direction"),
        ("--texture 111=2 --output-kind sq", "are those of random orientation"),
    ],
)
def test_texture_that_cannot_be(refused, words, message):
    assert message in refused(f"{SPHERE} {words}")


needs_mpi = pytest.mark.skipif(
    not (Path(sys.executable).parent / "mpiexec").exists() and shutil.which("mpiexec") is None,
    reason="no mpiexec: pip install -e '.[mpich]'",
)


@needs_mpi
def test_ranks_share_the_pairs_of_a_file(here, run_command):
    options = "pbs.cif --repeat 4 4 4 --energy-kev 22 --q 1 20 0.05 -o"
    run_command(f"python -m hpc.pattern {options} 0.xy".split())
    for ranks in (1, 3):
        run_command(f"mpiexec -n {ranks} python -m mpi4py -m hpc.pattern {options} {ranks}.xy".split())
    assert (here / "1.xy").read_bytes() == (here / "0.xy").read_bytes()
    assert (here / "3.xy").read_bytes() == (here / "0.xy").read_bytes()


@needs_mpi
def test_one_message_from_all_ranks(here, run_command):
    launched = "mpiexec -n 2 python -m mpi4py -m hpc.pattern no.xyz --energy-kev 22 --q 1 5 1"
    done = run_command(launched.split(), returncode=None)
    assert done.stderr.count("qd-pattern: error: no.xyz does not exist") == 1
