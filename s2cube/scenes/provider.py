"""What catalogues call things, and how their pixels are scaled: a table, not code paths."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pystac

from s2cube.config.literals import Offset
from s2cube.errors import HarmonisationError
from s2cube.scenes.scene import baseline, baseline_text
from s2cube.sentinel2 import BAND_ASSETS, BOA_ADD_OFFSET_DN, SCALE
from s2cube.stac.members import number, read, records, shown

_FIRST_BASELINE_WITH_OFFSET = (4, 0)
_APPLIED_FLAGS = ("earthsearch:boa_offset_applied", "sentinel:boa_offset_applied")
"""Of Earth Search v1 and v0."""
_KNOWN_OFFSETS_DN = {0.0: 0, -0.1: BOA_ADD_OFFSET_DN}
"""By the offset of reflectance that the raster extension tells."""


@dataclass(frozen=True)
class Provider:
    """How a catalogue serves a collection of Sentinel-2 L2A.

    Parameters
    ----------
    collection
        Id; an item is its when it also has the asset `blue_key`, which tells two catalogues of one id apart.
    projection
        Where its items tell the CRS: ``proj:epsg`` of the item or ``proj:code`` of the asset. Shape and transform
        stand on the asset with all of them (and are not relied on: the file knows better).
    offset
        How they give the offset of the pixels. ``flag``: `boa_offset_applied` says whether it is already applied, and
        the raster extension's offset is ignored. ``raster``: the raster extension's offset is still to
        be added. ``baseline``: by the processing baseline, as ESA delivers.
    source
        What that is known by.
    """

    name: str
    collection: str
    blue_key: str
    projection: Literal["proj:epsg", "proj:code"]
    offset: Literal["flag", "raster", "baseline"]
    source: str


PROVIDERS = (
    Provider(
        "Earth Search v1", "sentinel-2-l2a", "blue", "proj:epsg", "flag",
        "its items of 2020 to 2025; github.com/Element84/earth-search issue 9: the flag is the truth, not the offset "
        "(issues 66 and 71: where the flag errs, hence the check on the pixels)",
    ),
    Provider(
        "Earth Search v1", "sentinel-2-c1-l2a", "blue", "proj:epsg", "raster",
        "its items of 2024 and 2025: baseline 05.00 and later, offset -0.1, no flag",
    ),
    Provider(
        "Earth Search v0", "sentinel-s2-l2a-cogs", "B02", "proj:epsg", "flag",
        "items of 2022 and 2023 in public notebooks: sentinel:boa_offset_applied and sentinel:processing_baseline",
    ),
    Provider(
        "Planetary Computer", "sentinel-2-l2a", "B02", "proj:epsg", "baseline",
        "its items of 2019 to 2024; github.com/microsoft/PlanetaryComputer issue 134: pixels are as ESA delivers",
    ),
    Provider(
        "Copernicus Data Space", "sentinel-2-l2a", "B02_10m", "proj:code", "raster",
        "its items of 2020 (reprocessed as 05.00) and 2024: raster:offset -0.1 on the asset, pixels in ESA's own JP2",
    ),
    Provider(
        "Digital Earth Africa", "s2_l2a_c1", "blue", "proj:epsg", "raster",
        "its item of 2024: a copy of Earth Search's sentinel-2-c1-l2a",
    ),
)  # fmt: skip
"""The catalogues that are known, each with what that knowledge rests on."""


def provider(item: pystac.Item) -> Provider | None:
    """Find the catalogue of a scene by its collection and asset keys; None for one that is not in the table."""
    for each in PROVIDERS:
        if item.collection_id == each.collection and each.blue_key in item.assets:
            return each
    return None


def offset_dn(item: pystac.Item, wanted: Offset = "auto") -> int:
    """Give the number to add to the digital numbers of a scene, so that reflectance is a ten-thousandth of the sum.

    By processing baseline and catalogue, never by date: reprocessed scenes of 2016 have an offset too. Where a flag
    says that the catalogue has applied it, nothing is left to add; else it is -1000 from baseline 04.00 on. What the
    raster extension says must agree with the baseline, if both are given. Without a meaningful baseline,
    the catalogue's own rule decides: the flag, or the raster extension.

    Parameters
    ----------
    wanted
        ``none`` (nothing is added) and ``-1000`` overrule what the item says.

    Raises
    ------
    HarmonisationError
        If the item tells an offset or a scale that Sentinel-2 never had, or contradicts itself, or tells too little.
    SceneError
        If a member of the item cannot be understood.
    """
    if wanted != "auto":
        return 0 if wanted == "none" else int(wanted)
    made_by, applied = baseline(item), _applied_flag(item)
    known = provider(item)
    by_flag = known is not None and known.offset == "flag"
    told = _told_offset_dn(item)
    if made_by is None:
        return _offset_without_baseline(item, by_flag, applied, told)
    had_dn = BOA_ADD_OFFSET_DN if made_by >= _FIRST_BASELINE_WITH_OFFSET else 0
    version = f"{made_by[0]:02}.{made_by[1]:02}"
    if applied and not had_dn:
        raise _unclear(item, f"says that its offset is applied, but processing baseline {version} has none")
    if applied is None and by_flag and had_dn:
        raise _unclear(item, f"does not say whether the offset of processing baseline {version} is applied")
    if told is not None and told != had_dn and not (applied or by_flag):
        raise _unclear(item, f"tells an offset of {told} DN, but processing baseline {version} has {had_dn}")
    return 0 if applied else had_dn


def _offset_without_baseline(item: pystac.Item, by_flag: bool, applied: bool | None, told: int | None) -> int:
    if by_flag and applied:
        return 0
    if applied and told == 0:
        raise _unclear(item, "says that its offset is applied, but also that there is no offset")
    if told is not None and not by_flag:
        return 0 if applied else told
    version = baseline_text(item)
    if not version:
        raise _unclear(item, "does not say its processing baseline, so the offset of its pixels is unknown")
    raise _unclear(item, f"has processing baseline {shown(version)}, which does not determine the offset of its pixels")


def _applied_flag(item: pystac.Item) -> bool | None:
    for name in _APPLIED_FLAGS:
        value = item.properties.get(name)
        if isinstance(value, bool):
            return value
        if value is not None:
            raise _unclear(item, f"says {name} {shown(value)}, which is neither true nor false")
    return None


def _told_offset_dn(item: pystac.Item) -> int | None:
    """Give the offset of the bands by the raster extension, digital numbers; None where it is not told."""
    fields = [item.assets[key].extra_fields for key in _band_keys(item)]
    scales = {scale for each in fields if (scale := _number(item, each, "scale", None)) is not None}
    of_bands = (_number(item, each, "offset", 0.0 if scales else None) for each in fields)
    told = {offset for offset in of_bands if offset is not None}
    if scales - {SCALE}:
        raise _unclear(
            item, f"tells a scale of {', '.join(map(str, scales - {SCALE}))}, which Sentinel-2 does not have"
        )
    if len(told) > 1:
        raise _unclear(item, f"tells different offsets for its bands: {', '.join(map(str, sorted(told)))}")
    if not told:
        return None
    (offset,) = told
    if offset not in _KNOWN_OFFSETS_DN:
        raise _unclear(item, f"tells an offset of {offset}, which nobody knows")
    return _KNOWN_OFFSETS_DN[offset]


def _band_keys(item: pystac.Item) -> list[str]:
    return [key for keys in BAND_ASSETS.values() for key in keys if key in item.assets]


def _number(item: pystac.Item, fields: Mapping[str, Any], name: str, default: float | None) -> float | None:
    """Read scale or offset as the raster extension 1 (of a band) or 2 (of the asset or a band) tells it."""
    places = [(fields, f"raster:{name}")]
    for list_name, member in (("bands", f"raster:{name}"), ("raster:bands", name)):
        bands = read(item, fields, list_name, records)
        places += [(bands[0], member)] if bands else []
    told = (read(item, each, member, number) for each, member in places)
    value = next((each for each in told if each is not None), default)
    return None if value is None else round(value, 9)


def _unclear(item: pystac.Item, problem: str) -> HarmonisationError:
    return HarmonisationError(item.id, problem, "Say what is to be added: --offset none or --offset -1000")
