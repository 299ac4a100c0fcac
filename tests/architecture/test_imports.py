"""Who imports whom: learning sees little of simulation, and every heavy library enters through one door."""

import ast
from collections.abc import Callable, Iterable, Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# dotted name -> its syntax tree
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): ast.parse(
        path.read_text()
    )
    for room in ("hpc", "qdml")
    for path in sorted((ROOT / room).rglob("*.py"))
}

COMMANDS = (
    "hpc.simulate",
    "hpc.pattern",
    "hpc.storetool",
    "qdml.train",
    "qdml.evaluate",
    "qdml.predict",
    "qdml.fit",
)
# library -> the only modules that import it, as patterns
DOORS = {
    "mpi4py": ("hpc.mpi",),
    "zarr": ("hpc.store*", "qdml.stress.files"),
    "cupy": ("hpc.device", "hpc.cuda.*"),
    "cupyx": ("hpc.device", "hpc.cuda.*"),
    "torch.distributed": ("qdml.distributed",),
    "torch.nn.parallel": ("qdml.distributed",),
    "hydra": COMMANDS,
    "zuko": ("qdml.models.flow",),
}
# What learning may see of simulation: the data contract, pure physics, and the progress line.
SHARED = (
    "schema",
    "store",
    "device",
    "dots",
    "pairs.families",
    "pairs.nested",
    "structure",
    "ensemble",
    "form_factors",
    "radiation",
    "absorption",
    "scattering",
    "debye",
    "transform",
    "model_error",
    "motion",
    "texture",
    "instrument",
    "liquids",
    "memory",
    "named_files",
    "progress",
    "pattern_options",  # the words that name a sort of dots on the command lines of qd-pattern and qd-fit
)


def imported(module: str, nodes: Iterable[ast.AST]) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of everything that `nodes` of `module` import, `from` names included."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = module.split(".")[: -node.level] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Attribute) and ast.unparse(node) == "torch.distributed":
            yield node.lineno, "torch.distributed"  # works without an import of its own


def inside(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def offences(importers: Callable[[str], bool], forbidden: Callable[[str], bool]) -> list[str]:
    return [
        f"{module}, line {line}: {name}"
        for module, tree in MODULES.items()
        if importers(module)
        for line, name in imported(module, ast.walk(tree))
        if forbidden(name)
    ]


def test_the_walk_sees_every_kind_of_import() -> None:
    code = """
import a.b as c
from d import e
from . import f
from ..store import g
def late():
    import h
    torch.distributed.barrier()
"""
    seen = {name for _, name in imported("hpc.cuda.module", ast.walk(ast.parse(code)))}
    assert seen == {"a.b", "d.e", "hpc.cuda.f", "hpc.store.g", "h", "torch.distributed"}


def test_simulation_knows_nothing_of_learning() -> None:
    assert not offences(
        lambda module: inside(module, "hpc"), lambda name: inside(name, "qdml") or inside(name, "torch")
    )


def test_learning_sees_only_contract_and_physics_of_simulation() -> None:
    allowed = [f"hpc.{module}" for module in SHARED]
    assert not offences(
        lambda module: inside(module, "qdml"),
        lambda name: inside(name, "hpc") and not any(inside(name, module) for module in allowed),
    )


@pytest.mark.parametrize("library", DOORS)
def test_library_enters_through_one_door(library: str) -> None:
    def outside(module: str) -> bool:
        return not any(fnmatch(module, door) for door in DOORS[library])

    assert not offences(outside, lambda name: inside(name, library))


def circle(needs: dict[str, set[str]]) -> dict[str, set[str]]:
    """What is left of a graph once everything whose needs are gone is taken away: its circles, and who needs them."""
    left = {name: others - {name} for name, others in needs.items()}
    while free := [name for name, others in left.items() if not others & left.keys()]:
        for name in free:
            del left[name]
    return {name: others & left.keys() for name, others in left.items()}


def at_runtime(tree: ast.Module) -> Iterator[ast.AST]:
    """Every node but those for type checkers alone: a type may be that of a caller."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        typing_alone = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        waiting += [] if typing_alone else list(ast.iter_child_nodes(node))


def test_no_circle_of_imports() -> None:
    """Every module can be read, and imported, after those that it imports at its top."""
    needs = {
        module: {
            other
            for _, name in imported(module, tree.body)
            for other in (name, name.rpartition(".")[0])
            if other in MODULES
        }
        for module, tree in MODULES.items()
    }
    assert not circle(needs)


def test_no_circle_of_packages() -> None:
    """Neither do packages (`qdml.fitting`; a module beside them is one of its own) need each other, functions' imports
    included: whoever changes one knows who is above it.
    """

    def room(module: str) -> str:
        return ".".join(module.split(".")[:2])

    needs: dict[str, set[str]] = {}
    for module, tree in MODULES.items():
        if "." in module:
            found = (room(name) for _, name in imported(module, at_runtime(tree)) if name.count("."))
            needs.setdefault(room(module), set()).update(found)
    assert {"qdml.fitting", "qdml.files"} <= needs["qdml.measured"]
    assert not circle(needs)
