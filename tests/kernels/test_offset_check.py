"""Which scenes are said to contradict their offset, by counts of their cells."""

import numpy as np
import pytest

from s2cube.kernels.offset_check import doubtful

NONE = (0, 0)
Counts = tuple[int, int]


def is_doubted(offset_dn: int, **bands: tuple[Counts, Counts, Counts]) -> bool:
    """Judge one scene by counts of each band: how many cells are seen, and how many of these are dark.

    Of anything that is clear, of vegetation, of water.
    """
    (doubted,) = doubtful(np.array([list(bands.values())]), np.array([offset_dn]), tuple(bands))
    return bool(doubted)


class TestNothingAdded:
    """Dark cells of vegetation in blue and red, of water in the infrared."""

    def test_dark_vegetation_outweighs_a_few_bright_cells_called_water(self) -> None:
        """A real scene of 33TWM of 2023-08-10: cloud over land is taken for water."""
        assert not is_doubted(0, blue=(NONE, (2000, 1863), NONE), nir=(NONE, NONE, (121, 0)))

    def test_dark_water_outweighs_bright_vegetation(self) -> None:
        assert not is_doubted(0, blue=(NONE, (400, 0), NONE), nir=(NONE, NONE, (5000, 4000)))

    def test_all_that_tell_contradict(self) -> None:
        assert is_doubted(0, blue=(NONE, (2000, 0), NONE), nir=(NONE, NONE, (500, 10)))

    @pytest.mark.parametrize("few", [0, 99])
    def test_one_that_tells_and_one_that_has_few_cells(self, few: int) -> None:
        """The few cells would be dark, but they count for nothing; nor do they contradict."""
        assert is_doubted(0, blue=(NONE, (2000, 0), NONE), nir=(NONE, NONE, (few, few)))
        assert not is_doubted(0, blue=(NONE, (2000, 1900), NONE), nir=(NONE, NONE, (few, 0)))
        assert not is_doubted(0, blue=(NONE, (few, 0), NONE))

    def test_one_dark_band_is_enough(self) -> None:
        assert not is_doubted(0, blue=(NONE, (2000, 0), NONE), red=(NONE, (2000, 200), NONE))
        assert is_doubted(0, blue=(NONE, (2000, 0), NONE), red=(NONE, (2000, 199), NONE))

    def test_other_ground_and_other_bands_say_nothing(self) -> None:
        assert not is_doubted(0, blue=((9000, 0), NONE, (2000, 0)), nir=((9000, 0), (2000, 0), NONE))


class TestAdded:
    def test_a_tenth_that_is_too_dark(self) -> None:
        assert is_doubted(-1000, blue=((2000, 200), NONE, NONE))
        assert not is_doubted(-1000, blue=((2000, 199), NONE, NONE))
        assert not is_doubted(-1000, blue=((99, 99), NONE, NONE))

    def test_bright_ground_says_nothing(self) -> None:
        assert not is_doubted(-1000, blue=((2000, 0), (2000, 0), NONE), nir=(NONE, NONE, (2000, 0)))
