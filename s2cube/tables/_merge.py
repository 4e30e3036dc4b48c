"""Merge new rows of the table of statistics with old ones."""

from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from s2cube.tables.rows import FIELD_COLUMNS, SOURCE_COLUMNS, Key, Recipe, schema


def merged(old: pa.Table, new: pa.Table, keys: dict[str, Key]) -> tuple[pa.Table, dict[str, Key]]:
    """Replace old rows by new rows of the same slices.

    A new row keeps values of the old row in columns that it does not have, if both are computed from the same scenes
    with the same settings.

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
    before, now = old["recipe"].take(at), new["recipe"]
    is_same = pc.fill_null(pc.equal(_processing(before), _processing(now)), False)
    if not extra or not pc.any(is_same).as_py():
        return new, keys
    for name in extra:
        new = new.append_column(name, pc.if_else(is_same, old[name].take(at), pa.scalar(None, pa.float32())))
    keys, recipes = dict(keys), []
    for was, text, same in zip(before.to_pylist(), now.to_pylist(), is_same.to_pylist(), strict=True):
        one, two = keys.get(text[-Key.LENGTH :]), keys.get(was[-Key.LENGTH :]) if same else None
        if one and two:
            both = Key(tuple(dict.fromkeys([*two.columns, *one.columns])), one.settings)
            keys[both.id] = both
            text = str(replace(Recipe.parse(text), key=both.id))
        recipes.append(text)
    return new.set_column(new.column_names.index("recipe"), "recipe", pa.array(recipes, pa.string())), keys


def _processing(recipes: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.utf8_slice_codeunits(recipes, Recipe.LENGTH + 1, 2 * Recipe.LENGTH + 1)


def statistics_in(rows: pa.Table) -> list[str]:
    """Return the names of the columns of statistics."""
    return [name for name in rows.column_names if name not in FIELD_COLUMNS and name not in SOURCE_COLUMNS]


def with_columns(rows: pa.Table, names: list[str]) -> pa.Table:
    """Return rows with these columns of statistics; null where they have none."""
    wanted = schema(names)
    missing = pa.nulls(rows.num_rows, pa.float32())
    content = [rows[name] if name in rows.column_names else missing for name in wanted.names]
    return pa.table(content, schema=wanted)
