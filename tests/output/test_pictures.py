"""Pictures that people look at: one of each slice, and the timeline of an area."""

import io
import json
import shutil
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from PIL import Image

import s2cube
from s2cube.demo.archive import PASSES, Archive
from s2cube.inventory import _timeline
from s2cube.inventory.catalog import write_catalog
from s2cube.inventory.verification import repair, verify
from s2cube.output._picture import write_picture
from s2cube.storage.folder import Folder
from s2cube.storage.output import Output
from support.images import image, spooled
from support.runs import CORNER_DAYS as DAYS
from support.runs import edit, file

SHEET = "corner/timeline.png"
DOCS = Path(__file__).resolve().parents[2] / "docs"


class TestPicture:
    def draw(self, source: object, folder: Path) -> np.ndarray:
        """Write a picture alone in its folder; return red, green, blue and opacity, 0 to 255."""
        folder.mkdir(exist_ok=True)
        with spooled(source, folder) as pixels:  # type: ignore[arg-type]
            write_picture(tuple(source.band.values), pixels, folder / "x.png")  # type: ignore[attr-defined]
        assert [each.name for each in folder.iterdir()] == ["x.png"]
        pixels = np.moveaxis(matplotlib.image.imread(folder / "x.png", format="png"), -1, 0)
        return np.round(pixels * 255).astype(int)

    @pytest.mark.parametrize("dtype", ["int16", "float32"])
    def test_true_colour(self, tmp_path: Path, dtype: str) -> None:
        red, green, blue, alpha = self.draw(image(256, dtype), tmp_path)
        reflectance = image(256).values / 1e4
        np.testing.assert_array_equal(alpha == 0, reflectance[0] < 0)
        for shown, band in ((blue, 0), (green, 1), (red, 2)):
            want = np.clip(reflectance[band] / 0.3, 0, 1) * 255
            assert np.abs(shown - want)[alpha > 0].max() <= 1

    @pytest.mark.parametrize(
        ("height", "width", "factor"), [(8, 8, 32), (20, 17, 16), (256, 300, 1), (3, 300, 3), (1, 1, 256), (5, 2000, 1)]
    )
    def test_a_small_one_is_enlarged_by_whole_pixels(
        self, tmp_path: Path, height: int, width: int, factor: int
    ) -> None:
        source = image(2000 if width > 300 else 300)[:, :height, :width]
        drawn = self.draw(source, tmp_path)
        assert drawn.shape[1:] == (height * factor, width * factor)
        small = drawn[:, ::factor, ::factor]
        np.testing.assert_array_equal(drawn, np.kron(small, np.ones((1, factor, factor), int)))
        want = np.clip(source.values[2] / 3000, 0, 1) * 255
        assert np.abs(small[0] - want)[source.values[2] != -9999].max(initial=0) <= 1

    @pytest.mark.parametrize(
        ("band", "low", "high"), [("swir16", 0, 5000), ("B08", 0, 6000), ("ndvi", -10000, 10000), ("red", 0, 3000)]
    )
    def test_limits_are_the_same_on_every_day(self, tmp_path: Path, band: str, low: int, high: int) -> None:
        for day, values in enumerate([(0, 500), (-2000, 9000)]):
            source = image(256, bands=(band,))
            source.values[:] = np.linspace(*values, 256).astype("int16")
            red, green, blue, alpha = self.draw(source, tmp_path / f"{day}")
            want = np.clip((source.values[0] - low) / (high - low), 0, 1) * 255
            assert np.abs(red - want).max() <= 1
            np.testing.assert_array_equal(red, green)
            np.testing.assert_array_equal(red, blue)
            assert (alpha == 255).all()

    def test_a_band_that_is_unknown_is_stretched_between_percentiles(self, tmp_path: Path) -> None:
        source = image(256, bands=("my index", "nir"))
        red, _, blue, alpha = self.draw(source, tmp_path)
        np.testing.assert_array_equal(red, blue)
        low, high = np.percentile(source.values[0][source.values[0] != -9999], (2, 98))
        want = np.clip((source.values[0] - low) / (high - low), 0, 1) * 255
        assert np.abs(red - want)[alpha > 0].max() <= 1

    @pytest.mark.parametrize("value", [-9999, 700])
    def test_nothing_to_stretch(self, tmp_path: Path, value: int) -> None:
        source = image(8, bands=("other",))
        source.values[:] = value
        assert (self.draw(source, tmp_path)[3] == (0 if value < 0 else 255)).all()


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are read from an output."""
    names: list[str] = []
    read = Folder.read
    monkeypatch.setattr(Folder, "read", lambda place, name: names.append(name) or read(place, name))
    return names


class TestTimeline:
    @pytest.fixture
    def out(self, whole: Path, tmp_path: Path) -> Path:
        shutil.copytree(whole, tmp_path / "lies")
        return tmp_path / "lies"

    def test_shows_each_picture_in_the_order_of_time(self, whole: Path) -> None:
        with Image.open(whole / SHEET) as sheet:
            made_of = json.loads(sheet.text["s2cube"])  # type: ignore[attr-defined]
            items = [json.loads((whole / file(day, ".json")).read_text()) for day in range(len(DAYS))]
            assert made_of["pictures"] == [each["assets"]["thumbnail"]["file:checksum"] for each in items]
            layout = _timeline._Layout(tuple(made_of["cell"]), made_of["columns"])
            for day in range(len(DAYS)):
                with Image.open(whole / file(day, ".png")) as picture:
                    ground = Image.new("RGBA", picture.size, _timeline._EMPTY)
                    want = (
                        Image.alpha_composite(ground, picture).convert("RGB").resize(layout.cell, Image.Resampling.BOX)
                    )
                cell = sheet.crop(layout.box(day))
                assert np.abs(np.asarray(cell, int) - np.asarray(want, int)).mean() < 2
                label = np.asarray(sheet)[layout.box(day)[1] - 18 : layout.box(day)[1], layout.box(day)[0] :][:, :72]
                assert (label < 100).any(), "a date is above the picture"

    def test_the_collection_names_it_and_verify_checks_it(self, out: Path) -> None:
        asset = json.loads((out / "corner/collection.json").read_text())["assets"]["timeline"]
        assert asset["file:size"] == (out / SHEET).stat().st_size
        assert verify(Output.at(out)).is_whole
        right = (out / SHEET).read_bytes()
        for kind, content in (
            ("missing", None),
            ("broken", right[:5000] + bytes([right[5000] ^ 1]) + right[5001:]),
            ("broken", "link"),
        ):
            (out / SHEET).unlink()
            if content == "link":
                (out / SHEET).symlink_to(out / file(0, ".png"))
            elif content:
                (out / SHEET).write_bytes(content)  # type: ignore[arg-type]
            assert verify(Output.at(out)).of(kind) == [SHEET]  # type: ignore[arg-type]
            assert not repair(Output.at(out)).is_whole
            assert (out / SHEET).read_bytes() == right
            assert verify(Output.at(out)).is_whole

    def test_an_output_without_it_is_whole(self, out: Path) -> None:
        """Earlier versions wrote neither a timeline nor styles."""
        content = json.loads((out / "corner/collection.json").read_text())
        del content["assets"]
        (out / "corner/collection.json").write_text(json.dumps(content))
        (out / SHEET).unlink()
        for day in range(len(DAYS)):
            item = json.loads((out / file(day, ".json")).read_text())
            del item["assets"]["qa_style"]
            (out / file(day, ".json")).write_text(json.dumps(item))
            (out / file(day, "_qa.qml")).unlink()
        assert verify(Output.at(out)).is_whole

    def test_only_new_pictures_are_read(self, whole: Path, out: Path, reads: list[str]) -> None:
        (out / file(0, ".json")).unlink()
        write_catalog(Output.at(out), None)
        assert (out / SHEET).read_bytes() != (whole / SHEET).read_bytes()
        shutil.copy(whole / file(0, ".json"), out / file(0, ".json"))
        reads.clear()
        write_catalog(Output.at(out), None)
        assert {name for name in reads if name.endswith(".png")} == {
            SHEET,
            file(0, ".png"),
            file(len(DAYS) - 1, ".png"),
        }
        assert (out / SHEET).read_bytes() == (whole / SHEET).read_bytes()

    @pytest.mark.parametrize("junk", [b"", b"\x89PNG\r\n\x1a\n", b"{}", b"II*\0" + bytes(99)])
    def test_another_file_under_its_name_is_replaced(self, whole: Path, out: Path, junk: bytes) -> None:
        (out / SHEET).write_bytes(junk)
        write_catalog(Output.at(out), None)
        assert (out / SHEET).read_bytes() == (whole / SHEET).read_bytes()

    @pytest.mark.parametrize(
        ("content", "has_checksum"),
        [(None, True), (b"no picture", True), (b"no picture", False), ("cut", True), ("gray", False)],
    )
    def test_a_picture_that_cannot_be_read_is_left_out_and_named(
        self, out: Path, content: bytes | str | None, has_checksum: bool, caplog: pytest.LogCaptureFixture
    ) -> None:
        if not has_checksum:
            edit(out / file(1, ".json"), lambda item: item["assets"]["thumbnail"].pop("file:checksum"))
        path = out / file(1, ".png")
        if content == "cut":
            content = path.read_bytes()[:400]
        if content == "gray":
            gray = io.BytesIO()
            Image.new("L", (5, 5)).save(gray, "PNG")
            content = gray.getvalue()
        path.unlink() if content is None else path.write_bytes(content)  # type: ignore[arg-type]
        (out / SHEET).unlink()
        write_catalog(Output.at(out), None)
        (line,) = [each for each in caplog.messages if "timeline" in each]
        assert f"{file(1, '.png')} cannot be shown in the timeline (" in line
        with Image.open(out / SHEET) as sheet:
            assert len(json.loads(sheet.text["s2cube"])["pictures"]) == len(DAYS) - 1  # type: ignore[attr-defined]

    @pytest.mark.parametrize("stops_at", ["corner/collection.json", SHEET])
    @pytest.mark.parametrize("writes_first", [True, False])
    def test_stopped_at_any_moment_nothing_is_broken(
        self, out: Path, monkeypatch: pytest.MonkeyPatch, stops_at: str, writes_first: bool
    ) -> None:
        (out / file(0, ".json")).unlink()
        put = Folder.put

        def stopping(place: Folder, name: str, content: bytes | Path) -> None:
            if writes_first or name != stops_at:
                put(place, name, content)
            if name == stops_at:
                raise KeyboardInterrupt

        monkeypatch.setattr(Folder, "put", stopping)
        with pytest.raises(KeyboardInterrupt):
            write_catalog(Output.at(out), None)
        monkeypatch.undo()
        assert verify(Output.at(out)).is_whole
        write_catalog(Output.at(out), None)
        assert verify(Output.at(out)).is_whole

    @pytest.mark.parametrize("shape", [(614, 356), (300, 300), (1000, 3), (3, 1000)])
    @pytest.mark.parametrize("count", [1, 6, 100, 700, 20_000])
    def test_a_sheet_has_a_largest_size(self, shape: tuple[int, int], count: int) -> None:
        layout, shown = _timeline._layout(count, shape)
        assert shown == min(count, shown)
        assert shown == count or shown >= 900
        width, height = layout.size(shown)
        assert width <= 2048
        assert height <= 4096
        _, _, right, bottom = layout.box(shown - 1)
        assert right <= width
        assert bottom <= height

    def test_the_readme_shows_that_of_the_demo(self, archive: Archive, tmp_path: Path) -> None:
        aoi = s2cube.read_aoi(archive.aoi)
        items = s2cube.search(aoi, stac=str(archive.items))
        s2cube.write_cogs(s2cube.open_cube(items, aoi, dtype="int16"), tmp_path)
        with Image.open(tmp_path / "farm/timeline.png") as sheet, Image.open(DOCS / "images" / "demo.png") as shown:
            assert len(json.loads(sheet.text["s2cube"])["pictures"]) == len(PASSES)  # type: ignore[attr-defined]
            assert sheet.size == shown.size
            assert np.abs(np.asarray(sheet, int) - np.asarray(shown, int)).mean() < 0.5
