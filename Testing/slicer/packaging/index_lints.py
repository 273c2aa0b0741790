"""What the Extensions Index asks of an extension, as lints. Each returns its complaints; none means that all is well.

The index's own check reads the CMake file as text, with the same patterns as here, and fetches what the URLs name; from
inside of the repository the files that they name are checked instead.
"""

from __future__ import annotations

import ast
import json
import re
import struct
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

# schema v1.0.2 of a catalogue entry: key, type, whether it has to be there
_SCHEMA_URL = "https://raw.githubusercontent.com/Slicer/Slicer/main/Schemas/slicer-extension-catalog-entry-schema-v1.0.2.json"
_SCHEMA: dict[str, tuple[type, bool]] = {
    "$schema": (str, True),
    "category": (str, True),
    "scm_url": (str, True),
    "scm_revision": (str, False),
    "scm_type": (str, False),
    "build_dependencies": (list, False),
    "dicom_support_rule": (str, False),
    "build_subdirectory": (str, False),
    "enabled": (bool, False),
    "tier": (int, False),
}
ICON_SIZE = 128
LICENCES = ("LICENSE", "LICENCE", "License.txt", "license.txt", "LICENSE.txt", "COPYING", "COPYING.txt")
MAX_REPOSITORY_MB = 60  # the index allows 100; room is kept for the history to come


def cmake_project(cmake: str) -> str | None:
    """The project's name in the text of a CMake file, as the index finds it."""
    found = re.search(r"project\s*\(\s*([^\s\)\n\r]+)", cmake, re.IGNORECASE)
    return found.group(1).strip("\"'") if found else None


def cmake_value(cmake: str, name: str) -> str | None:
    """The value of ``set(EXTENSION_<name> "...")`` in the text of a CMake file, as the index finds it."""
    found = re.search(rf'set\s*\(EXTENSION_{name}\s*"([^"]+)"[ ]*\)', cmake, re.IGNORECASE)
    return found.group(1).strip() if found else None


def lint_entry(name: str, text: str) -> list[str]:
    """The catalogue entry ``<name>.json`` by itself: its keys, their types, and what its values may be."""
    try:
        entry = json.loads(text)
    except ValueError as error:
        return [f"{name}.json is not JSON: {error}"]
    complaints = [f"{name}.json: {k} is missing" for k, (_, needed) in _SCHEMA.items() if needed and k not in entry]
    for key, value in entry.items():
        if key not in _SCHEMA:
            complaints.append(f"{name}.json: the schema has no {key}")
        elif type(value) is not _SCHEMA[key][0]:
            complaints.append(f"{name}.json: {key} is {value!r}; allowed is a {_SCHEMA[key][0].__name__}")
    if complaints:
        return complaints
    if entry["$schema"].rstrip("#") != _SCHEMA_URL:
        complaints.append(f"{name}.json: $schema is {entry['$schema']}; these lints know {_SCHEMA_URL}")
    if entry["category"] != "Registration":
        complaints.append(f"{name}.json: category is {entry['category']}; expected Registration")
    if urlsplit(entry["scm_url"]).scheme != "https":
        complaints.append(f"{name}.json: scm_url is {entry['scm_url']}; allowed is https")
    if not 1 <= entry.get("tier", 1) <= 5:
        complaints.append(f"{name}.json: tier is {entry['tier']}; allowed is 1 to 5")
    return complaints


def lint_entry_against_cmake(name: str, entry: dict, cmake: str) -> list[str]:
    """The catalogue entry and the CMake file tell the same."""
    complaints = []
    pairs = {
        "project name": (cmake_project(cmake), name),
        "EXTENSION_CATEGORY": (cmake_value(cmake, "CATEGORY"), entry["category"]),
        "EXTENSION_HOMEPAGE": (cmake_value(cmake, "HOMEPAGE"), entry["scm_url"]),
        "EXTENSION_DEPENDS": (cmake_value(cmake, "DEPENDS"), " ".join(entry.get("build_dependencies", [])) or "NA"),
    }
    for what, (found, expected) in pairs.items():
        if found != expected:
            complaints.append(f"CMakeLists.txt: {what} is {found}; {name}.json has {expected}")
    return complaints


def lint_repository_name(entry: dict) -> list[str]:
    """The index takes new extensions only from repositories with "slicer" in their name."""
    repository = Path(urlsplit(entry["scm_url"]).path).stem
    return [] if "slicer" in repository.lower() else [f"repository {repository} has no Slicer in its name: Slicer{repository}?"]


def lint_dicom_rule(rule: str, modalities: tuple[str, ...]) -> list[str]:
    """The rule holds for these modalities and for no other. (Such simple rules are Python expressions too.)"""
    try:
        tree = ast.parse(rule, mode="eval")
    except SyntaxError as error:
        return [f"dicom_support_rule: {error.msg} in {rule!r}"]
    names = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
    if names != {"Modality"}:
        return [f"dicom_support_rule asks for {sorted(names)}; expected Modality alone"]
    code = compile(tree, "rule", "eval")
    complaints = []
    for modality in (*modalities, "CT", "MR", "US", ""):
        said, right = bool(eval(code, {"__builtins__": {}}, {"Modality": modality})), modality in modalities
        if said != right:
            complaints.append(f"dicom_support_rule is {said} for Modality {modality!r}; expected {right}")
    return complaints


def lint_urls(cmake: str, scm_url: str, branch: str, root: Path) -> list[str]:
    """Icon and screenshots: there is at least one, and what is said to lie in this repository does."""
    complaints = []
    raw = f"https://raw.githubusercontent.com{urlsplit(scm_url).path.removesuffix('.git')}/"
    for name in ("ICONURL", "SCREENSHOTURLS"):
        value = cmake_value(cmake, name)
        if value is None:
            complaints.append(f'CMakeLists.txt: no line set(EXTENSION_{name} "...")')
            continue
        for url in value.split():
            if not url.startswith("http"):
                complaints.append(f"EXTENSION_{name}: {url} does not start with http")
            elif url.startswith(raw):
                at, _, path = url.removeprefix(raw).partition("/")
                if at != branch:
                    complaints.append(f"EXTENSION_{name}: {url} is of branch {at}; scm_revision is {branch}")
                if not (root / path).is_file():
                    complaints.append(f"EXTENSION_{name}: {url} names {path}, which is not in the repository")
            elif urlsplit(url).path.startswith(urlsplit(scm_url).path):
                complaints.append(f"EXTENSION_{name}: {url} is a page; a file is under {raw}")
    return complaints


def lint_icon(data: bytes, name: str) -> list[str]:
    """A PNG of 128 x 128 pixels with transparency."""
    if data[:8] != b"\x89PNG\r\n\x1a\n" or data[12:16] != b"IHDR":
        return [f"{name} is not a PNG"]
    width, height, _depth, colour = struct.unpack(">IIBB", data[16:26])
    complaints = []
    if (width, height) != (ICON_SIZE, ICON_SIZE):
        complaints.append(f"{name} is {width} x {height}; expected {ICON_SIZE} x {ICON_SIZE}")
    if colour not in (4, 6) and b"tRNS" not in data:
        complaints.append(f"{name} is opaque: it would be a square on Slicer's toolbar")
    return complaints


def lint_licence(root: Path) -> list[str]:
    """A licence lies in the root, under a name that the index knows, and is not empty."""
    if any((root / n).is_file() and (root / n).stat().st_size > 500 for n in LICENCES):
        return []
    return [f"no licence in the root; looked for {', '.join(LICENCES)}"]


def repository_size_mb(root: Path) -> float:
    """Files of the working tree that git knows or would take, and what git keeps, in MB."""
    total = sum((root / f).stat().st_size for f in repository_files(root))
    counted = _git(root, "count-objects", "-v")
    if counted is not None:
        kept = dict(line.split(": ") for line in counted.splitlines())
        total += 1024 * (int(kept["size"]) + int(kept["size-pack"]))
    return total / 1e6


def lint_size(megabytes: float) -> list[str]:
    """A clone stays small."""
    return [] if megabytes <= MAX_REPOSITORY_MB else [f"the repository has {megabytes:.0f} MB; at most {MAX_REPOSITORY_MB}"]


def repository_files(root: Path, under: str = ".") -> list[str]:
    """Paths from ``root`` of the files below ``under`` that git tracks, or would if added. All, where there is no git."""
    listed = _git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", under)
    if listed is not None:
        return sorted({f for f in listed.split("\0") if f and (root / f).is_file()})
    found = (p.relative_to(root) for p in (root / under).rglob("*") if p.is_file())
    return sorted(p.as_posix() for p in found if not any(part == "__pycache__" or part[0] == "." for part in p.parts))


def _git(root: Path, *arguments: str) -> str | None:
    """What git says, or None where there is no git or ``root`` is not a repository's root."""
    if not (root / ".git").exists():
        return None
    try:
        return subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
