"""The opener of image files: pictures as people see them, and files that are none."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import EpsImagePlugin, Image, ImageCms

from nasrun.dataset import files
from nasrun.dataset.files import open_image
from nasrun.dataset.streamed import Transforms
from nasrun.errors import UserError
from nasrun.values import MapSize

COLOURS = st.tuples(*[st.integers(0, 255)] * 3)
LOSSY = {"quality": 95, "subsampling": 0}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "RGB": (".png", {}),
    "RGB.jpg": (".jpg", LOSSY),
    "RGB.jfif": (".jfif", {"format": "JPEG", **LOSSY}),
    "RGB.webp": (".webp", {"quality": 95}),
    "RGB.tif": (".tif", {}),
    "RGB.bmp": (".bmp", {}),
    "RGB.ppm": (".ppm", {}),
    "P": (".png", {}),
    "P.gif": (".gif", {}),
    "RGBA": (".png", {}),
    "RGBA.webp": (".webp", {"lossless": True}),
    "CMYK.tif": (".tif", {}),
    "CMYK.jpg": (".jpg", {"quality": 95}),
    "YCbCr.tif": (".tif", {}),
    "LAB.tif": (".tif", {}),
    "L": (".png", {}),
    "LA": (".png", {}),
    "I;16": (".png", {}),
    "I;16.tif": (".tif", {}),
    "I;16.pgm": (".pgm", {}),
    "I.tif": (".tif", {}),
    "F.tif": (".tif", {}),
    "share.tif": (".tif", {}),
}
"""A mode of Pillow's and a format -> suffix and settings of ``save``; share: floats from 0 to 1."""


def halves(first: tuple[int, ...], second: tuple[int, ...]) -> Image.Image:
    """A picture of 32×48 pixels: above of one colour, below of another."""
    pixels = np.zeros((48, 32, 3), dtype=np.uint8)
    pixels[:24], pixels[24:] = first, second
    return Image.fromarray(pixels)


def in_mode(picture: Image.Image, mode: str) -> Image.Image:
    grey = np.asarray(picture.convert("L"))
    if mode == "LAB":
        names = ("sRGB", "LAB")
        return ImageCms.profileToProfile(
            picture, *(ImageCms.createProfile(n) for n in names), outputMode="LAB"
        )
    if mode == "P":
        return picture.quantize(8)
    if mode.startswith("I"):
        deep = grey.astype(np.uint16 if mode == "I;16" else np.int32) * 257
        return Image.fromarray(deep)
    if mode in ("F", "share"):
        # A scale of 0 to 1 is known by its values; black and white show it.
        scale = 1 if mode == "F" else 255
        return Image.fromarray((grey / scale).astype(np.float32))
    return picture.convert(mode)


TURNS = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
"""Orientation of EXIF -> the transposition that stores an upright picture so."""


def stored(picture: Image.Image, orientation: int) -> Image.Image:
    turn = TURNS[orientation]
    return picture if turn is None else picture.transpose(Image.Transpose(turn))


@given(kind=st.sampled_from(sorted(KINDS)), first=COLOURS, second=COLOURS)
@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_mode_is_read_as_the_picture(
    tmp_path: Path, kind: str, first: Any, second: Any
) -> None:
    mode = kind.partition(".")[0]
    if mode == "F" and max(*first, *second) < 8:
        return  # nearly black on a scale of 255 cannot be told from white on a scale of 1
    picture = halves(first, second)
    suffix, options = KINDS[kind]
    path = str(tmp_path / f"picture{suffix}")
    in_mode(picture, mode).save(path, **options)
    grey = mode in ("L", "LA", "I;16", "I", "F", "share")
    wanted = np.asarray(picture.convert("L") if grey else picture).astype(int)
    for large in (files.LARGE_PIXELS, 100):  # decoded as it is, and as a large one is
        found = np.asarray(open_image(path, 1 if grey else 3, side=8, large=large)).astype(int)
        for side in (0, -1):  # far from the edge between the colours, which formats blur
            allowed = 12 if suffix in (".jpg", ".jfif", ".webp") or mode == "YCbCr" else 2
            allowed = 44 if mode == "LAB" else allowed  # of pure dark colours it holds less
            assert abs(found[side, 1] - wanted[side, 1]).max() <= allowed, (kind, large)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
@pytest.mark.parametrize("large", [files.LARGE_PIXELS, 100])
def test_pictures_are_turned_upright(tmp_path: Path, suffix: str, large: int) -> None:
    pixels = np.full((40, 64, 3), 20, dtype=np.uint8)
    pixels[:20, :32] = 220  # bright in the upper left corner alone
    for orientation in TURNS:
        exif = Image.Exif()
        exif[0x0112] = orientation
        path = str(tmp_path / f"{orientation}{suffix}")
        stored(Image.fromarray(pixels), orientation).save(path, exif=exif)
        found = open_image(path, 1, side=8, large=large)
        assert found.width > found.height
        corners = np.asarray(found.resize((2, 2), Image.Resampling.BOX)) > 120
        assert corners.tolist() == [[True, False], [False, False]], orientation


def test_invisible_pixels_show_the_background(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (20, 20, 4), dtype=np.uint8)
    pixels[..., 3] = 0
    pixels[5:9, 5:9] = (255, 0, 0, 255)
    full = Image.fromarray(pixels)
    palette = Image.fromarray(np.kron([[0, 1]], np.ones((20, 10), np.uint8)).astype(np.uint8))
    palette = palette.convert("P")
    for name, image, options in (
        ("full.png", full, {}),
        ("palette.png", palette, {"transparency": 0}),
        ("palette.gif", palette, {"transparency": 0}),
        ("key.png", halves((9, 8, 7), (255, 0, 0)), {"transparency": (9, 8, 7)}),
        ("half.png", full.convert("LA"), {}),
    ):
        image.save(tmp_path / name, **options)
        for background in ((255, 255, 255), (10, 200, 30)):
            found = open_image(str(tmp_path / name), 3, background=background)
            assert found.getpixel((0, 0)) == background, name
    assert open_image(str(tmp_path / "full.png"), 3).getpixel((6, 6)) == (255, 0, 0)


def test_of_several_pictures_the_first_is_read(tmp_path: Path) -> None:
    first, second = halves((250, 0, 0), (250, 0, 0)), halves((0, 0, 250), (0, 0, 250))
    for name, form in (("x.jpg", "MPO"), ("x.gif", "GIF"), ("x.tif", "TIFF"), ("x.webp", "WEBP")):
        copies = first.copy(), second.copy()  # Pillow keeps settings of a format in the image
        copies[0].save(tmp_path / name, format=form, save_all=True, append_images=[copies[1]])
        red, _, blue = np.asarray(open_image(str(tmp_path / name), 3))[0, 0].tolist()
        assert red > 200 and blue < 50, form


def test_deep_greys_keep_one_scale(tmp_path: Path) -> None:
    """Two pictures of 16 bits are as bright as each other says, not each stretched by itself."""
    for value in (257 * 40, 257 * 200):
        Image.fromarray(np.full((4, 4), value, dtype=np.uint16)).save(tmp_path / "deep.png")
        assert open_image(str(tmp_path / "deep.png"), 1).getpixel((0, 0)) == value // 257
    floats = np.array([[-3.0, np.nan], [np.inf, 5.0]], dtype=np.float32)
    Image.fromarray(floats).save(tmp_path / "wild.tif")
    assert np.asarray(open_image(str(tmp_path / "wild.tif"), 1)).tolist() == [[0, 0], [255, 255]]


# Files that are none


def test_no_other_program_and_no_other_format_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def started(*arguments: Any, **named: Any) -> None:
        raise AssertionError("Ghostscript was started")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", started)
    halves((0, 0, 0), (9, 9, 9)).save(tmp_path / "x.png", format="EPS")
    halves((0, 0, 0), (9, 9, 9)).save(tmp_path / "y.png", format="PCX")
    for name in ("x.png", "y.png"):
        with pytest.raises(
            UserError, match=rf"cannot read the image .*{name}: damaged or no image"
        ):
            open_image(str(tmp_path / name), 3)


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    (tmp_path / "empty.png").touch()
    (tmp_path / "folder.png").mkdir()
    for name, reason in (
        ("pipe.png", "no regular file"),
        ("zero.png", "no regular file"),
        ("empty.png", "it is empty"),
        ("folder.png", ""),
        ("absent.png", "No such file"),
    ):
        for read in (lambda path: open_image(path, 3), files.digest_of_readable):
            with pytest.raises(UserError, match=rf"cannot read the image .*{name}: .*{reason}"):
                read(str(tmp_path / name))


def test_any_cut_or_flipped_file_is_read_or_refused(tmp_path: Path) -> None:
    """Nothing but an image or a UserError comes of damaged files."""
    noise = np.random.default_rng(0)
    for suffix in (".jpg", ".png", ".gif", ".tif", ".webp", ".bmp", ".ppm"):
        path = tmp_path / f"x{suffix}"
        picture = halves((200, 30, 90), (10, 120, 220))
        picture.save(path)
        whole = path.read_bytes()
        for _ in range(12):
            data = bytearray(whole[: noise.integers(1, len(whole) + 1)])
            data[noise.integers(len(data))] = noise.integers(256)
            path.write_bytes(data)
            for read in (lambda path: open_image(path, 3), files.digest_of_readable):
                try:
                    read(str(path))
                except UserError as error:
                    assert str(path) in str(error) and "\n" not in str(error)


def test_a_cut_image_is_found_by_the_check(tmp_path: Path) -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    for suffix in (".jpg", ".png", ".tif", ".webp", ".bmp"):
        path = tmp_path / f"x{suffix}"
        picture.save(path)
        assert files.digest_of_readable(str(path)) > 0
        path.write_bytes(path.read_bytes()[:-300])
        with pytest.raises(UserError, match="cannot read the image"):
            files.digest_of_readable(str(path))


def test_sizes_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "wide.png")
    Image.new("1", (1000, 10)).save(path)
    monkeypatch.setattr(files, "MAX_PIXELS", 9_999)
    with pytest.raises(UserError, match="1000×10 pixels are more than the 9,999 allowed"):
        open_image(path, 3)
    with pytest.raises(UserError, match=r"bytes are more than the 10 allowed"):
        files.open_regular(path, limit=10)


def test_the_limit_of_pillow_is_raised_to_ours() -> None:
    assert "EPS" not in files.formats() and {"JPEG", "PNG", "GIF"} <= set(files.formats())
    assert Image.MAX_IMAGE_PIXELS == files.MAX_PIXELS


@pytest.mark.soak
def test_a_picture_above_the_limit_of_pillow_is_decoded_small(tmp_path: Path) -> None:
    path = str(tmp_path / "panorama.png")
    Image.new("1", (14_000, 13_000), 1).save(path)
    found = open_image(path, 3, side=64)
    assert found.width < 200 and found.getpixel((5, 5)) == (255, 255, 255)


# Shapes


def shaped(fit: Any, size: int = 16) -> Transforms:
    return Transforms(
        MapSize.square(size), 3, 0.08, False, 0, 0, 0, 0, background=(0, 0, 255), fit=fit
    )


def test_padding_shows_the_whole_picture_between_bars() -> None:
    red = Image.new("RGB", (64, 16), (255, 0, 0))
    cropped = shaped("crop").evaluation()(red)
    padded = shaped("pad").evaluation()(red)
    assert cropped.shape == padded.shape == (3, 16, 16)
    assert (cropped[0] == 255).all()
    assert (padded[2, :5] == 255).all() and (padded[2, -5:] == 255).all()
    assert (padded[0, 7:9] == 255).all() and padded[0].float().mean() < 255 / 3
    assert shaped("pad").training()(red).shape == (3, 16, 16)
    grey = Transforms(MapSize.square(16), 1, 0.08, False, 0, 0, 0, 0, fit="pad").evaluation()(
        red.convert("L")
    )
    assert grey.shape == (1, 16, 16) and grey[0, 0, 0] == 255


@pytest.mark.parametrize("fit", ["crop", "pad"])
def test_a_line_of_pixels_takes_no_memory(fit: str) -> None:
    """By its short side a strip of 1×100,000 pixels would become 16×1,600,000."""
    strip = Image.new("RGB", (100_000, 1), (255, 0, 0))
    for transform in (shaped(fit).evaluation(), shaped(fit).training()):
        assert transform(strip).shape == (3, 16, 16)
