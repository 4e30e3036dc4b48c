"""List the modules of a package, their imports and their floors. ``python house.py PACKAGE`` prints the list."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

DOORS = {"__init__", "__main__"}


def modules(package: Path) -> Iterator[tuple[str, Path]]:
    """Yield the modules of a package: dotted name, without the name of the package, and file."""
    for path in sorted(package.rglob("*.py")):
        name = ".".join(path.relative_to(package).with_suffix("").parts).removesuffix(".__init__")
        if name not in DOORS:
            yield name, path


def imports(path: Path, known: dict[str, Path], package: str) -> set[str]:
    """Return the modules of a package that a file imports, including imports inside functions and for types."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == package:
            base = (node.module or "").removeprefix(package).lstrip(".")
            for alias in node.names:
                inner = f"{base}.{alias.name}".lstrip(".")
                found.add(inner if inner in known else base)
        elif isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[2] for alias in node.names if alias.name.startswith(f"{package}.")}
    return found & set(known)


def floors(needs: dict[str, set[str]]) -> dict[str, int]:
    """Return the floor of each module: 0 without imports from the package, else 1 + the highest imported floor."""
    found: dict[str, int] = {}
    while left := set(needs) - set(found):
        free = {name for name in left if needs[name] <= set(found)}
        assert free, f"these import each other: {sorted(left)}"
        found |= {name: 1 + max((found[each] for each in needs[name]), default=-1) for name in free}
    return found


def main(package: Path) -> None:
    """Print the list, and the totals."""
    known = dict(modules(package))
    needs = {name: imports(path, known, package.name) for name, path in known.items()}
    floor = floors(needs)
    print(f"{'file':32}{'lines':>6}{'floor':>6}{'imports':>9}")
    for name, path in known.items():
        print(f"{name:32}{len(path.read_text().splitlines()):6}{floor[name]:6}{len(needs[name]):9}")
    wing = {name: name.partition(".")[0] for name in known}
    edges = [(name, each) for name, imported in needs.items() for each in imported]
    across = {(wing[a], wing[b]) for a, b in edges if wing[a] != wing[b]}
    between = sum(wing[a] != wing[b] for a, b in edges)
    print(f"{len(known)} modules in {len(set(wing.values()))} wings, {1 + max(floor.values())} floors")
    print(f"{len(edges)} imports, {between} of them between wings, by {len(across)} pairs of wings")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
