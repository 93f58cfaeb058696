"""The plan of the house, read from the files without running them.

Imports point inward and have no cycle, those for type checkers included.
"""

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from pkgutil import resolve_name
from typing import Literal, get_args, get_origin, get_type_hints

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {  # folder: its name when installed
    "diffpolicy": "diffpolicy",
    "envs": "diffpolicy.envs",
    "eval": "diffpolicy.eval",
    "datasets": "datasets",
}
FORBIDDEN = {
    "diffpolicy": {"envs", "eval", "datasets"},
    "envs": {"eval", "datasets"},
    "eval": {"envs", "datasets"},
    "datasets": {"envs", "eval"},
}
NAMES_COMMANDS = "diffpolicy.cli"  # its table holds the names of eval's functions
APART = ("diffpolicy.training", "diffpolicy.control")  # rooms that do not reach each other
FORMATS = "diffpolicy.data.formats"
FLAT_FILES, FILE_LINES = 14, 300

Imports = dict[str, set[str]]


def modules(root: Path) -> dict[str, Path]:
    """Every module of the project by its installed name."""
    found = {}
    for folder, package in PACKAGES.items():
        for path in sorted((root / folder).rglob("*.py")):
            inner = path.relative_to(root / folder).with_suffix("").parts
            parts = inner[:-1] if inner[-1] == "__init__" else inner
            found[".".join([package, *parts])] = path
    return found


def folder_of(module: str) -> str | None:
    """The folder of a dotted name; None for a package of others."""
    for folder in ("envs", "eval", "datasets", "diffpolicy"):
        if f"{module}.".startswith(f"{PACKAGES[folder]}."):
            return folder
    return None


def imported(module: str, path: Path, known: dict[str, Path]) -> Iterator[str]:
    """The project's modules that a file imports, at any depth, absolutely or relatively."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if folder_of(alias.name))
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *filter(None, [base])])
            if folder_of(base):
                names = [f"{base}.{alias.name}" for alias in node.names]
                yield from (name if name in known else base for name in names)


def names_in_strings(path: Path) -> set[str]:
    """Folders of the project that a file's strings name as modules, docstrings left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    prose = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr)}
    strings = [
        n.value
        for n in ast.walk(tree)
        if isinstance(n, ast.Constant) and isinstance(n.value, str) and id(n) not in prose
    ]
    return {"envs", "eval"} & {folder_of(s.partition(":")[0]) for s in strings}


def imports_of(root: Path) -> Imports:
    """{module: imported modules} of a tree."""
    known = modules(root)
    return {module: set(imported(module, path, known)) for module, path in known.items()}


def reached_from(room: str, imports: Imports) -> set[str]:
    """Modules that a room imports, directly or through others."""
    found = {module for module in imports if f"{module}.".startswith(f"{room}.")}
    while more := set().union(*(imports.get(module, ()) for module in found)) - found:
        found |= more
    return found


def violations(root: Path) -> list[str]:
    """Sentences about the wrong imports of a tree."""
    known, imports, wrong = modules(root), imports_of(root), []
    for module, targets in imports.items():
        folder = folder_of(module)
        reached = {target: folder_of(target) for target in targets}
        if folder == "diffpolicy" and module != NAMES_COMMANDS:
            reached |= {f"{name} in a string": name for name in names_in_strings(known[module])}
        wrong += [f"{module} -> {t}" for t, f in reached.items() if f in FORBIDDEN[str(folder)]]
    for room, other in (APART, APART[::-1]):
        inside = (m for m in reached_from(room, imports) if f"{m}.".startswith(f"{other}."))
        wrong += [f"{room} reaches {module}" for module in sorted(inside)]
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        wrong.append("cycle: " + " -> ".join(reversed(error.args[1])))
    if (root / "datasets" / "__init__.py").exists():
        wrong.append("datasets is a package: it would hide Hugging Face's")
    return wrong


def test_imports_of_the_project_point_inward():
    assert len(modules(ROOT)) > 30
    assert violations(ROOT) == []


def test_every_room_of_the_library_is_in_the_table_of_rooms():
    rooms = {path.parent.name for path in (ROOT / "diffpolicy").glob("*/__init__.py")}
    lines = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").splitlines()
    [line] = [line for line in lines if line.startswith("| `diffpolicy/` |")]
    assert {room for room in rooms if f"`{room}`" not in line} == set()


def test_every_import_is_seen():
    """Absolute, relative, lazy, package-level and type-checking imports of this very project."""
    imports = imports_of(ROOT)
    assert "diffpolicy.environment.boundary" in imports["diffpolicy.environment"]
    assert {"diffpolicy.eval.compare", "diffpolicy.files"} <= imports["diffpolicy.eval.sweep"]
    assert "diffpolicy.checkpoint" in imports["diffpolicy.info"]
    assert "diffpolicy.envs.planar" in imports["diffpolicy.envs.pusht"]
    assert "diffpolicy.policy" in imports["diffpolicy"]


CLEAN_TREE = {
    "diffpolicy/__init__.py": "from typing import TYPE_CHECKING\n"
    "if TYPE_CHECKING:\n    from diffpolicy.policy import Policy\n",
    "diffpolicy/policy.py": "from diffpolicy.parts.a import one\n",
    "diffpolicy/parts/__init__.py": "from diffpolicy.parts.a import one\nfrom . import b\n",
    "diffpolicy/parts/a.py": "one = 1\n",
    "diffpolicy/parts/b.py": "from .a import one\n",
    "diffpolicy/training/train.py": "from diffpolicy.policy import Policy\n",
    "diffpolicy/control/rollout.py": "from diffpolicy.policy import Policy\n",
    "diffpolicy/cli.py": "COMMANDS = {'eval': 'diffpolicy.eval.evaluate:run'}\n",
    "envs/__init__.py": "",
    "envs/task.py": "import numpy\nfrom diffpolicy.policy import Policy\n",
    "eval/__init__.py": "",
    "eval/sweep.py": "",
    "eval/evaluate.py": "from diffpolicy.policy import Policy\nENV = 'diffpolicy.envs:Task-v0'\n",
    "datasets/recipe.py": "import diffpolicy.policy\n",
}


def plant(root: Path, files: dict[str, str]) -> list[str]:
    """Violations of the clean tree with some files changed."""
    for name, text in (CLEAN_TREE | files).items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return violations(root)


def test_a_clean_tree_passes(tmp_path):
    assert plant(tmp_path, {}) == []


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        (
            "diffpolicy/x.py",
            "from diffpolicy.eval import evaluate",
            "x -> diffpolicy.eval.evaluate",
        ),
        ("diffpolicy/x.py", "def f():\n import diffpolicy.envs", "x -> diffpolicy.envs"),
        ("diffpolicy/x.py", "from diffpolicy import envs", "x -> diffpolicy.envs"),
        ("diffpolicy/x.py", "from .eval.evaluate import run", "x -> diffpolicy.eval.evaluate"),
        ("diffpolicy/x.py", "if 1:\n import datasets.recipe", "x -> datasets.recipe"),
        ("diffpolicy/parts/x.py", "from ..envs import task", "x -> diffpolicy.envs.task"),
        ("diffpolicy/x.py", "import_module('diffpolicy.envs.task')", "x -> envs in a string"),
        ("eval/x.py", "from ..envs.task import Task", "eval.x -> diffpolicy.envs.task"),
        ("envs/x.py", "from diffpolicy.eval.evaluate import run", "x -> diffpolicy.eval.evaluate"),
        ("datasets/x.py", "import diffpolicy.envs.task", "datasets.x -> diffpolicy.envs.task"),
        ("datasets/__init__.py", "", "datasets is a package"),
        ("diffpolicy/parts/a.py", "def f():\n from diffpolicy import policy", "cycle: "),
        ("diffpolicy/parts/a.py", "from . import b", "cycle: "),
        ("diffpolicy/parts/a.py", "from diffpolicy import __version__", "cycle: "),
        (
            "diffpolicy/parts/a.py",
            "if TYPE_CHECKING:\n from diffpolicy.policy import Policy",
            "cycle: ",
        ),
        (
            "diffpolicy/training/train.py",
            "from diffpolicy.control.rollout import rollout",
            "training reaches diffpolicy.control.rollout",
        ),
        (
            "diffpolicy/control/x.py",
            "from diffpolicy.training.train import train",
            "control reaches diffpolicy.training.train",
        ),
    ],
)
def test_a_wrong_import_is_named(tmp_path, name, text, complaint):
    [found] = plant(tmp_path, {name: text})
    assert complaint in found


def test_rooms_are_few_and_files_are_short():
    assert len(list((ROOT / "diffpolicy").glob("*.py"))) <= FLAT_FILES
    files = [*(ROOT / "diffpolicy").rglob("*.py"), *(ROOT / "eval").rglob("*.py")]
    lines = {str(path.relative_to(ROOT)): path.read_text().count("\n") for path in files}
    assert {name: count for name, count in lines.items() if count > FILE_LINES} == {}


def test_every_package_is_installed():
    """The list of packages in pyproject.toml is that of the folders."""
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = {m for m, path in modules(ROOT).items() if path.name == "__init__.py"}
    assert len(listed) == len(set(listed)) and set(listed) == folders
    for folder in ("diffpolicy", "envs", "eval"):
        inner = {path.parent for path in (ROOT / folder).rglob("*.py")}
        assert all((path / "__init__.py").exists() for path in inner)


@pytest.mark.parametrize(
    ("options", "field", "table", "more"),
    [
        ("diffpolicy.config:ModelConfig", "schedule", "diffpolicy.sampling.noise:SCHEDULES", ()),
        ("diffpolicy.config:ModelConfig", "normalizer", "diffpolicy.data.normalizer:FITS", ()),
        ("diffpolicy.config:ModelConfig", "encoder", "diffpolicy.denoisers.encoders:BACKBONES", ()),
        (
            "diffpolicy.specification:Specification",
            "grid",
            "diffpolicy.sampling.grids:SPACINGS",
            ("optimised",),
        ),
        ("diffpolicy.eval.config:EvalConfig", "engine", "diffpolicy.engines:ENGINES", ("auto",)),
        (f"{FORMATS}.options:SourceOptions", "format", f"{FORMATS}:MODULES", ()),
        (f"{FORMATS}.options:ExportOptions", "format", f"{FORMATS}:WRITERS", ()),
        (
            "diffpolicy.training.config:TrainConfig",
            "precision",
            "diffpolicy.training.precision:PRECISIONS",
            ("auto",),
        ),
        ("diffpolicy.eval.config:LatencyConfig", "net", "diffpolicy.eval.measure.nets:NETS", ()),
    ],
)
def test_the_choices_of_an_option_are_the_names_of_its_table(options, field, table, more):
    """A type checker needs the names in a Literal; the table is their definition."""
    hint = get_type_hints(resolve_name(options))[field]
    literal = next((part for part in get_args(hint) if get_origin(part) is Literal), hint)
    assert set(get_args(literal)) == {*resolve_name(table), *more}


@pytest.mark.parametrize("folder", ["diffpolicy", "eval"])
def test_mujoco_is_not_imported_before_its_opengl_is_chosen(folder):
    """MuJoCo chooses at import: `environment.make` names EGL before it, where no display is."""
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            early = any(name.partition(".")[0] == "mujoco" for name in names)
            assert not early or path.parent.name == "bench", path


def loads_torch(statement: str) -> bool:
    """True if a new interpreter has torch loaded after a statement."""
    code = f"import sys; {statement}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip() == "True"


def test_importing_the_package_does_not_load_torch():
    assert not loads_torch(
        "import diffpolicy, diffpolicy.cli, diffpolicy.config, diffpolicy.eval.config"
    )
    assert loads_torch("from diffpolicy import Policy")
