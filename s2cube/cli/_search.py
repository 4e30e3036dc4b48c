"""The command search: scenes as a table or a file."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from s2cube.cli._console import print_notice, table_console
from s2cube.cli._flags import ConfigFile, ConsoleFlags, SearchFlags, load_settings, set_up_console
from s2cube.cli._reports import no_scene_message


def search(
    *,
    flags: SearchFlags = None,
    config: ConfigFile = None,
    console: ConsoleFlags = None,
    save: Annotated[
        Path | None, Parameter(metavar="FILE", help="Write the scenes to a FILE.geojson or FILE.parquet.")
    ] = None,
) -> int:
    """List the scenes that a job would use; --save writes them to a file that --stac reads."""
    console = set_up_console(console)
    settings = load_settings(flags, config)
    from s2cube.area.areas import areas_of_job
    from s2cube.cli._table import Found, facts_of_scene, table_of_scenes
    from s2cube.scenes.scene import identity, sort_key
    from s2cube.scenes.search import find_scenes, open_catalogue
    from s2cube.scenes.search_items import drop_unrequested
    from s2cube.stac.source import save_items

    criteria = settings.search
    aois = areas_of_job(settings.job)
    catalogue = open_catalogue(criteria, settings.read.timeout_s)
    found: dict[str, Found] = {}
    for aoi, of_area in zip(aois, find_scenes(aois, criteria, catalogue), strict=True):
        for scene in drop_unrequested(of_area, aoi, criteria):
            found.setdefault(identity(scene.item), Found(scene.item, [])).aois.append(aoi.id)
    listed = sorted(found.values(), key=lambda each: sort_key(each.item))
    scenes = [each.item for each in listed]
    if save:
        save_items(scenes, save)
        print_notice(f"{len(scenes)} scenes written to {save}")
    elif not console.json:
        table_console().print(table_of_scenes(listed))
    if scenes:
        print_notice(f"{len(scenes)} scenes{f' of {len(aois)} areas' if aois[1:] else ''}.")
    else:
        print_notice(no_scene_message(settings))
    console.print_json(
        {"scenes": [item.id for item in scenes], "count": len(scenes), "found": list(map(facts_of_scene, listed))}
    )
    return 0
