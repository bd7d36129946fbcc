"""Archives, IDX files and pictures that somebody made to do harm, or that were damaged: each is
refused in one message that names the file, takes little memory, and runs nothing."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support import loaders
from support.containment import Reading, read_contained
from support.data import pixels

PEAK = 96
"""MiB that reading any of these files may take; 64 MiB of content are allowed to every file."""
GIBIBYTE = 1 << 30

Write = Callable[[Path], None]


# -- npz ------------------------------------------------------------------------------------------
def npy(descr: str = "'|u1'", shape: str = "(12, 4, 4)", body: bytes = bytes(192)) -> bytes:
    """Return a file of NumPy's format whose header says what it is given."""
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (63 - (len(header) + 10) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + body


def archive(
    content: bytes | None = None, compression: int = zipfile.ZIP_DEFLATED, **more: bytes
) -> Write:
    """Write an archive with `images.npy` and further members."""

    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w", compression) as file:
            for name, value in {"images": npy() if content is None else content, **more}.items():
                file.writestr(f"{name}.npy", value)

    return write


def of_zeros(num_bytes: int, declared: int | None = None) -> Write:
    """Write an archive of images that are black, which packs a thousandfold; the directory says
    that they have `declared` bytes."""

    def write(path: Path) -> None:
        start = npy(shape=f"({num_bytes >> 20}, 1024, 1024)", body=b"")
        with (
            zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file,
            file.open("images.npy", "w") as member,
        ):
            member.write(start)
            for _ in range(num_bytes >> 20):
                member.write(bytes(1 << 20))
        if declared is not None:
            size, other = (struct.pack("<I", n) for n in (len(start) + num_bytes, declared))
            assert size in path.read_bytes()
            path.write_bytes(path.read_bytes().replace(size, other))

    return write


def damaged(write: Write, change: Callable[[bytes], bytes]) -> Write:
    def write_damaged(path: Path) -> None:
        write(path)
        path.write_bytes(change(path.read_bytes()))

    return write_damaged


def twice(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file, pytest.warns(UserWarning, match="Duplicate"):
        file.writestr("images.npy", npy())
        file.writestr("images.npy", npy())


class Planted:
    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.mkdir, (f"{os.environ['PLANTED']}/code ran",)


def objects(path: Path) -> None:
    os.environ["PLANTED"] = str(path.parent)
    np.savez(path, images=np.array([Planted()], object))


def encrypted(content: bytes) -> bytes:
    """Set the flag of a member that is encrypted, in its own header and in the directory."""
    at = content.index(b"PK\x01\x02")
    return content[:6] + b"\x01" + content[7 : at + 8] + b"\x01" + content[at + 9 :]


def pipe(path: Path) -> None:
    os.mkfifo(path)


ARCHIVES: dict[str, Write] = {
    "256 MiB of black images": of_zeros(256 << 20),
    "256 MiB that are declared to be 100 bytes": of_zeros(256 << 20, declared=100),
    "a header of 2**60 images": archive(npy(shape=f"({2**60}, 1, 1)")),
    "a header of 2**200 images": archive(npy(shape=f"({2**200}, 1, 1)")),
    "a header of fewer images": archive(npy(shape="(3, 4, 4)")),
    "a header of -12 images": archive(npy(shape="(-12, 4, 4)")),
    "a header of true images": archive(npy(shape="(True, 4, 4)")),
    "a shape that is text": archive(npy(shape="'a'")),
    "a shape of 1,000 dimensions": archive(npy(shape="(" + "1, " * 1000 + ")")),
    "a value of a gigabyte": archive(npy("'|V1073741824'", "(12,)")),
    "records": archive(npy("[('a', '|u1'), ('b', '|O')]")),
    "code in the header": archive(npy("__import__('os').getpid()")),
    "a header nested deep": archive(npy("(" * 4000 + ")" * 4000)),
    "a header without end": archive(b"\x93NUMPY\x02\x00\xff\xff\xff\x7f" + bytes(99)),
    "a version of the format that is not": archive(b"\x93NUMPY\x09\x09" + bytes(99)),
    "pickled objects": objects,
    "a pickle": archive(pickle.dumps(b"x")),
    "a pickle alone": lambda path: path.write_bytes(pickle.dumps(b"x")) and None,
    "an empty member": archive(b""),
    "an empty archive": lambda path: zipfile.ZipFile(path, "w").close(),
    "packed by LZMA": archive(compression=zipfile.ZIP_LZMA),
    "packed by bzip2": archive(compression=zipfile.ZIP_BZIP2),
    "packed in an unknown way": damaged(
        archive(compression=zipfile.ZIP_STORED),
        lambda c: c.replace(b"\x14\x00\x00\x00\x00\x00", b"\x14\x00\x00\x00\x63\x00"),
    ),
    "encrypted": damaged(archive(), encrypted),
    "one key twice": twice,
    "a key outside the archive": archive(**{"../../images": npy()}),
    "a key of 60,000 characters": archive(**{"x" * 60_000: npy()}),
    "20,000 members": lambda path: _many_members(path),
    "cut": damaged(archive(), lambda content: content[:-30]),
    "cut in a member": damaged(archive(), lambda content: content[:60] + content[90:]),
    "a directory beyond the file": damaged(
        archive(), lambda c: c[:-6] + struct.pack("<I", 2**32 - 2) + c[-2:]
    ),
    "a pipe": pipe,
    "a folder": lambda path: path.mkdir(),
}


def _many_members(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        for number in range(20_000):
            file.writestr(f"{number}.npy", b"")


# -- IDX ------------------------------------------------------------------------------------------
def idx(*shape: int, magic: int | None = None, body: bytes | None = None) -> bytes:
    first = 0x0800 + len(shape) if magic is None else magic
    content = bytes(int(np.prod(shape))) if body is None else body
    return np.array([first, *shape], ">u4").tobytes() + content


def packed_zeros(num_bytes: int, before: bytes = b"") -> bytes:
    """Return so many zeros behind `before`, compressed without being held in memory."""
    pack, parts = zlib.compressobj(9, zlib.DEFLATED, 31), []
    parts.append(pack.compress(before))
    parts += [pack.compress(bytes(1 << 20)) for _ in range(num_bytes >> 20)]
    return b"".join([*parts, pack.flush()])


LARGEST = 2**32 - 1
IDX: dict[str, tuple[str, bytes]] = {
    "2**96 bytes": ("", idx(LARGEST, LARGEST, LARGEST, body=bytes(99))),
    "more images than bytes": ("", idx(60_000, 28, 28, body=bytes(999))),
    "images of no size": ("", idx(24, 0, 0)),
    "rank 255": ("", idx(28, 28, 28, magic=0x08FF)),
    "values of another type": ("", idx(24, 28, 28, magic=0x0D03)),
    "a header alone": ("", idx(24, 28, 28, body=b"")),
    "half a header": ("", idx(24, 28, 28)[:9]),
    "256 MiB of zeros, packed": (".gz", packed_zeros(256 << 20)),
    "256 MiB behind a header, packed": (
        ".gz",
        packed_zeros(256 << 20, idx(24, 28, 28, body=b"")),
    ),
    "2 GiB declared, packed": (".gz", packed_zeros(1 << 20, idx(2**21, 32, 32, body=b""))),
    "cut, packed": (".gz", gzip.compress(idx(24, 28, 28))[:40]),
    "a checksum that is wrong, packed": (".gz", gzip.compress(idx(24, 28, 28))[:-8] + bytes(8)),
    "not packed, by its name": (".gz", idx(24, 28, 28)),
    "a pickle": ("", pickle.dumps(b"x")),
}


def write_idx(root: Path, suffix: str, content: bytes) -> Path:
    """Write MNIST's files, of which the training images are `content`; return theirs."""
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    (raw / "train-labels-idx1-ubyte").write_bytes(idx(24))
    (raw / "t10k-images-idx3-ubyte").write_bytes(idx(6, 28, 28))
    (raw / "t10k-labels-idx1-ubyte").write_bytes(idx(6))
    path = raw / f"train-images-idx3-ubyte{suffix}"
    path.write_bytes(content)
    return path


# -- pictures -------------------------------------------------------------------------------------
def png(width: int, height: int, data: bytes = b"", *chunks: tuple[bytes, bytes]) -> bytes:
    """Return a grey PNG file whose header says what it is given."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        chunk(*each)
        for each in ((b"IHDR", header), *chunks, (b"IDAT", zlib.compress(data)), (b"IEND", b""))
    )


def encoded(kind: str, *shape: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels(*shape)).save(out, kind)
    return out.getvalue()


BMP = encoded("BMP", 16, 16, 3)
PICTURES: dict[str, tuple[str, bytes]] = {
    "a PNG of 10**10 pixels": ("x.png", png(100_000, 100_000)),
    "a PNG of 160 million pixels": ("x.png", png(16_000, 10_000, bytes(10_001) * 200)),
    "a PNG of 40 million pixels": ("x.png", png(8_000, 5_000)),
    "a PNG of no pixels": ("x.png", png(0, 0)),
    "a PNG with 200 MiB of text": (
        "x.png",
        png(8, 8, bytes(72), (b"zTXt", b"a\x00\x00" + zlib.compress(bytes(200 << 20)))),
    ),
    "a PNG with a profile of 200 MiB": (
        "x.png",
        png(8, 8, b"", (b"iCCP", b"a\x00\x00" + zlib.compress(bytes(200 << 20)))),
    ),
    "a PNG without an image": ("x.png", png(8, 8)[:33]),
    "a JPEG that is cut": ("x.jpg", encoded("JPEG", 64, 64, 3)[:400]),
    "a JPEG of 65,535 pixels a side": (
        "x.jpg",
        encoded("JPEG", 16, 16, 3).replace(b"\x00\x10\x00\x10\x03", b"\xff\xff\xff\xff\x03"),
    ),
    "a BMP of 2**31 pixels a side": ("x.bmp", BMP[:18] + b"\xff\xff\xff\x7f" * 2 + BMP[26:]),
    "a BMP of negative sizes": ("x.bmp", BMP[:18] + b"\xf0\xff\xff\xff" * 2 + BMP[26:]),
    "a PPM of 10**12 pixels": ("x.ppm", b"P6 1000000 1000000 255\n" + bytes(99)),
    "a PPM without end of numbers": ("x.ppm", b"P6 " + b"9" * 5000 + b" 1 255\n"),
    "a TIFF whose directory is its own successor": (
        "x.tif",
        b"II*\x00\x08\x00\x00\x00\x00\x00\x08\x00\x00\x00",
    ),
    "a WebP that is cut": ("x.webp", encoded("WEBP", 64, 64, 3)[:60]),
    "PostScript": (
        "x.png",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(code ran) (w) file pop showpage\n",
    ),
    "an SVG": ("x.png", b"<svg xmlns='http://www.w3.org/2000/svg'><script/></svg>"),
    "a pickle": ("x.png", pickle.dumps(b"x")),
}


# -- all of them ----------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def readings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Reading]]:
    """What became of each file."""
    above = tmp_path_factory.mktemp("hostile")
    tasks: list[Any] = []
    paths: list[Path] = []
    for number, write in enumerate(ARCHIVES.values()):
        paths.append(above / f"{number:03}.npz")
        write(paths[-1])
        tasks.append((loaders.data, (f"npz:{paths[-1]}",)))
    for number, (suffix, content) in enumerate(IDX.values()):
        root = above / f"idx{number:03}"
        paths.append(write_idx(root, suffix, content))
        tasks.append((loaders.data, ("mnist", root)))
    for number, (name, content) in enumerate([*PICTURES.values(), ("x.png", b"")]):
        folder = above / f"pictures{number:03}" / "class"
        folder.mkdir(parents=True)
        for index in range(11):
            (folder / f"{index}.png").write_bytes(encoded("PNG", 8, 8))
        paths.append(folder / name)
        if content:
            paths[-1].write_bytes(content)
        else:
            pipe(paths[-1])
        tasks.append((loaders.data, (f"folder:{folder.parent}",)))
    return dict(zip(CASES, zip(paths, read_contained(tasks), strict=True), strict=True))


CASES = [
    *(f"npz: {case}" for case in ARCHIVES),
    *(f"idx: {case}" for case in IDX),
    *(f"picture: {case}" for case in PICTURES),
    "picture: a pipe",
]


@pytest.mark.parametrize("case", CASES)
def test_a_hostile_file_is_refused(case: str, readings: dict[str, tuple[Path, Reading]]) -> None:
    path, reading = readings[case]
    assert reading.how == "refused", reading
    assert str(path) in reading.message and "\n" not in reading.message
    assert len(reading.message) < 1500, reading.message[:1500]
    assert reading.peak < PEAK, reading


def test_none_ran_its_code(
    readings: dict[str, tuple[Path, Reading]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    assert not list(tmp_path_factory.getbasetemp().rglob("code ran"))


# -- what looks alike and is right ----------------------------------------------------------------
def test_plain_files_that_pack_well_are_read(tmp_path: Path) -> None:
    of_zeros(48 << 20)(tmp_path / "black.npz")
    np.savez(tmp_path / "fortran.npz", images=np.asfortranarray(pixels(20, 4, 4)))
    folder = tmp_path / "frames"
    folder.mkdir()
    frames = [Image.fromarray(pixels(8, 8, seed=n)) for n in range(300)]
    for index in range(12):
        frames[0].save(folder / f"{index}.gif.png", "GIF", save_all=True, append_images=frames[1:])
    names = [f"npz:{tmp_path}/black.npz", f"npz:{tmp_path}/fortran.npz", f"folder:{folder}"]
    readings = read_contained([(loaders.data, (name,)) for name in names])
    assert [reading.how for reading in readings] == ["read"] * 3, readings
