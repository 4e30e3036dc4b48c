"""The spectral indices that Sentinel-2 L2A allows, by the names and formulas of Awesome Spectral Indices (spyndex).

Montero, D., Aybar, C., Mahecha, M. D. et al.: A standardized catalogue of spectral indices to advance the use of remote
sensing in Earth system research. Scientific Data 10, 197 (2023), https://doi.org/10.1038/s41597-023-02096-0
"""

import ast
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from s2cube.errors import ConfigError

_BANDS = {
    "A": "coastal", "B": "blue", "G": "green", "R": "red", "RE1": "rededge1", "RE2": "rededge2", "RE3": "rededge3",
    "N": "nir", "N2": "nir08", "WV": "nir09", "S1": "swir16", "S2": "swir22",
}  # fmt: skip
"""Our bands by the symbols of spyndex: those of which `spyndex.bands` names a band of Sentinel-2A."""

_NOT_BANDS = {
    "G1": "a second green band", "Y": "a yellow band", "T": "a thermal band", "T1": "a thermal band",
    "T2": "a thermal band", "VV": "radar", "VH": "radar", "HH": "radar", "HV": "radar", "PAR": "radiation (PAR)",
}  # fmt: skip
"""What Sentinel-2 L2A lacks, by the symbols of spyndex."""

_NODES = (
    ast.Expression, ast.BinOp, ast.UnaryOp, ast.Name, ast.Load, ast.Constant, ast.Add, ast.Sub, ast.Mult, ast.Div,
    ast.Pow, ast.USub,
)  # fmt: skip
"""Parts of a formula that `kernels.indices` computes."""

_SYMBOL = re.compile(r"\b[A-Za-z_]\w*")
_MOST_NAMES = 5
_LIST = "The command `s2cube indices`"


@dataclass(frozen=True)
class SpectralIndex:
    """A spectral index.

    Parameters
    ----------
    name
        Short name in the spelling of the catalogue, such as ``NDVI``.
    formula
        Formula with the symbols of the catalogue: sums, differences, products, quotients and powers.
    bands
        Our band by its symbol in the formula.
    constants
        Default value of each constant in the formula, by its symbol.
    domain
        Field of application, such as ``vegetation``.
    reference
        Address of the publication.
    """

    name: str
    long_name: str
    formula: str
    bands: Mapping[str, str]
    constants: Mapping[str, float]
    domain: str
    reference: str

    @property
    def formula_of_bands(self) -> str:
        """The formula with the names of our bands and the values of the constants."""
        texts = {**self.bands, **{symbol: f"{value:g}" for symbol, value in self.constants.items()}}
        return _SYMBOL.sub(lambda match: texts[match[0]], self.formula)

    @property
    def description(self) -> str:
        """The long name, the formula and the reference."""
        return f"{self.long_name}: {self.formula_of_bands} ({self.reference})"


@lru_cache(1)
def known_indices() -> Mapping[str, SpectralIndex]:
    """Return all indices whose formulas need only bands of Sentinel-2 L2A and constants with a default, by name.

    Examples
    --------
    >>> ndvi = known_indices()["NDVI"]
    >>> ndvi.formula_of_bands, tuple(ndvi.bands.values())
    ('(nir-red)/(nir+red)', ('nir', 'red'))
    """
    constants = _constants()
    found = {}
    for name, entry in sorted(_catalogue().items(), key=lambda each: (each[0].lower(), each[0])):
        if not _lacking(entry):
            found[name] = SpectralIndex(
                name, entry.long_name, entry.formula,
                MappingProxyType({symbol: _BANDS[symbol] for symbol in entry.bands if symbol in _BANDS}),
                MappingProxyType({symbol: constants[symbol] for symbol in entry.bands if symbol not in _BANDS}),
                entry.application_domain, entry.reference,
            )  # fmt: skip
    return MappingProxyType(found)


def index_of(name: str) -> SpectralIndex | None:
    """Return an index by its name in the spelling of the catalogue; None if there is no such index."""
    return known_indices().get(name)


def canonical_indices(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return names of indices in the spelling of the catalogue. Given names may have other capitals.

    Raises
    ------
    ConfigError
        If an index is unknown, or needs data that Sentinel-2 L2A lacks.

    Examples
    --------
    >>> canonical_indices(("ndvi", "EVI"))
    ('NDVI', 'EVI')
    """
    return tuple(map(_canonical_index, names))


def bands_of_indices(names: Iterable[str]) -> tuple[str, ...]:
    """Return the bands that the formulas of indices need, each once. The names are those of the catalogue.

    Examples
    --------
    >>> bands_of_indices(["NDVI", "NDWI"])
    ('nir', 'red', 'green')
    """
    return tuple(dict.fromkeys(band for name in names for band in known_indices()[name].bands.values()))


def _canonical_index(name: str) -> str:
    catalogue = _catalogue()
    alike = [name] if name in catalogue else [each for each in catalogue if each.lower() == name.lower()]
    usable = [each for each in alike if each in known_indices()] or alike
    if len(usable) == 1:
        if lacking := _lacking(catalogue[usable[0]]):
            problem = f"needs {', '.join(lacking)}; s2cube computes indices only from bands of Sentinel-2 L2A"
            raise ConfigError(f"index '{usable[0]}'", problem, f"{_LIST} lists them")
        return usable[0]
    if usable:
        remedy = f"Write {' or '.join(usable)}: they differ in capitals only"
        raise ConfigError(f"index '{name}'", "has several meanings", remedy)
    *others, last = _near(name) or [""]
    remedy = f"Did you mean {', '.join(others)}{' or ' if others else ''}{last}? " if last else ""
    raise ConfigError(f"index '{name}'", "is unknown", f"{remedy}{_LIST} lists all")


def _near(name: str) -> list[str]:
    """Return the names that are most similar to a name, without regard to capitals."""
    by_lower: dict[str, list[str]] = {}
    for each in known_indices():
        by_lower.setdefault(each.lower(), []).append(each)
    return [each for lower in get_close_matches(name.lower(), by_lower, _MOST_NAMES) for each in by_lower[lower]]


def _catalogue() -> Mapping[str, Any]:
    # `import s2cube`, help and jobs without indices must not load spyndex.
    import spyndex

    catalogue: Mapping[str, Any] = spyndex.indices
    return catalogue


@lru_cache(1)
def _constants() -> Mapping[str, float]:
    """Return the default values of the constants, by symbol. Constants without one are left out."""
    import spyndex

    defaults = {symbol: each.default for symbol, each in spyndex.constants.items()}
    return {symbol: value for symbol, value in defaults.items() if value is not None}


def _lacking(entry: Any) -> list[str]:
    """Return what the formula of an index of the catalogue needs beyond our bands and constants with a default."""
    known = {*_BANDS, *_constants()}
    symbols = dict.fromkeys([*entry.bands, *_SYMBOL.findall(entry.formula)])
    lacking = dict.fromkeys(_meaning(symbol) for symbol in symbols if symbol not in known)
    return [*lacking] or ([] if _is_arithmetic(entry.formula) else ["other functions"])


def _meaning(symbol: str) -> str:
    if symbol.startswith("lambda"):
        return f"a wavelength ({symbol})"
    return _NOT_BANDS.get(symbol, f"a kernel ({symbol})" if symbol.startswith("k") else symbol)


def _is_arithmetic(formula: str) -> bool:
    """Return whether a formula has only operations that `kernels.indices` computes."""
    return all(isinstance(node, _NODES) for node in ast.walk(ast.parse(formula, mode="eval")))
