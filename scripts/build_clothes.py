"""Rebuild the built-in photos, ``data/sources/clothes.zip``, from the set they come from.

    python scripts/build_clothes.py clothing-dataset-small

The folder is a checkout of https://github.com/alexeygrigorev/clothing-dataset-small, whose content
is checked by its hash. What ``clothes_left_out.txt`` names is left out; the three parts become one
set. The archive has the same bytes for the same versions of Pillow, libjpeg and libwebp; with
others the script says so, and checks instead that every photo is as close to its original.
"""

import argparse
import hashlib
import io
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image, features

PARTS = ("test", "train", "validation")
SOURCE_SHA256 = "c7c53523cbee10a95aaf1705820b2aa277078fdc2f3cfe12c449ccc13d7e9a5b"
ARCHIVE_SHA256 = "5c6ed7ba8f33f7059f2e1ccd48d72d3ed643ab1ece573ea207a98eec6d59f7f0"
NUM_PICTURES = 3757
SHORT_SIDE = 96
QUALITY = 75
MEAN_ERROR = 4.5
"""Grey levels that an encoded photo may be off, on average over the set."""
LEFT_OUT = Path(__file__).with_name("clothes_left_out.txt")
ARCHIVE = Path(__file__).parents[1] / "src" / "swav" / "data" / "sources" / "clothes.zip"


def main() -> None:
    """Build the archive and compare it with the one that is committed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="folder with train, validation and test")
    parser.add_argument("--to", type=Path, default=ARCHIVE)
    options = parser.parse_args()
    error = write_archive(select(options.source), options.to)
    digest = hashlib.sha256(options.to.read_bytes()).hexdigest()
    same = "as committed" if digest == ARCHIVE_SHA256 else "not the bytes committed"
    print(f"{options.to}: sha256 {digest}, {same}; libwebp {features.version('webp')}")
    print(f"mean error of a photo: {error:.2f} of 255")
    if error > MEAN_ERROR:
        raise SystemExit(f"the error is above {MEAN_ERROR}: this is not the same set")


def select(source: Path) -> dict[str, Path]:
    """Return name in the archive -> file, in its order, after a check of the hash."""
    files = {
        file.relative_to(source).as_posix(): file
        for part in PARTS
        for file in (source / part).glob("*/*.jpg")
    }
    digest = source_digest(files)
    if digest != SOURCE_SHA256:
        raise SystemExit(f"the photos of {source} have sha256 {digest}, not {SOURCE_SHA256}")
    kept = files.keys() - left_out()
    named = {name.partition("/")[2].replace(".jpg", ".webp"): files[name] for name in kept}
    assert len(named) == NUM_PICTURES, len(named)
    return dict(sorted(named.items()))


def source_digest(files: dict[str, Path]) -> str:
    """Return a hash of all names and contents."""
    lines = (f"{hashlib.sha256(files[name].read_bytes()).hexdigest()}  {name}\n" for name in files)
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()


def left_out() -> dict[str, str]:
    """Return ``part/class/name.jpg`` -> reason."""
    lines = LEFT_OUT.read_text().splitlines()
    return dict(line.split() for line in lines if not line.startswith("#"))


def write_archive(photos: dict[str, Path], path: Path) -> float:
    """Write the archive; return the mean absolute error of its photos."""
    errors = []
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, file in photos.items():
            photo = shrunk(file)
            encoded = io.BytesIO()
            photo.save(encoded, "WEBP", quality=QUALITY, method=6)
            archive.writestr(zipfile.ZipInfo(name), encoded.getvalue())
            decoded = np.asarray(Image.open(encoded).convert("RGB"), dtype=np.float64)
            errors.append(np.abs(decoded - np.asarray(photo)).mean())
    return float(np.mean(errors))


def shrunk(file: Path) -> Image.Image:
    """Return a photo with its shorter side at ``SHORT_SIDE``, in its own shape."""
    with Image.open(file) as photo:
        scale = SHORT_SIDE / min(photo.size)
        size = (round(photo.width * scale), round(photo.height * scale))
        return photo.convert("RGB").resize(size, Image.Resampling.LANCZOS)


if __name__ == "__main__":
    main()
