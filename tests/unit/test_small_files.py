"""A file of under 60 lines with one importer belongs to that importer, or says why it does not."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROOTS = [ROOT / name for name in ("platform", "workers", "tasks", "ops")]
SMALL_LINES = 60
REASON = re.compile(r"^Alone because .+\.$", re.MULTILINE)
# pyproject.toml names these; Python and other programs import them.
NAMED = set(re.findall(r'= "(taskyard\.[\w.]*)', (ROOT / "pyproject.toml").read_text("utf-8")))


class Package:
    """Modules under some folders by their dotted names, and who imports each."""

    def __init__(self, roots: list[Path]) -> None:
        self.files = {_dotted(file, root): file for root in roots for file in root.rglob("*.py")}
        self._trees = {
            name: ast.parse(file.read_text("utf-8")) for name, file in self.files.items()
        }
        self._offered = {name: dict(self._offers(name)) for name in self.files}
        self.importers: dict[str, set[str]] = defaultdict(set)
        for name, tree in self._trees.items():
            for module, wanted in _imports(tree):
                if self._offered[name].get(wanted) != (module, wanted):
                    self._note(module, wanted, name)

    def _offers(self, name: str) -> Iterator[tuple[str, tuple[str, str]]]:
        """What an `__init__.py` only hands on: no use of its own."""
        if self.files[name].name != "__init__.py":
            return
        handed = _all(self._trees[name])
        for module, wanted in _imports(self._trees[name]):
            if wanted in handed:
                yield wanted, (module, wanted)

    def _note(self, module: str, wanted: str, importer: str) -> None:
        source = self._offered.get(module, {}).get(wanted)
        if f"{module}.{wanted}" in self.files:
            self.importers[f"{module}.{wanted}"].add(importer)
        elif source is not None:
            self._note(*source, importer)
        elif module != importer:
            self.importers[module].add(importer)

    def fragments(self) -> Iterator[tuple[str, str]]:
        """(name, its only importer) of the small files that give no reason."""
        for name, file in sorted(self.files.items()):
            entry = file.name in {"__init__.py", "__main__.py"} or name in NAMED
            if entry or "migrations" in file.parts or len(self.importers[name]) != 1:
                continue
            if len(file.read_text("utf-8").splitlines()) >= SMALL_LINES:
                continue
            if not REASON.search(ast.get_docstring(self._trees[name]) or ""):
                yield name, *self.importers[name]


def _dotted(file: Path, root: Path) -> str:
    parts = file.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports(tree: ast.Module) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield from ((node.module, alias.name) for alias in node.names)


def _all(tree: ast.Module) -> list[str]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    return []


def test_a_small_file_has_two_importers_or_gives_its_reason() -> None:
    assert list(Package(ROOTS).fragments()) == []


def _write(root: Path, files: Mapping[str, str]) -> Package:
    for name, text in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return Package([root])


def test_a_fragment_is_named_with_the_file_that_it_serves(tmp_path: Path) -> None:
    package = _write(tmp_path, {"a/part.py": "ONE = 1\n", "a/whole.py": "from a.part import ONE\n"})
    assert list(package.fragments()) == [("a.part", "a.whole")]


def test_what_a_package_hands_on_counts_for_those_who_take_it_there(tmp_path: Path) -> None:
    files = {
        "a/__init__.py": 'from a.part import ONE\n\n__all__ = ["ONE"]\n',
        "a/part.py": "ONE = 1\n",
        "b/first.py": "from a import ONE\n",
    }
    assert list(_write(tmp_path, files).fragments()) == [("a.part", "b.first")]
    files["b/second.py"] = "from a import ONE\n"
    assert list(_write(tmp_path, files).fragments()) == []


def test_a_reason_in_the_docstring_is_enough(tmp_path: Path) -> None:
    reason = '"""A part.\n\nAlone because the whole needs an extra.\n"""\nONE = 1\n'
    package = _write(tmp_path, {"a/part.py": reason, "a/whole.py": "from a.part import ONE\n"})
    assert list(package.fragments()) == []
