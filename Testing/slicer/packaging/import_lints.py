"""What the extension's Python files may import at file scope, and other rules for what happens on import.

Importing runs in every start of Slicer: it takes only what Slicer ships, installs nothing, and fails for nobody.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator

_STDLIB = frozenset(sys.stdlib_module_names)
MODULE_MAY_IMPORT = frozenset({"slicer", "qt", "PythonQt", "ctk", "vtk", "vtkmodules", "SimpleITK", "numpy", "scipy"})
LIBRARY_MAY_IMPORT = frozenset({"XRayRegistrationLib", "numpy", "scipy", "SimpleITK", "pydicom"})  # knows no Slicer
# Code for one extra and nothing else. It may need the extra at file scope, and then nobody imports it at file scope.
# Code for one extra; and the rooms of networks, but for what is asked before there is one.
_FOR_AN_EXTRA = re.compile(
    r"(^|[./])(_\w*kernels|backend_(?!scipy)\w+|developing|ray_matching|ray_templates"
    r"|(networks|training)[./](?!(weights_store|weights_file|network_input|options|headers|log|schedule)\b)\w+)(\.py)?$"
)
_BOUND = r"[<>=!~]=?\s*[\w.*]+"
_REQUIREMENT = re.compile(rf"([A-Za-z0-9][\w.-]*)(\[[\w,-]+\])?\s*({_BOUND}(\s*,\s*{_BOUND})*)?(\s*;.*)?")
_INSTALLERS = {"pip_install", "pip_ensure", "pip_uninstall", "installTorch", "installPackages"}


def lint_module_imports(source: str, path: str, own: frozenset[str]) -> list[str]:
    """For a file of the Slicer module or of a package beside it.

    Args:
        source: the file's text.
        path: where it is, from the repository's root.
        own: the extension's packages.
    """
    allowed = MODULE_MAY_IMPORT | own | {path.partition("/")[0]}  # the last is where relative imports start
    return [
        f"{path}:{line}: imports {name} at file scope; allowed are {', '.join(sorted(allowed))}"
        for name, line in file_scope_imports(source, path)
        if not _is_allowed(name, allowed)
    ]


def lint_library_imports(sources: dict[str, str]) -> list[str]:
    """For all files of the library at once: what one file imports, it also imports through others.

    Args:
        sources: text of each file by its path from the repository's root.
    """
    imports = {path: file_scope_imports(source, path) for path, source in sources.items()}
    # why a file does not load with what Slicer ships
    reasons: dict[str, str] = {}
    grown = True
    while grown:
        grown = False
        for path, names in imports.items():
            for name, line in names:
                through = next((p for p in _paths(name) if p in reasons), None)
                if path not in reasons and (through or not _is_allowed(name, LIBRARY_MAY_IMPORT)):
                    grown = True
                    reasons[path] = f"{path}:{line}: imports {name} at file scope" + (f" ({reasons[through]})" if through else "")
    return [reason for path, reason in reasons.items() if not _FOR_AN_EXTRA.search(path)]


def _is_allowed(name: str, allowed: frozenset[str]) -> bool:
    package = name.partition(".")[0]
    return package in _STDLIB or package in allowed


def _paths(name: str) -> Iterator[str]:
    """Files that run when the module ``name`` is imported."""
    parts = name.split(".")
    yield "/".join(parts) + ".py"
    yield from ("/".join(parts[:n]) + "/__init__.py" for n in range(1, len(parts) + 1))


def lint_gone(source: str, path: str) -> list[str]:
    """Nothing, at any depth, from modules that Python 3.12 no longer has."""
    gone = {"imp", "distutils", "asynchat", "asyncore", "smtpd"}
    found = _imports(ast.walk(ast.parse(source)), path)
    return [f"{path}:{line}: {name} is gone in Python 3.12" for name, line in found if name.partition(".")[0] in gone]


def lint_no_install_on_import(source: str, path: str) -> list[str]:
    """Packages are installed where they are needed and after asking, never on import."""
    calls = (n for n in file_scope(ast.parse(source)) if isinstance(n, ast.Call))
    names = ((n.func.attr if isinstance(n.func, ast.Attribute) else getattr(n.func, "id", ""), n.lineno) for n in calls)
    return [f"{path}:{line}: {name}() at file scope" for name, line in names if name in _INSTALLERS]


def lint_requirements(text: str, path: str) -> list[str]:
    """One requirement a line, as ``slicer.packaging`` reads them; torch comes through the PyTorch extension."""
    complaints = []
    for line in (x.strip() for x in text.splitlines()):
        if not line or line.startswith("#"):
            continue
        found = _REQUIREMENT.fullmatch(line)
        if found is None:
            complaints.append(f"{path}: {line!r} is not a requirement that Slicer reads")
        elif found.group(1).lower() in ("torch", "torchvision", "light-the-torch"):
            complaints.append(f"{path}: {line!r}: the PyTorch extension installs it")
    return complaints


def lint_no_absolute_paths(text: str, path: str) -> list[str]:
    """No place of one machine in a text; of Python files in their strings, where docstrings may have examples.

    An URL has none: its slashes follow a colon or a name.
    """
    if path.endswith(".py"):
        tree = ast.parse(text)
        prose = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr)}
        strings = (n for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str))
        text = "\n".join(n.value for n in strings if id(n) not in prose)
    found = re.finditer(r"(?<![\w/.:*)\]}<])(?!/proc/cpuinfo)(/[A-Za-z_][\w.+-]*){2,}|file://|(?<!\w)[A-Za-z]:\\\w", text)
    return [f"{path}: absolute path {m.group(0)}" for m in found]


def lint_scripted_module(source: str, name: str) -> list[str]:
    """The classes that Slicer looks for in ``<name>.py``, with the bases of its template."""
    classes = {n.name: {_last_name(b) for b in n.bases} for n in ast.parse(source).body if isinstance(n, ast.ClassDef)}
    expected = {name + part: f"ScriptedLoadableModule{part}" for part in ("", "Widget", "Logic", "Test")}
    return [f"{name}.py: no class {c}({base})" for c, base in expected.items() if base not in classes.get(c, ())]


def parameter_names(source: str) -> set[str]:
    """Names of the fields of all classes that ``parameterNodeWrapper`` or ``parameterPack`` decorates."""
    wrappers = {"parameterNodeWrapper", "parameterPack"}
    classes = [n for n in ast.parse(source).body if isinstance(n, ast.ClassDef)]
    fields = [a for c in classes if wrappers & {_last_name(d) for d in c.decorator_list} for a in c.body]
    return {a.target.id for a in fields if isinstance(a, ast.AnnAssign) and isinstance(a.target, ast.Name)}


def file_scope(tree: ast.Module) -> Iterator[ast.AST]:
    """Every node that runs on import: not what stands in functions, nor under ``if TYPE_CHECKING``."""
    waiting: list[ast.AST] = list(tree.body)
    while waiting:
        node = waiting.pop(0)
        yield node
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            waiting += [*node.decorator_list, *node.args.defaults, *(d for d in node.args.kw_defaults if d)]
        elif isinstance(node, ast.If) and _last_name(node.test) == "TYPE_CHECKING":
            waiting += node.orelse
        elif not isinstance(node, ast.Lambda):
            waiting += ast.iter_child_nodes(node)


def file_scope_imports(source: str, path: str) -> list[tuple[str, int]]:
    """Names of what is imported when the file is, and the lines. Of ``from a import b`` both a and a.b: b may be a module."""
    return list(_imports(file_scope(ast.parse(source)), path))


def _imports(nodes: Iterator[ast.AST], path: str) -> Iterator[tuple[str, int]]:
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = path.removesuffix(".py").split("/")[: -node.level] if node.level else []
            origin = ".".join([*above, *([node.module] if node.module else [])])
            yield origin, node.lineno
            yield from ((f"{origin}.{alias.name}", node.lineno) for alias in node.names)


def _last_name(node: ast.expr) -> str:
    if isinstance(node, ast.Call):
        node = node.func
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
