"""The files of a package, their imports and their floors; as a script, ``house.py PACKAGE`` prints the listing."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

DOORS = {"__init__", "__main__"}


def modules(package: Path) -> Iterator[tuple[str, Path]]:
    """List the modules of a package: dotted name without the package's, and file."""
    for path in sorted(package.rglob("*.py")):
        name = ".".join(path.relative_to(package).with_suffix("").parts).removesuffix(".__init__")
        if name not in DOORS:
            yield name, path


def imports(path: Path, known: dict[str, Path], package: str) -> set[str]:
    """Name the modules of a package that a file imports, wherever in it: inside functions and for types, too."""
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
    """Give each module its floor: 0 imports nothing of the package, any other is one above the highest it imports."""
    found: dict[str, int] = {}
    while left := set(needs) - set(found):
        free = {name for name in left if needs[name] <= set(found)}
        assert free, f"these import each other: {sorted(left)}"
        found |= {name: 1 + max((found[each] for each in needs[name]), default=-1) for name in free}
    return found


def main(package: Path) -> None:
    """Print the listing, and the sums."""
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
