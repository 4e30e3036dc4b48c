"""Merge new rows of the table of statistics with old ones."""

from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from s2cube.tables.rows import FIELD_COLUMNS, SOURCE_COLUMNS, Key, Recipe, schema


def merged(old: pa.Table, new: pa.Table, keys: dict[str, Key]) -> tuple[pa.Table, dict[str, Key]]:
    """Replace old rows by new rows of the same slices.

    A new row keeps values of the old row in columns that it does not have, if both are computed from the same scenes
    and files with the same settings.

    Parameters
    ----------
    keys
        Keys of all rows, by id.

    Returns
    -------
    pyarrow.Table
        The rows, with the columns of both.
    dict
        `keys`, and those of rows that have values of both.
    """
    names = list(dict.fromkeys([*statistics_in(old), *statistics_in(new)]))
    kept, keys = _with_old_values(old, new, keys)
    others = old.filter(pc.invert(pc.is_in(old["slice"], new["slice"])))
    return pa.concat_tables([with_columns(others, names), with_columns(kept, names)]), keys


def _with_old_values(old: pa.Table, new: pa.Table, keys: dict[str, Key]) -> tuple[pa.Table, dict[str, Key]]:
    """Add the values of old rows to new rows of the same scenes and settings."""
    extra = [name for name in statistics_in(old) if name not in new.column_names]
    at = pc.index_in(new["slice"], old["slice"].combine_chunks())
    before = old["recipe"].take(at)
    if not extra or before.null_count == len(before):
        return new, keys
    keys, recipes, kept = dict(keys), list[str](), list[frozenset[str]]()
    for was, text in zip(before.to_pylist(), new["recipe"].to_pylist(), strict=True):
        recipe, columns = _recipe_of_both(Recipe.parse(was or ""), Recipe.parse(text), keys)
        recipes.append(str(recipe))
        kept.append(columns)
    for name in extra:
        is_kept = pa.array([name in columns for columns in kept])
        new = new.append_column(name, pc.if_else(is_kept, old[name].take(at), pa.scalar(None, pa.float32())))
    return new.set_column(new.column_names.index("recipe"), "recipe", pa.array(recipes, pa.string())), keys


def _recipe_of_both(was: Recipe, now: Recipe, keys: dict[str, Key]) -> tuple[Recipe, frozenset[str]]:
    """Return the recipe of a new row with values of an old one, and the columns of these values.

    Parameters
    ----------
    keys
        Receives its key.
    """
    old, new = keys.get(was.key), keys.get(now.key)
    if old is None or new is None or was.processing != now.processing:
        return now, frozenset()
    of_old, of_new = was.files_of(old), now.files_of(new)
    changed = {name for name in of_old.keys() & of_new.keys() if of_old[name] != of_new[name]}
    kept = [name for name in old.columns if name not in new.columns]
    if changed:
        # An index may need each of these files, and a mask layer concerns every band.
        bands = {name.rpartition("_")[0] for name in old.columns} & of_old.keys()
        kept = [name for name in kept if name.rpartition("_")[0] in bands - changed] if changed <= bands else []
    if not kept:
        return now, frozenset()
    files = dict(sorted((of_old | of_new).items()))
    both = Key((*kept, *new.columns), new.settings, tuple(files))
    keys[both.id] = both
    return replace(now, files="".join(files.values()), key=both.id), frozenset(kept)


def statistics_in(rows: pa.Table) -> list[str]:
    """Return the names of the columns of statistics."""
    return [name for name in rows.column_names if name not in FIELD_COLUMNS and name not in SOURCE_COLUMNS]


def with_columns(rows: pa.Table, names: list[str]) -> pa.Table:
    """Return rows with these columns of statistics; null where they have none."""
    wanted = schema(names)
    missing = pa.nulls(rows.num_rows, pa.float32())
    content = [rows[name] if name in rows.column_names else missing for name in wanted.names]
    return pa.table(content, schema=wanted)
