"""`qd-pattern` and bad input: one message, nothing written."""

import numpy as np
import pytest

from hpc.pattern import main

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
        ("--q", "--centre Zn --q", "centre must be a site of PbS"),
        ("--q", "--b-iso Zn=1 --q", "the sites are ['Pb', 'S'], got ['Zn']"),
        ("--q", "--b-iso much --q", "--b-iso takes one number, or LABEL=NUMBER"),
        ("--q", "--b-iso -1 --q", "--b-iso"),
        ("sphere", "cylinder", "belong to a model particle ['sphere'], got the file cylinder"),
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
    "option", ["--material pbs", "--diameter-nm 2", "--centre Pb", "--sigma 0.1", "--strain 0.01"]
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
