"""Known catalogues, and the offset of the pixels of a scene by the rule of its catalogue."""

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
"""Properties of Earth Search v1 and v0: has the catalogue already added the offset?"""
_KNOWN_OFFSETS_DN = {0.0: 0, -0.1: BOA_ADD_OFFSET_DN}
"""Offset in digital numbers, by the offset of reflectance in the raster extension."""


@dataclass(frozen=True)
class Provider:
    """A catalogue with a collection of Sentinel-2 L2A.

    Parameters
    ----------
    name
        Name of the catalogue.
    collection
        Id of the collection.
    blue_key
        Key of the asset of the blue band. Two catalogues use the same collection id, so an item is recognised by both
        `collection` and this key.
    offset
        Rule for the offset of the pixels. ``flag``: `boa_offset_applied` is true if the catalogue has already added the
        offset; the offset of the raster extension is ignored. ``raster``: s2cube must add the offset of the raster
        extension. ``baseline``: the offset depends on the processing baseline, because pixels are as ESA delivers
        them.
    """

    name: str
    collection: str
    blue_key: str
    offset: Literal["flag", "raster", "baseline"]


PROVIDERS = (
    # Items of 2020 to 2025; github.com/Element84/earth-search issue 9: the flag is correct, but the offset is wrong.
    # Issues 66 and 71: sometimes the flag is wrong, so s2cube also checks the pixels.
    Provider("Earth Search v1", collection="sentinel-2-l2a", blue_key="blue", offset="flag"),
    # Items of 2024 and 2025: baseline 05.00 and later, offset -0.1, no flag.
    Provider("Earth Search v1", collection="sentinel-2-c1-l2a", blue_key="blue", offset="raster"),
    # Items of 2022 and 2023 in public notebooks: sentinel:boa_offset_applied and sentinel:processing_baseline.
    Provider("Earth Search v0", collection="sentinel-s2-l2a-cogs", blue_key="B02", offset="flag"),
    # Items of 2019 to 2024; github.com/microsoft/PlanetaryComputer issue 134: pixels are as ESA delivers them.
    Provider("Planetary Computer", collection="sentinel-2-l2a", blue_key="B02", offset="baseline"),
    # Items of 2020 (reprocessed as 05.00) and 2024: raster:offset -0.1 of the asset, pixels in ESA's own JP2.
    Provider("Copernicus Data Space", collection="sentinel-2-l2a", blue_key="B02_10m", offset="raster"),
    # Item of 2024: a copy of Earth Search's sentinel-2-c1-l2a.
    Provider("Digital Earth Africa", collection="s2_l2a_c1", blue_key="blue", offset="raster"),
)
"""Known catalogues, with the evidence for each rule.

To add a catalogue:

1. Add a line here, and name the items or documents that show its rule. If the rule for the offset is new, add a value
   to `Provider.offset` and a branch to `offset_dn`.
2. If its asset keys are new, add them to `sentinel2.BAND_ASSETS` and `sentinel2.LAYER_ASSETS`.
3. If its properties have new names, add them to the lists of names in `scene`.
4. Add real items of the catalogue to the tests, each with its correct offset.

Other catalogues also work: see `offset_dn`. There is no rule for nodata here, because DN 0 is nodata in every
catalogue, even if a file declares another value; `raster.lattice.digital_numbers` defines which pixels are valid.
"""


def provider(item: pystac.Item) -> Provider | None:
    """Find the catalogue of a scene by its collection and asset keys; None if it is not in `PROVIDERS`."""
    for each in PROVIDERS:
        if item.collection_id == each.collection and each.blue_key in item.assets:
            return each
    return None


def offset_dn(item: pystac.Item, offset: Offset = "auto") -> int:
    """Return the offset of a scene in digital numbers: reflectance = (DN + offset) / 10000.

    The offset depends on processing baseline and catalogue, not on the date: reprocessed scenes of 2016 have an offset,
    too. If a flag is true, the catalogue has already added the offset, and the result is 0. Otherwise it is -1000 from
    baseline 04.00 on, and 0 before. An offset in the raster extension must agree with the baseline, except in
    catalogues with a flag. If the baseline is missing or 99.xx, the offset depends on the flag or the raster extension.
    The same rules apply to unknown catalogues.

    Parameters
    ----------
    offset
        ``auto``: use the item. ``none`` (0) and ``-1000`` override the item.

    Raises
    ------
    HarmonisationError
        If the item has an offset or a scale that Sentinel-2 does not have, if it contradicts itself, or if it does not
        have enough information.
    SceneError
        If a member of the item is invalid.
    """
    if offset != "auto":
        return 0 if offset == "none" else int(offset)
    version, is_applied = baseline(item), _applied_flag(item)
    known = provider(item)
    has_flag_rule = known is not None and known.offset == "flag"
    declared_dn = _declared_offset_dn(item)
    if version is None:
        return _offset_without_baseline(item, has_flag_rule, is_applied, declared_dn)
    baseline_offset_dn = BOA_ADD_OFFSET_DN if version >= _FIRST_BASELINE_WITH_OFFSET else 0
    text = f"{version[0]:02}.{version[1]:02}"
    if is_applied and not baseline_offset_dn:
        raise _unclear(item, f"says that its offset is applied, but processing baseline {text} has none")
    if is_applied is None and has_flag_rule and baseline_offset_dn:
        raise _unclear(item, f"does not say whether the offset of processing baseline {text} is applied")
    if declared_dn not in (None, baseline_offset_dn) and not (is_applied or has_flag_rule):
        problem = f"declares an offset of {declared_dn} DN, but processing baseline {text} has {baseline_offset_dn}"
        raise _unclear(item, problem)
    return 0 if is_applied else baseline_offset_dn


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
    """Return the offset of the bands in the raster extension, digital numbers; None if the item does not have it."""
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
    """Read scale or offset of a band. Raster extension 1 has it in a band, version 2 in the asset or in a band."""
    places = [(fields, f"raster:{name}")]
    for list_name, member in (("bands", f"raster:{name}"), ("raster:bands", name)):
        bands = read_member(item, fields, list_name, parse_objects)
        places += [(bands[0], member)] if bands else []
    values = (read_member(item, each, member, parse_number) for each, member in places)
    value = next((each for each in values if each is not None), default)
    return None if value is None else round(value, 9)


def _unclear(item: pystac.Item, problem: str) -> HarmonisationError:
    return HarmonisationError(item.id, problem, "Give the offset: --offset none or --offset -1000")
