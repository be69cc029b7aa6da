"""What the tree promises: imports go one way, files and functions are short, names say what they hold."""

import ast
import re
import tomllib
from pathlib import Path

import pytest
from tiny import ROOT

PACKAGE = ROOT / "pmc_jax"
# A folder imports only from its own layer and from those before it.
LAYERS = (
    ("errors", "settings", "config", "registry"),
    ("data",),
    ("distributed",),
    ("tracking",),
    ("models",),
    ("sampling",),
    ("training",),
    ("methods",),
    ("functional",),
    ("evaluate",),
    ("report", "plan"),
    ("compare",),
    ("runs",),
    ("main",),
)
LAYER = {name: number for number, names in enumerate(LAYERS) for name in names}
LINES, FUNCTION_LINES, PARAMETERS, WIDTH, README_LINES = 300, 60, 9, 120, 150
VAGUE = {"found", "at", "most", "where"}  # what a variable holds is not said by these
OTHERS = {".venv", ".venv-lowest", "build", "runs"}
FILES = sorted(f for f in ROOT.rglob("*.py") if not OTHERS & set(f.relative_to(ROOT).parts[:1]))
OURS = [f for f in FILES if PACKAGE in f.parents]


def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def functions(tree: ast.AST):
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def place(file: Path) -> str:
    return str(file.relative_to(ROOT))


def imported(tree: ast.AST) -> set[str]:
    """The first names below pmc_jax that a file imports, inside functions too."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "pmc_jax":
            below = node.module.split(".")[1:]
            names |= {below[0]} if below else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {a.name.split(".")[1] for a in node.names if a.name.startswith("pmc_jax.")}
    return names


def test_imports_go_downwards():
    upwards = []
    for file in OURS:
        own = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if own == "__init__":  # the public names, each imported at its first use
            continue
        for name in imported(parsed(file)) & LAYER.keys():
            if LAYER[name] > LAYER[own] or (LAYER[name] == LAYER[own] and name != own and own in ("report", "plan")):
                upwards.append(f"{place(file)} imports {name}")
    assert not upwards, "\n".join(upwards)


def test_every_folder_has_a_layer():
    names = {f.relative_to(PACKAGE).parts[0].removesuffix(".py") for f in OURS} - {"__init__"}
    assert names == LAYER.keys()


@pytest.mark.parametrize("folder", ["pmc_jax", "tests", "benchmarks", "examples", "configs"])
def test_files_are_short(folder):
    long = {place(f): n for f in FILES if ROOT / folder in f.parents and (n := len(f.read_text().splitlines())) > LINES}
    assert not long


@pytest.mark.parametrize("folder", ["pmc_jax", "tests", "benchmarks", "examples"])
def test_functions_are_short(folder):
    long = {
        f"{place(f)}:{node.lineno} {node.name}": node.end_lineno - node.lineno + 1
        for f in FILES
        if ROOT / folder in f.parents
        for node in functions(parsed(f))
        if node.end_lineno - node.lineno >= FUNCTION_LINES
    }
    assert not long


def test_functions_have_few_parameters():
    """pmc_jax.sample and pmc_jax.unlearn are contracts; the others have records."""
    many = {}
    for file in OURS:
        for node in functions(parsed(file)):
            a = node.args
            count = len([*a.posonlyargs, *a.args, *a.kwonlyargs]) - (a.args[:1] != [] and a.args[0].arg == "self")
            if count > PARAMETERS and node.name not in ("sample", "unlearn"):
                many[f"{place(file)}:{node.lineno} {node.name}"] = count
    assert not many


def test_names_say_what_they_hold():
    vague = []
    for file in OURS:
        for node in ast.walk(parsed(file)):
            name = node.id if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) else None
            name = node.arg if isinstance(node, ast.arg) else name
            if name in VAGUE:
                vague.append(f"{place(file)}:{node.lineno} {name}")
    assert not vague, "\n".join(vague)


def test_public_names_are_documented():
    bare = []
    for file in OURS:
        tree = parsed(file)
        for node in [tree, *tree.body]:
            is_public = isinstance(node, ast.Module) or (
                isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
            )
            if is_public and not ast.get_docstring(node):
                bare.append(f"{place(file)}: {getattr(node, 'name', 'the module')}")
    assert not bare, "\n".join(bare)


def test_folders_shadow_no_public_name():
    import pmc_jax

    assert not {p.stem for p in PACKAGE.iterdir()} & set(pmc_jax.__all__)


def test_every_package_is_installed():
    """pyproject names each folder with Python files, and the presets."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    folders = {".".join(f.parent.relative_to(ROOT).parts) for f in PACKAGE.rglob("__init__.py")}
    assert folders <= set(project["packages"]) and "pmc_jax.presets" in project["packages"]
    assert project["package-dir"] == {"pmc_jax.presets": "configs"}


def test_the_readme_is_short():
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= README_LINES and all(len(line) <= WIDTH for line in lines)


def test_the_documents_lead_to_files_that_exist():
    missing = []
    for page in [ROOT / "README.md", ROOT / "launch" / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for link in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
            if "://" not in link and not (page.parent / link).exists():
                missing.append(f"{place(page)}: {link}")
    assert not missing, "\n".join(missing)
