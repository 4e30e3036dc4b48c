"""The table of known catalogues, and the offset of the pixels of a scene by the rule of its catalogue."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pystac

from s2cube.config.literals import Offset
from s2cube.errors import HarmonisationError
from s2cube.scenes.scene import baseline, baseline_text
from s2cube.sentinel2 import BAND_ASSETS, BOA_ADD_OFFSET_DN, SCALE
from s2cube.stac.members import parse_number, parse_objects, read_member, short_json

_FIRST_BASELINE_WITH_OFFSET = (4, 0)
_APPLIED_FLAGS = ("earthsearch:boa_offset_applied", "sentinel:boa_offset_applied")
"""Properties of Earth Search v1 and v0."""
_KNOWN_OFFSETS_DN = {0.0: 0, -0.1: BOA_ADD_OFFSET_DN}
"""Offset in digital numbers, by the offset of reflectance that the raster extension gives."""


@dataclass(frozen=True)
class Provider:
    """How a catalogue serves a collection of Sentinel-2 L2A.

    Parameters
    ----------
    name
        Name of the catalogue.
    collection
        Id of the collection.
    blue_key
        Key of the asset of the blue band. Two catalogues use the same id of a collection, so an item is recognised by
        both `collection` and this key.
    offset
        The rule for the offset of the pixels. ``flag``: `boa_offset_applied` says whether the catalogue has already
        applied it; the offset of the raster extension is ignored. ``raster``: the offset of the raster extension is
        still to be added. ``baseline``: the processing baseline decides, because pixels are as ESA delivers them.
    """

    name: str
    collection: str
    blue_key: str
    offset: Literal["flag", "raster", "baseline"]


PROVIDERS = (
    # Its items of 2020 to 2025; github.com/Element84/earth-search issue 9: the flag is right, not the offset. Issues 66
    # and 71: sometimes the flag is wrong, so s2cube also checks the pixels.
    Provider("Earth Search v1", collection="sentinel-2-l2a", blue_key="blue", offset="flag"),
    # Its items of 2024 and 2025: baseline 05.00 and later, offset -0.1, no flag.
    Provider("Earth Search v1", collection="sentinel-2-c1-l2a", blue_key="blue", offset="raster"),
    # Items of 2022 and 2023 in public notebooks: sentinel:boa_offset_applied and sentinel:processing_baseline.
    Provider("Earth Search v0", collection="sentinel-s2-l2a-cogs", blue_key="B02", offset="flag"),
    # Its items of 2019 to 2024; github.com/microsoft/PlanetaryComputer issue 134: pixels are as ESA delivers them.
    Provider("Planetary Computer", collection="sentinel-2-l2a", blue_key="B02", offset="baseline"),
    # Its items of 2020 (reprocessed as 05.00) and 2024: raster:offset -0.1 of the asset, pixels in ESA's own JP2.
    Provider("Copernicus Data Space", collection="sentinel-2-l2a", blue_key="B02_10m", offset="raster"),
    # Its item of 2024: a copy of Earth Search's sentinel-2-c1-l2a.
    Provider("Digital Earth Africa", collection="s2_l2a_c1", blue_key="blue", offset="raster"),
)
"""The known catalogues, each with the evidence for its rule.

To add a catalogue:

1. Add a line here, with the items or documents that show its rule. A new rule for the offset is a new value of
   `Provider.offset`, and a branch in `offset_dn`.
2. If its asset keys are new, add them to `sentinel2.BAND_ASSETS` and `sentinel2.LAYER_ASSETS`.
3. If its properties have new names, add them to the lists of names in `scene`.
4. Add real items of it to the tests, each with the offset that is right.

A catalogue that is not here works, too: see `offset_dn`. There is no rule for nodata here, because DN 0 is nodata in
every catalogue, whatever nodata a file declares; `raster.lattice.digital_numbers` decides which pixels are valid.
"""


def provider(item: pystac.Item) -> Provider | None:
    """Find the catalogue of a scene by its collection and asset keys; None if it is not in `PROVIDERS`."""
    for each in PROVIDERS:
        if item.collection_id == each.collection and each.blue_key in item.assets:
            return each
    return None


def offset_dn(item: pystac.Item, offset: Offset = "auto") -> int:
    """Give the offset of a scene, digital numbers: reflectance = (DN + offset) / 10000.

    Processing baseline and catalogue decide, never the date: reprocessed scenes of 2016 have an offset, too. If a flag
    says that the catalogue has applied the offset, it is 0; else it is -1000 from baseline 04.00 on. If the raster
    extension gives an offset, it must agree with the baseline, except in catalogues with a flag. Without a baseline,
    or with 99.xx, the flag or the raster extension decides. A scene of an unknown catalogue is read by the same rules.

    Parameters
    ----------
    offset
        ``auto``: by the item. ``none`` (0) and ``-1000`` overrule the item.

    Raises
    ------
    HarmonisationError
        If the item gives an offset or a scale that Sentinel-2 never had, contradicts itself, or gives too little.
    SceneError
        If a member of the item cannot be understood.
    """
    if offset != "auto":
        return 0 if offset == "none" else int(offset)
    version, is_applied = baseline(item), _applied_flag(item)
    known = provider(item)
    has_flag_rule = known is not None and known.offset == "flag"
    declared_dn = _declared_offset_dn(item)
    if version is None:
        return _offset_without_baseline(item, has_flag_rule, is_applied, declared_dn)
    of_baseline_dn = BOA_ADD_OFFSET_DN if version >= _FIRST_BASELINE_WITH_OFFSET else 0
    text = f"{version[0]:02}.{version[1]:02}"
    if is_applied and not of_baseline_dn:
        raise _unclear(item, f"says that its offset is applied, but processing baseline {text} has none")
    if is_applied is None and has_flag_rule and of_baseline_dn:
        raise _unclear(item, f"does not say whether the offset of processing baseline {text} is applied")
    if declared_dn not in (None, of_baseline_dn) and not (is_applied or has_flag_rule):
        problem = f"declares an offset of {declared_dn} DN, but processing baseline {text} has {of_baseline_dn}"
        raise _unclear(item, problem)
    return 0 if is_applied else of_baseline_dn


def _offset_without_baseline(
    item: pystac.Item, has_flag_rule: bool, is_applied: bool | None, declared_dn: int | None
) -> int:
    if has_flag_rule and is_applied:
        return 0
    if is_applied and declared_dn == 0:
        raise _unclear(item, "says that its offset is applied, but also that there is no offset")
    if declared_dn is not None and not has_flag_rule:
        return 0 if is_applied else declared_dn
    version = baseline_text(item)
    if not version:
        raise _unclear(item, "does not say its processing baseline, so the offset of its pixels is unknown")
    raise _unclear(
        item, f"has processing baseline {short_json(version)}, which does not determine the offset of its pixels"
    )


def _applied_flag(item: pystac.Item) -> bool | None:
    for name in _APPLIED_FLAGS:
        value = item.properties.get(name)
        if isinstance(value, bool):
            return value
        if value is not None:
            raise _unclear(item, f"says {name} {short_json(value)}, which is neither true nor false")
    return None


def _declared_offset_dn(item: pystac.Item) -> int | None:
    """Give the offset of the bands by the raster extension, digital numbers; None if the item does not give it."""
    fields = [item.assets[key].extra_fields for key in _band_keys(item)]
    scales = {scale for each in fields if (scale := _number(item, each, "scale", None)) is not None}
    of_bands = (_number(item, each, "offset", 0.0 if scales else None) for each in fields)
    offsets = {offset for offset in of_bands if offset is not None}
    if scales - {SCALE}:
        raise _unclear(
            item, f"declares a scale of {', '.join(map(str, scales - {SCALE}))}, which Sentinel-2 does not have"
        )
    if len(offsets) > 1:
        raise _unclear(item, f"declares different offsets for its bands: {', '.join(map(str, sorted(offsets)))}")
    if not offsets:
        return None
    (offset,) = offsets
    if offset not in _KNOWN_OFFSETS_DN:
        raise _unclear(item, f"declares an offset of {offset}, which Sentinel-2 does not have")
    return _KNOWN_OFFSETS_DN[offset]


def _band_keys(item: pystac.Item) -> list[str]:
    return [key for keys in BAND_ASSETS.values() for key in keys if key in item.assets]


def _number(item: pystac.Item, fields: Mapping[str, Any], name: str, default: float | None) -> float | None:
    """Read scale or offset of a band: raster extension 1 has it in a band, version 2 in the asset or a band."""
    places = [(fields, f"raster:{name}")]
    for list_name, member in (("bands", f"raster:{name}"), ("raster:bands", name)):
        bands = read_member(item, fields, list_name, parse_objects)
        places += [(bands[0], member)] if bands else []
    values = (read_member(item, each, member, parse_number) for each, member in places)
    value = next((each for each in values if each is not None), default)
    return None if value is None else round(value, 9)


def _unclear(item: pystac.Item, problem: str) -> HarmonisationError:
    return HarmonisationError(item.id, problem, "Give the offset: --offset none or --offset -1000")
