"""Arrows point inward: the imports of every file, read without running any."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {  # folder: the name it has when installed
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
MAY_NAME_COMMANDS = "diffpolicy.cli"  # its table holds the names of eval's functions


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
    """The folder that a dotted name lives in; None for other people's packages."""
    for folder in ("envs", "eval", "datasets", "diffpolicy"):
        if f"{module}.".startswith(f"{PACKAGES[folder]}."):
            return folder
    return None


def live(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes, at any depth, but those that only a type checker runs."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            yield from (inner for part in child.orelse for inner in (part, *live(part)))
        else:
            yield child
            yield from live(child)


def imported(module: str, path: Path, known: dict[str, Path]) -> Iterator[str]:
    """The project's modules that a file imports anywhere, absolutely or relatively."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in live(ast.parse(path.read_text(encoding="utf-8"))):
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
    """Folders of the project that a file's strings name as modules; docstrings are prose."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    prose = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr)}
    strings = [
        n.value
        for n in ast.walk(tree)
        if isinstance(n, ast.Constant) and isinstance(n.value, str) and id(n) not in prose
    ]
    return {"envs", "eval"} & {folder_of(s.partition(":")[0]) for s in strings}


def violations(root: Path) -> list[str]:
    """What is wrong with the arrows of a tree, in words."""
    known = modules(root)
    arrows = {module: set(imported(module, path, known)) for module, path in known.items()}
    wrong = []
    for module, targets in arrows.items():
        folder = folder_of(module)
        reached = {target: folder_of(target) for target in targets}
        if folder == "diffpolicy" and module != MAY_NAME_COMMANDS:
            reached |= {f"{name} in a string": name for name in names_in_strings(known[module])}
        wrong += [f"{module} -> {t}" for t, f in reached.items() if f in FORBIDDEN[str(folder)]]
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as error:
        wrong.append("circle: " + " -> ".join(reversed(error.args[1])))
    if (root / "datasets" / "__init__.py").exists():
        wrong.append("datasets is a package: it would hide Hugging Face's")
    return wrong


def test_the_project_s_arrows_point_inward():
    assert len(modules(ROOT)) > 30
    assert violations(ROOT) == []


def test_every_arrow_is_seen():
    """The checker knows absolute, relative, lazy and package-level imports of this very project."""
    known = modules(ROOT)

    def of(module: str) -> set[str]:
        return set(imported(module, known[module], known))

    assert {"diffpolicy.errors", "diffpolicy.environment.boundary"} <= of("diffpolicy.environment")
    assert {"diffpolicy.eval.compare", "diffpolicy.errors"} <= of("diffpolicy.eval.sweep")
    assert "diffpolicy.checkpoint" in of("diffpolicy.info")
    assert "diffpolicy.envs.planar" in of("diffpolicy.envs.pusht")


CLEAN_TREE = {
    "diffpolicy/__init__.py": "from typing import TYPE_CHECKING\n"
    "if TYPE_CHECKING:\n    from diffpolicy.policy import Policy\n",
    "diffpolicy/policy.py": "from diffpolicy import __doc__\nfrom diffpolicy.parts import a\n",
    "diffpolicy/parts/__init__.py": "from diffpolicy.parts.a import one\nfrom . import b\n",
    "diffpolicy/parts/a.py": "one = 1\n",
    "diffpolicy/parts/b.py": "from .a import one\n",
    "diffpolicy/cli.py": "COMMANDS = {'eval': 'diffpolicy.eval.evaluate:run'}\n",
    "envs/__init__.py": "",
    "envs/task.py": "import numpy\nfrom diffpolicy.policy import Policy\n",
    "eval/__init__.py": "",
    "eval/sweep.py": "",
    "eval/evaluate.py": "from diffpolicy.policy import Policy\nENV = 'diffpolicy.envs:Task-v0'\n",
    "datasets/recipe.py": "import diffpolicy.policy\n",
}


def plant(root: Path, files: dict[str, str]) -> list[str]:
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
        ("diffpolicy/parts/a.py", "def f():\n from diffpolicy import policy", "circle: "),
        ("diffpolicy/parts/a.py", "from . import b", "circle: "),
    ],
)
def test_a_wrong_arrow_is_named(tmp_path, name, text, complaint):
    [found] = plant(tmp_path, {name: text})
    assert complaint in found


def loads_torch(statement: str) -> bool:
    code = f"import sys; {statement}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip() == "True"


def test_the_front_door_is_light():
    """Seconds of torch are for those who use it."""
    assert not loads_torch(
        "import diffpolicy, diffpolicy.cli, diffpolicy.config, diffpolicy.eval.config"
    )
    assert loads_torch("from diffpolicy import Policy")
