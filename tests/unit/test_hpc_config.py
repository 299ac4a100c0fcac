"""Every check on what `qd-simulate` is asked for: one message that names the key and what came."""

import math

import pytest
import runs
from omegaconf import OmegaConf

from hpc.config import SimulateConfig
from hpc.config_axis import Axis
from hpc.config_variants import title


@pytest.fixture(scope="module")
def composed():
    return runs.composed("simulate", "experiment=smoke")


@pytest.fixture
def read(composed):
    """Read the smoke configuration with values changed by their dotted names."""

    def change(changes):
        config = OmegaConf.create(composed)
        for name, value in changes.items():
            OmegaConf.update(config, name, value, merge=False)
        return SimulateConfig.from_mapping(OmegaConf.to_container(config))

    return change


def test_the_smoke_configuration_is_read(read):
    config = read({})
    assert config.grid.diameter_nm.values == (2.0, 2.5, 3.0)
    assert config.grid.strain.num == 16
    assert config.material.name == "PbS"
    assert config.energy_kev == 22.0
    assert config.device == "auto"
    assert [variant.shape.name for variant in config.variants] == ["sphere"]
    assert config.variants[0].shape.centres is None
    assert config.particles.realisations == 4


def test_debye_waller_factors_are_replaced_by_label(read):
    assert [kind.b_iso for kind in read({"b_iso": {"S": 0.5}}).material.kinds] == [1.28, 0.5]


def test_without_anomalous_scattering_no_energy_is_needed(read):
    assert read({"anomalous": False, "energy_kev": None}).energy_kev is None


SOBOL = {
    "grid.sampling": "sobol",
    "grid.samples": 64,
    "grid.diameter_nm": "2 to 3",
    "grid.sigma": 0.1,
    "grid.strain": 0.0,
    "grid.b_scale": 1.0,
}


def test_a_sobol_grid_is_read(read):
    config = read(SOBOL)
    assert config.grid.samples == 64
    assert config.grid.diameter_nm.bounds == (2.0, 3.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        # sizes
        ({"grid.diameter_nm": [2.0, -3.0]}, r"grid\.diameter_nm must be > 0, got -3"),
        ({"grid.diameter_nm": [0.0]}, r"grid\.diameter_nm must be > 0, got 0"),
        ({"grid.diameter_nm": "0 to 3 step 1"}, r"grid\.diameter_nm must be > 0, got 0"),
        ({"grid.diameter_nm": []}, r"grid\.diameter_nm must hold at least one value"),
        ({"grid.diameter_nm": None}, r"grid\.diameter_nm must be a finite number, got None"),
        ({"grid.diameter_nm": [3.0, 3.0]}, r"grid\.diameter_nm must not repeat a value"),
        ({"grid.diameter_nm": ["big"]}, r"grid\.diameter_nm must be a finite number, got 'big'"),
        ({"grid.diameter_nm": [math.nan]}, r"grid\.diameter_nm must be a finite number, got nan"),
        ({"grid.diameter_nm": [math.inf]}, r"grid\.diameter_nm must be a finite number, got inf"),
        ({"grid.diameter_nm": [True]}, r"grid\.diameter_nm must be a finite number, got True"),
        ({"grid.diameter_nm": "2 to 10"}, r"grid\.diameter_nm is a range of a cartesian grid and needs"),
        ({"grid.diameter_nm": "2 - 10"}, r"grid\.diameter_nm must be a list, a number, .* got '2 - 10'"),
        (
            {"grid.diameter_nm": "10 to 2 step 1"},
            r"grid\.diameter_nm is an empty range: stop 2 lies below start 10",
        ),
        ({"grid.diameter_nm": "2 to 10 step 0"}, r"the step of grid\.diameter_nm must be > 0"),
        ({"grid.diameter_nm": "2 to 10 step -1"}, r"the step of grid\.diameter_nm must be > 0"),
        (
            {"grid.diameter_nm": "2 to 10 in 0"},
            r"number of points of grid\.diameter_nm must be a whole number >= 1",
        ),
        (
            {"grid.diameter_nm": "2 to 10 in 2.5"},
            r"number of points of grid\.diameter_nm must be a whole number >= 1",
        ),
        # the other axes
        ({"grid.sigma": [-0.1]}, r"grid\.sigma must be >= 0"),
        ({"grid.sigma": [5, 10]}, r"grid\.sigma is relative \(0\.1 is 10 %\) and must be <= 1, got 10"),
        ({"grid.strain": [0.5]}, r"grid\.strain is relative and must lie in -0\.1 to 0\.1"),
        ({"grid.strain": [-0.2]}, r"grid\.strain is relative and must lie in -0\.1 to 0\.1"),
        ({"grid.b_scale": [-1.0]}, r"grid\.b_scale must be >= 0"),
        ({"grid.tail": 0.0}, r"grid\.tail must lie in 0 to 0\.1"),
        ({"grid.tail": 1.0}, r"grid\.tail must lie in 0 to 0\.1"),
        # sampling
        ({"grid.sampling": "random"}, r"grid\.sampling must be 'cartesian' or 'sobol', got 'random'"),
        ({"grid.samples": 64}, r"grid\.samples belongs to grid\.sampling=sobol"),
        (SOBOL | {"grid.samples": 100}, r"grid\.samples must be a power of two .*, got 100"),
        (SOBOL | {"grid.samples": 0}, r"grid\.samples must be a whole number >= 1"),
        ({"grid.largest_nm": 20.0}, r"grid\.largest_nm belongs to grid\.sampling=sobol; .* null"),
        (SOBOL | {"grid.largest_nm": 4.0}, r"grid\.largest_nm leaves nothing at D = .*raise it or lower"),
        (SOBOL | {"grid.largest_nm": -4.0}, r"grid\.largest_nm must be > 0, got -4"),
        (
            SOBOL | {"grid.largest_nm": 30.0, "grid.sigma": "0 to 0.1"},
            r"grid\.largest_nm needs distributions: raise the lower end of grid\.sigma",
        ),
        ({"grid.shares": [1.0]}, r"grid\.shares belongs to grid\.sampling=sobol"),
        (SOBOL | {"grid.shares": [1.0, 2.0]}, r"grid\.shares must be a number for each of the 1 variants"),
        (SOBOL | {"grid.shares": [0.0]}, r"grid\.shares must be > 0"),
        (SOBOL | {"grid.samples": None}, r"grid\.samples must be a power of two .*, got None"),
        (SOBOL | {"grid.sigma": [0.1, 0.2]}, r"grid\.sigma of a Sobol grid is one value or 'START to STOP'"),
        (SOBOL | {"grid.strain": "0 to 0.01 in 3"}, r"grid\.strain of a Sobol grid is one value or"),
        # scattering vectors
        ({"q.max": 0.5}, r"Q range is empty: .*got 1 to 0\.5"),
        ({"q.max": 1.0}, r"Q range is empty"),
        ({"q.min": -1.0}, r"q\.min must be >= 0"),
        ({"q.step": 0.0}, r"q\.step must be > 0"),
        ({"q.step": -0.1}, r"q\.step must be > 0"),
        ({"q.max": "far"}, r"q\.max must be a finite number, got 'far'"),
        # energy
        ({"energy_kev": None}, r"energy is missing.*there is no default"),
        ({"energy_kev": 0.0}, r"energy_kev must be > 0"),
        ({"energy_kev": -22.0}, r"energy_kev must be > 0"),
        ({"energy_kev": 1e6}, r"energy_kev must lie in .* keV, the table of Pb"),
        ({"q.max": 90.0}, r"q must lie in 0 to 75\.4"),
        # material and shape
        ({"material.sites.Pb.element": "Xx"}, r"element must be a chemical symbol"),
        ({"b_iso": {"Zn": 1.0}}, r"b_iso: PbS has the sites \['Pb', 'S'\], got \['Zn'\]"),
        ({"b_iso": {"Pb": -1.0}}, r"b_iso\.Pb must be >= 0"),
        ({"material.sites.Pb.occupancy": 1.5}, r"occupancy of site Pb must lie in"),
        ({"shape.name": "banana"}, r"shape\.name must be one of \[.*'sphere'.*\], got 'banana'"),
        ({"shape.centres": []}, r"shape\.centres must be a list with at least one cut centre"),
        # variants
        ({"variants": {"shape": ["banana"]}}, r"variants: .*'banana'.* cannot be: .* got 'banana'"),
        ({"variants": {"shape": []}}, r"variants\.shape must be a list of at least one choice, got \[\]"),
        (
            {"variants": {"shape": "cube"}},
            r"variants\.shape must be a list of at least one choice, got 'cube'",
        ),
        ({"variants": {"form": ["cube"]}}, r"variants has the keys \[.*'shape'.*\], got \['form'\]"),
        ({"variants": {"faults": [{"twins": 1}]}}, r"variants: .* faults has the keys .*faults\.twins"),
        ({"variants": {"faults": [3]}}, r"variants\.faults: a choice is a name or a mapping .*, got 3"),
        (
            {"variants": {"lattice": ["ideal", {"alpha_deg": 90.0}]}},
            r"variants must differ, numbers 0 and 1 are",
        ),
        ({"variants": []}, r"variants must map groups to lists of choices, or be null; got \[\]"),
        ({"variants": "cube"}, r"variants must map groups to lists of choices, or be null; got 'cube'"),
        (
            SOBOL | {"grid.samples": 2, "variants": {"shape": ["sphere", "cube", "octahedron"]}},
            r"grid\.samples must be at least the number of variants, 3, got 2",
        ),
        ({"coating": {"material": "lead", "thickness_nm": 1.0}}, r"coating\.material must be one of"),
        # particles
        ({"particles.size_step_nm": 0.0}, r"particles\.size_step_nm must be > 0"),
        ({"particles.size_step_nm": 50.0}, r"particles\.size_step_nm must lie in 0\.001 to 5 nm"),
        ({"particles.cut_step_nm": -0.1}, r"particles\.cut_step_nm must be > 0"),
        ({"particles.realisations": 0}, r"particles\.realisations must be a whole number >= 1"),
        ({"particles.tolerance": 1.0}, r"particles\.tolerance must lie in 1e-1\d to"),
        # store
        ({"store.rows_per_shard": 0}, r"store\.rows_per_shard must be a whole number >= 1"),
        ({"store.rows_per_shard": 2.5}, r"store\.rows_per_shard must be a whole number >= 1"),
        ({"store.rows_per_chunk": -8}, r"store\.rows_per_chunk must be a whole number >= 1"),
        (
            {"store.rows_per_chunk": 3},
            r"store\.rows_per_shard must be a multiple of store\.rows_per_chunk, got 16 and 3",
        ),
    ],
)
def test_what_cannot_be_simulated_is_refused(read, changes, message):
    with pytest.raises(ValueError, match=message):
        read(changes)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"energy_kev": "blue"}, "energy_kev"),
        ({"b_iso": 1.3}, "b_iso"),
        ({"anomalous": "maybe"}, "anomalous"),
        ({"compton": "no way"}, "compton"),
        ({"seed": None}, "seed"),
        ({"seed": "x"}, "seed"),
        ({"seed": -1}, "seed"),
        ({"store.path": None}, "store.path"),
        ({"store.path": ""}, "store.path"),
        ({"shape.centres": "Pb"}, "shape.centres"),
        (SOBOL | {"grid.samples": "many"}, "grid.samples"),
        (SOBOL | {"grid.samples": 2.5}, "grid.samples"),
        ({"grid.diameter_nm": "3 to 3 in 5"}, "grid.diameter_nm"),
    ],
)
def test_values_of_the_wrong_type_are_refused_by_name(read, changes, key):
    with pytest.raises(ValueError, match=key.replace(".", r"\.")):
        read(changes)


@pytest.mark.parametrize(
    "key", ["q.stop", "grid.diametre_nm", "shape.center", "particles.seed", "store.rows"]
)
def test_unknown_keys_are_refused(read, key):
    group, name = key.split(".")
    with pytest.raises(ValueError, match=rf"{group} has the keys \[.*\], got \['({group}\.)?{name}'\]"):
        read({key: 1})


@pytest.mark.parametrize(
    "key",
    [
        "grid",
        "q",
        "energy_kev",
        "faults",
        "variants",
        "particles.realisations",
        "grid.tail",
        "material.sites",
    ],
)
def test_a_missing_key_is_named(composed, key):
    config = OmegaConf.create(composed)
    group, _, name = key.rpartition(".")
    (OmegaConf.select(config, group) if group else config).pop(name)
    with pytest.raises(ValueError, match=rf"key '{name}'|lacks the key '{name}'"):
        SimulateConfig.from_mapping(OmegaConf.to_container(config))


def test_variants_are_the_product_of_choices_with_the_last_group_fastest(read):
    config = read({"variants": {"shape": ["sphere", "cube"], "lattice": ["ideal", {"alpha_deg": 89.6}]}})
    found = [(variant.shape.name, variant.lattice.alpha_deg) for variant in config.variants]
    assert found == [("sphere", 90), ("sphere", 89.6), ("cube", 90), ("cube", 89.6)]
    assert [title(variant) for variant in config.variants] == [
        "sphere",
        "sphere lattice.alpha_deg=89.6",
        "cube",
        "cube lattice.alpha_deg=89.6",
    ]


def test_keys_of_a_choice_replace_those_of_the_composed_group_and_names_the_whole_group(read):
    composed = {"shape.centres": ["Pb"], "lattice.alpha_deg": 89.5}
    chosen = {"shape": [{"name": "cube"}, "octahedron"], "lattice": [{"size_strain": [0.001, 0.0]}]}
    cube, octahedron = read(composed | {"variants": chosen}).variants
    assert cube.shape.name == "cube"
    assert cube.shape.centres == ("Pb",)
    assert octahedron.shape.centres is None
    for variant in (cube, octahedron):
        assert variant.lattice.alpha_deg == 89.5
        assert variant.lattice.size_strain == (0.001, 0.0)


def test_variants_may_be_listed_one_by_one(read):
    config = read({"variants": [{"shape": "cube"}, {"faults": {"growth": 0.02}}], "b_iso": {"S": 0.5}})
    assert [(v.shape.name, v.faults.growth) for v in config.variants] == [("cube", 0.0), ("sphere", 0.02)]
    assert all(variant.material is config.material for variant in config.variants)
    assert config.material.kinds[1].b_iso == 0.5


def test_the_choices_of_one_run_make_no_more_variants_than_a_store_can_hold(read):
    many = {"shape": ["cube", "sphere"], "lattice": [{"alpha_deg": 89 + i / 1e4} for i in range(5001)]}
    with pytest.raises(ValueError, match="more than 10000 combinations"):
        read({"variants": many})


def test_bounds_of_an_axis():
    assert Axis.read("x", [3, 1, 2]).bounds == (1, 3)
    assert Axis.read("x", "1 to 4 step 2").bounds == (1, 4)
