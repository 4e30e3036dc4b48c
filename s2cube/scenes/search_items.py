"""Search a catalogue for the scenes of areas of interest, from Python."""

from pathlib import Path
from typing import TYPE_CHECKING

import pystac

from s2cube.area.aoi import AOI
from s2cube.area.areas import read_aois
from s2cube.config.sections import SearchSection
from s2cube.scenes._granules import find_granules
from s2cube.scenes.scene import UNKNOWN_TIME, identity, sort_key
from s2cube.scenes.scene_facts import SceneFacts
from s2cube.scenes.search import find_scenes, open_catalogue

if TYPE_CHECKING:
    from s2cube.area.areas import AreaLike
    from s2cube.config.times import TimesLike


def search_items(  # noqa: PLR0913  one parameter per setting, so that editors complete them
    aoi: "AreaLike",
    *,
    crs: object = None,
    stac: str | Path = "https://earth-search.aws.element84.com/v1",
    collection: str = "sentinel-2-l2a",
    datetime: "TimesLike" = None,
    max_cloud: float = 100,
    max_items: int | None = None,
) -> list[pystac.Item]:
    """Find the scenes that intersect areas of interest.

    If a server ignores a part of the question, s2cube filters the answer. Failed requests for pages are retried with
    increasing pauses. If a page still fails, an error is raised: the list is always complete.

    Parameters
    ----------
    aoi
        One or several areas of interest: anything that `read_aois` takes. The search uses their geometries, not their
        bounding boxes. A scene that intersects several areas is returned once.
    crs
        CRS of a geometry that has none of its own; default: degrees (EPSG:4326).
    stac
        URL of a STAC API; or URL or path of an ItemCollection, an Item or a static catalogue; or path of a
        stac-geoparquet file.
    collection
        Id of the collection.
    datetime
        ``A/B``. A and B are each a year, month, day or second in UTC, or ``..`` for an open end; None for all. Also a
        date, a datetime (of numpy or pandas, too), or a pair of them, in which None is an open end. A date, and a
        datetime at 00:00:00, mean the solar day of the area: UTC + longitude / 15 h. Any other datetime is an instant,
        in UTC if it has no time zone.
    max_cloud
        Maximum cloud cover of a scene, percent. If it is below 100, scenes without a cloud cover are removed. If a
        granule has several processings, the cloud cover of the newest is used.
    max_items
        Maximum number of granules of each area. The newest granules are kept, each in its newest processing. None for
        all.

    Returns
    -------
    list of pystac.Item
        Sorted by time (oldest first) and id, with absolute asset hrefs. Scenes with an invalid item are included; an
        image of such a scene fails.

    Raises
    ------
    AOIError
        If the area cannot be used; see `read_aois`.
    ConfigError
        If a setting is not valid.
    SearchError
        If the catalogue cannot be read or has no such collection.

    Examples
    --------
    The files are those of the command ``s2cube demo``.

    >>> import s2cube
    >>> aoi = "s2cube-demo/archive/aoi.geojson"
    >>> items = s2cube.search(aoi, stac="s2cube-demo/archive/items.json", datetime="2022-05/2022-06")
    >>> [item.id for item in items][:2]
    ['S2A_14TNL_20220520_0_L2A', 'S2A_14TPL_20220520_0_L2A']
    """
    config = SearchSection.of_arguments(locals())
    aois = read_aois(aoi, crs=crs)
    catalogue = open_catalogue(config)
    of_areas = zip(find_scenes(aois, config, catalogue), aois, strict=True)
    found = [each.item for of_area in of_areas for each in drop_unrequested(*of_area, config)]
    # Areas may share scenes.
    return found if len(aois) == 1 else sorted({identity(item): item for item in found}.values(), key=sort_key)


def drop_unrequested(found: list[SceneFacts], aoi: AOI, config: SearchSection) -> list[SceneFacts]:
    """Remove the scenes that `find_scenes` returns only to complete days."""
    exact = config.datetime and config.datetime.at(aoi.lon)
    within = [each for each in found if not exact or each.sort_key[0] == UNKNOWN_TIME or each.sort_key[0] in exact]
    if config.max_items is None:
        return within
    newest = sorted((each.scene for each in find_granules(within)), key=lambda scene: scene.sort_key)
    return newest[-config.max_items :]
