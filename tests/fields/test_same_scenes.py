"""Groups of fields that meet the same scenes: a dict of sets is the oracle."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s2cube.fields import join
from s2cube.fields.join import same_scenes

SETS = st.lists(st.frozensets(st.integers(0, 6), max_size=5), max_size=20)


def check(sets: list[frozenset[int]]) -> None:
    pairs = [(field, scene) for field, scenes in enumerate(sets) for scene in sorted(scenes)]
    fields, scenes = np.array(pairs, np.int32).reshape(-1, 2).T
    groups, of_groups = same_scenes(fields, scenes, len(sets))
    numbers = {each: number for number, each in enumerate(dict.fromkeys(sets))}
    assert groups.tolist() == [numbers[each] for each in sets]
    assert of_groups == [tuple(sorted(each)) for each in numbers]


@given(SETS)
def test_groups(sets: list[frozenset[int]]) -> None:
    check(sets)


def test_equal_hashes_of_different_scenes_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The numbers of the first attempt are all 1, so that only the number of scenes counts."""
    attempts = []

    class Chosen:
        def __init__(self, seed: int) -> None:
            attempts.append(seed)
            self.seed = seed

        def integers(self, *given_: Any) -> Any:
            return np.ones(given_[2], np.uint64) if not self.seed else RANDOM(self.seed).integers(*given_)

    RANDOM = np.random.default_rng
    monkeypatch.setattr(join.np.random, "default_rng", Chosen)
    check([frozenset({1, 2}), frozenset({1, 3}), frozenset({1, 2}), frozenset()])
    assert attempts == [0, 1]
