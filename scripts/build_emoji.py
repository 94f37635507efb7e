"""Rebuild the built-in pictures, ``data/sources/emoji.zip``, from the npm package they come from.

    python scripts/build_emoji.py emoji-datasource-google-16.0.0.tgz

Without a path the package is fetched by ``npm pack``. Its hash is checked before it is opened. The
archive has the same bytes for the same version of libwebp; with another one the script says so,
and checks instead that every picture is as close to its original as those committed.
"""

import argparse
import hashlib
import io
import json
import subprocess
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, features

PACKAGE = "emoji-datasource-google@16.0.0"
PACKAGE_SHA256 = "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438"
ARCHIVE_SHA256 = "c222845aa4ccf0033e361ee5d943e273f3a7593c5f283e29d1e9efa1ab246442"
NUM_PICTURES = 1906
MEAN_ERROR = 4.0
"""Grey levels that an encoded picture may be off, on average over the set."""
ARCHIVE = Path(__file__).parents[1] / "src" / "swav" / "data" / "sources" / "emoji.zip"


def main() -> None:
    """Build the archive and compare it with the one that is committed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("package", type=Path, nargs="?", help=f"the .tgz of {PACKAGE}")
    parser.add_argument("--to", type=Path, default=ARCHIVE)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        package = read_package(options.package or fetch(Path(folder)))
    error = write_archive(package, options.to)
    digest = hashlib.sha256(options.to.read_bytes()).hexdigest()
    same = "as committed" if digest == ARCHIVE_SHA256 else "not the bytes committed"
    print(f"{options.to}: sha256 {digest}, {same}; libwebp {features.version('webp')}")
    print(f"mean error of a picture: {error:.2f} of 255")
    if error > MEAN_ERROR:
        raise SystemExit(f"the error is above {MEAN_ERROR}: this is not the same set")


def fetch(folder: Path) -> Path:
    """Return the package, downloaded by npm."""
    subprocess.run(["npm", "pack", PACKAGE, "--silent"], cwd=folder, check=True)
    return next(folder.glob("*.tgz"))


def read_package(path: Path) -> dict[str, bytes]:
    """Return name -> content of the files that are needed, after a check of the hash."""
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != PACKAGE_SHA256:
        raise SystemExit(f"{path} has sha256 {digest}, not {PACKAGE_SHA256} as {PACKAGE}")
    wanted = ("package/emoji.json", "package/img/google/64/")
    with tarfile.open(fileobj=io.BytesIO(content)) as package:
        opened = {
            member.name: package.extractfile(member)
            for member in package
            if member.isreg() and member.name.startswith(wanted)
        }
        return {name: file.read() for name, file in opened.items() if file is not None}


def write_archive(package: dict[str, bytes], path: Path) -> float:
    """Write the archive; return the mean absolute error of its pictures."""
    emoji: list[dict[str, Any]] = json.loads(package["package/emoji.json"])
    emoji = [one for one in emoji if one["category"] != "Component"]  # bare skin tones
    assert len(emoji) == NUM_PICTURES, len(emoji)
    errors = []
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for one in sorted(emoji, key=name_of):
            picture = on_white(package[f"package/img/google/64/{one['image']}"])
            encoded = io.BytesIO()
            picture.save(encoded, "WEBP", quality=85, method=6)
            archive.writestr(zipfile.ZipInfo(name_of(one)), encoded.getvalue())
            decoded = np.asarray(Image.open(encoded).convert("RGB"), dtype=np.float64)
            errors.append(np.abs(decoded - np.asarray(picture)).mean())
    return float(np.mean(errors))


def name_of(one: dict[str, Any]) -> str:
    """Return the name in the archive: category, subcategory, short name."""
    return f"{one['category']}/{one['subcategory']}/{one['short_name']}.webp"


def on_white(content: bytes) -> Image.Image:
    """Return a picture of 64 pixels without transparency."""
    picture = Image.open(io.BytesIO(content)).convert("RGBA")
    assert picture.size == (64, 64), picture.size
    return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")


if __name__ == "__main__":
    main()
