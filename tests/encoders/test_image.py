"""Image files of many formats, and broken ones; the contract is in test_contract.py."""

import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError

from recspark.encoders import image
from recspark.encoders.batches import Unreadable
from recspark.errors import ConfigError
from tests.encoders import tiny

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
PICTURE = tiny.picture(0)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> image.ImageEncoder:
    return image.load(str(tiny.build("vit", tmp_path_factory.mktemp("models") / "vit")), device="cpu")


def saved(picture: Image.Image, form: str, **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()


def png_header(width: int, height: int, text: bytes = b"") -> bytes:
    """A PNG that claims a size and has next to no data. `text`: compressed, in a chunk of its own."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    header += chunk(b"zTXt", b"Comment\0\0" + zlib.compress(text)) if text else b""
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("form", "options", "off"),
    [
        ("PNG", {}, 0),
        ("BMP", {}, 0),
        ("TIFF", {}, 0),
        ("WEBP", {"lossless": True}, 0),
        ("WEBP", {"quality": 95}, 12),
        ("JPEG", {"quality": 95}, 12),  # mean difference of a colour, of 255
    ],
)
def test_formats(form, options, off):
    found = np.asarray(image.decode(saved(Image.fromarray(PICTURE), form, **options)), dtype=float)
    assert found.shape == PICTURE.shape and np.abs(found - PICTURE).mean() <= off


def test_grey_is_three_equal_colours():
    grey = Image.fromarray(PICTURE).convert("L")
    found = np.asarray(image.decode(saved(grey, "PNG")))
    np.testing.assert_array_equal(found, np.stack([np.asarray(grey)] * 3, axis=2))


def test_grey_of_16_bits_is_scaled_not_clipped():
    deep = (np.asarray(Image.fromarray(PICTURE).convert("L")).astype(np.uint16) << 8) + 7
    found = np.asarray(image.decode(saved(Image.fromarray(deep), "PNG")))
    np.testing.assert_array_equal(found[:, :, 0], deep >> 8)


def test_cmyk():
    printed = Image.new("CMYK", (8, 8), (255, 0, 0, 0))  # cyan alone takes the red away
    red, green, blue = np.asarray(image.decode(saved(printed, "JPEG")))[4, 4]
    assert red < 5 and green > 250 and blue > 250


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_is_white(mode):
    if mode == "P":
        picture = Image.new("P", (8, 8), 0)
        picture.putpalette([10, 20, 30, 40, 50, 60])
        cell = saved(picture, "PNG", transparency=0)
    else:
        cell = saved(Image.new(mode, (8, 8), (0,) * len(mode)), "PNG")
    assert (np.asarray(image.decode(cell)) == 255).all()


@pytest.mark.parametrize("turned", range(1, 9))
def test_a_camera_held_sideways(turned):
    exif = Image.Exif()
    exif[0x0112] = turned  # the tag Orientation: how the stored picture must be turned to stand upright
    found = np.asarray(image.decode(saved(Image.fromarray(PICTURE), "PNG", exif=exif)))
    upright = {
        1: PICTURE,
        2: PICTURE[:, ::-1],
        3: PICTURE[::-1, ::-1],
        4: PICTURE[::-1],
        5: PICTURE.transpose(1, 0, 2),
        6: np.rot90(PICTURE, -1),
        7: PICTURE[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(PICTURE),
    }
    np.testing.assert_array_equal(found, upright[turned])


def test_of_an_animation_the_first_frame():
    frames = [Image.fromarray(tiny.picture(seed)) for seed in (1, 2)]
    cell = saved(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    np.testing.assert_array_equal(np.asarray(image.decode(cell)), tiny.picture(1))


def test_broken_files_have_reasons_and_do_not_affect_others(encoder):
    whole = saved(Image.fromarray(tiny.picture(3, 200, 200)), "JPEG")
    cells = [whole, b"", whole[: len(whole) // 2], whole[:20], png_header(60_000, 60_000), png_header(7_100, 7_100),
             png_header(10, 10), bytes(1000), whole]  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        vectors, reasons = encoder.encode_with_reasons(cells)
    short = [None if why is None else why.removeprefix("item image: ") for why in reasons]
    broken = "cannot be decoded"
    assert short == [None, "empty", broken, broken, "too large", "too large", broken, broken, None]
    np.testing.assert_array_equal(vectors.any(axis=1), [True, *[False] * 7, True])
    np.testing.assert_allclose(vectors[0], vectors[-1], atol=1e-6)


def test_a_small_file_does_not_become_a_large_one(monkeypatch):
    """40 KB that hold 40 MB of a comment, and an animation whose first frame is larger than it says."""
    assert image.decode(png_header(5, 5, b"short")).size == (5, 5)
    with pytest.raises(ValueError, match="too large"):
        image.decode(png_header(5, 5, bytes(40_000_000)))
    monkeypatch.setattr(image, "MAX_PIXELS", 30 * 40)
    gif = bytearray(saved(Image.new("P", (30, 41)), "GIF"))
    gif[6:10] = struct.pack("<HH", 1, 1)  # the size of the whole, 1 x 1
    with pytest.raises(Unreadable, match="too large"):
        image.decode(bytes(gif))


def test_a_format_that_would_start_another_program_is_not_opened():
    cell = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n"
    assert Image.open(io.BytesIO(cell)).format == "EPS"
    with pytest.raises(UnidentifiedImageError):
        image.decode(cell)


def test_the_limit_is_the_pixels_that_it_says(monkeypatch):
    monkeypatch.setattr(image, "MAX_PIXELS", 30 * 40)
    assert image.decode(saved(Image.new("RGB", (30, 40)), "PNG")).size == (30, 40)
    with pytest.raises(Unreadable, match="too large"):
        image.decode(saved(Image.new("RGB", (30, 41)), "PNG"))


def test_a_processor_that_keeps_shapes_is_refused(tmp_path):
    from transformers import ViTImageProcessorPil

    folder = tiny.build("vit", tmp_path / "vit")
    ViTImageProcessorPil(do_resize=False).save_pretrained(folder)
    with pytest.raises(ConfigError, match=r"makes images of .* expected one size"):
        image.load(str(folder), device="cpu")


@pytest.mark.parametrize("place", ["clothing-images/train", "movielens-1m/posters"])
def test_real_pictures_have_vectors(encoder, place):
    files = sorted((DATA / place).rglob("*.jpg"))
    if not files:
        pytest.skip(f"needs {DATA / place}")
    cells = [file.read_bytes() for file in files[:: len(files) // 6]]
    vectors, reasons = encoder.encode_with_reasons(cells)
    assert reasons == [None] * len(cells) and np.isfinite(vectors).all() and vectors.any(axis=1).all()
    assert len(np.unique(vectors.round(4), axis=0)) == len(cells)
