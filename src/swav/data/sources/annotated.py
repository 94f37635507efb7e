"""Pictures with boxes: the layouts of VOC (a folder a year, or a VOCdevkit) and of COCO."""

import json
import os
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt8
from torch import Tensor

from swav.data.sources import decode
from swav.data.sources.listing import SUFFIXES, PackedNames
from swav.data.sources.pictures import Pictures
from swav.data.sources.readers import Contents, Files

LAYOUTS = """\
a folder of VOC (Annotations, ImageSets/Main, JPEGImages), such as VOCdevkit/VOC2007
a VOCdevkit with several such folders, all of which are learnt from
a folder of COCO (annotations/instances_train*.json with train*/, the same for val)"""
MAX_ANNOTATION_BYTES = 2**22
"""A VOC file is never longer; one that is was not written for one picture."""


class Objects(NamedTuple):
    """What is in one picture."""

    boxes: Float32[np.ndarray, "objects 4"]
    """Left, top, right, bottom in pixels; the picture begins at 0 and ends at its size."""
    labels: Int64[np.ndarray, " objects"]
    """Positions in ``classes``."""
    ignored: Bool[np.ndarray, " objects"]
    """VOC's difficult objects, COCO's crowds: finding them is neither right nor wrong."""


class Annotated(NamedTuple):
    """A set of pictures and the objects in each."""

    pictures: Pictures
    objects: Sequence[Objects]
    sizes: Int64[np.ndarray, "images 2"]
    """Height and width."""
    classes: tuple[str, ...]

    def picture(self, index: int) -> UInt8[Tensor, "channels height width"]:
        """Return a picture of the size that its annotation says.

        Raises:
            UnreadablePicture: if it cannot be read.
            ValueError: if it has another size, so that its boxes would be of something else.
        """
        picture = self.pictures[index]
        size = tuple(self.sizes[index].tolist())
        if picture.shape[1:] != size:
            raise ValueError(
                f"{self.pictures.names[index]!r} is {tuple(picture.shape[1:])} pixels, its "
                f"annotation says {size}: its boxes are of another picture, or of one not turned"
            )
        return picture

    def of(self, pictures: Pictures) -> "Annotated":
        """Return the objects of ``pictures``, which are some of these, decoded or not."""
        row_of = {name: row for row, name in enumerate(self.pictures.names)}
        rows = np.array([row_of[name] for name in pictures.names], dtype=np.int64)
        objects = [self.objects[row] for row in rows.tolist()]
        return Annotated(pictures, objects, self.sizes[rows], self.classes)


_Named = tuple[str, tuple[float, float, float, float], bool]
"""Class, box, and whether it is ignored."""


class _Part(NamedTuple):
    """Where the pictures of one part lie, their sizes, and their objects with class names."""

    root: Path
    names: list[str]
    sizes: list[tuple[int, int]]
    objects: list[list[_Named]]


def is_annotated(data: str) -> bool:
    """Say whether DATA is laid out as a set with boxes."""
    path = Path(data).expanduser()
    return path.is_dir() and bool(_voc_years(path) or _coco_files(path))


def open_annotated(data: str, *, channels: int = 3) -> tuple[Annotated, Annotated]:
    """Return the pictures to fit on and those to score, their classes numbered alike.

    VOC: ``trainval`` and ``test`` where there is a test list (of a VOCdevkit every year is fitted
    on, those with a test list are scored), else ``train`` and ``val``. COCO: train and val.

    Raises:
        ValueError: if DATA has none of the layouts, or an annotation is damaged.
    """
    path = Path(data).expanduser()
    years = _voc_years(path) if path.is_dir() else []
    if years:
        fit, score = _open_voc(path, years)
    elif path.is_dir() and _coco_files(path):
        fit, score = (_open_coco(path, *_coco_files(path)[part]) for part in ("train", "val"))
    else:
        raise ValueError(f"{data!r} has no boxes that are understood. With boxes:\n{LAYOUTS}")
    # of both parts: a class has one number in both
    names = sorted({name for part in (fit, score) for named in part.objects for name, *_ in named})
    if not names:
        raise ValueError(f"{data}: there is not one box in its annotations")
    first, second = (_numbered(data, part, tuple(names), channels) for part in (fit, score))
    return first, second


def _voc_years(path: Path) -> list[Path]:
    """Return the VOC folders that ``path`` is or holds, oldest first."""
    candidates = [path, *sorted(path.glob("VOC*"))]
    return [
        year for year in candidates if (year / "Annotations").is_dir() and _lists(year).is_dir()
    ]


def _lists(year: Path) -> Path:
    return year / "ImageSets" / "Main"


def _open_voc(path: Path, years: Sequence[Path]) -> tuple[_Part, _Part]:
    tested = [year for year in years if (_lists(year) / "test.txt").exists()]
    fit_list, score_list = ("trainval", "test") if tested else ("train", "val")
    parts = []
    for years_of, name in ((years, fit_list), (tested or years, score_list)):
        part = _Part(path, [], [], [])
        for year in years_of:
            _read_year(year, name, part)
        parts.append(part)
    return parts[0], parts[1]


def _read_year(year: Path, list_name: str, part: _Part) -> None:
    """Add the pictures of one list of one year."""
    listed = _lists(year) / f"{list_name}.txt"
    if not listed.exists():
        raise ValueError(f"{listed} is missing: a VOC folder names its parts there")
    for line in listed.read_text("utf-8").split("\n"):
        if not line.strip():
            continue
        stem = line.split()[0]
        annotation = year / "Annotations" / f"{stem}.xml"
        name, size, objects = _read_xml(annotation, year / "JPEGImages", stem)
        part.names.append(os.path.relpath(name, part.root))
        part.sizes.append(size)
        part.objects.append(objects)


def _read_xml(
    annotation: Path, folder: Path, stem: str
) -> tuple[Path, tuple[int, int], list[_Named]]:
    """Return the picture, its height and width, and its objects; VOC counts pixels from one."""
    try:
        if annotation.stat().st_size > MAX_ANNOTATION_BYTES:
            raise ValueError(f"longer than {MAX_ANNOTATION_BYTES} bytes")
        text = annotation.read_text("utf-8")
        if "<!DOCTYPE" in text or "<!ENTITY" in text:
            raise ValueError("it defines entities")  # which may grow without bound
        root = ElementTree.fromstring(text)
        objects: list[_Named] = []
        for item in root.iter("object"):
            left, top, right, bottom = (
                float(item.findtext(f"bndbox/{side}", ""))
                for side in ("xmin", "ymin", "xmax", "ymax")
            )
            ignored = item.findtext("difficult", "0").strip() == "1"
            # VOC counts from one and includes the last pixel
            box = (left - 1, top - 1, right, bottom)
            objects.append((item.findtext("name", ""), box, ignored))
        height, width = (int(root.findtext(f"size/{side}", "0")) for side in ("height", "width"))
    except (OSError, ValueError, ElementTree.ParseError) as error:
        raise ValueError(f"{annotation} is not an annotation of VOC: {error}") from error
    name = _picture_file(folder, stem, root.findtext("filename", "").strip())
    if min(height, width) < 1:
        # some writers leave the size out, or write 0
        height, width = decode.read_size(name, name=str(name))
    return name, (height, width), objects


def _picture_file(folder: Path, stem: str, noted: str) -> Path:
    """Return the picture of an annotation: the noted file, or one of its name and any kind."""
    candidates = [*([noted] if noted else []), *(f"{stem}{suffix}" for suffix in SUFFIXES)]
    files = (folder / name for name in candidates if (folder / name).is_file())
    return next(files, folder / f"{stem}.jpg")


def _coco_files(path: Path) -> dict[str, tuple[Path, Path]]:
    """Return part -> (annotations, folder of the pictures), if both parts are there."""
    parts = {}
    for part in ("train", "val"):
        for annotations in sorted((path / "annotations").glob(f"instances_{part}*.json")):
            folder = path / annotations.stem.removeprefix("instances_")
            if folder.is_dir():
                parts[part] = (annotations, folder)
    return parts if len(parts) == 2 else {}


def _open_coco(path: Path, annotations: Path, folder: Path) -> _Part:
    part = _Part(path, [], [], [])
    try:
        content: Mapping[str, Any] = json.loads(annotations.read_text("utf-8"))
        names = {kind["id"]: str(kind["name"]) for kind in content["categories"]}
        row_of = {}
        for image in sorted(content["images"], key=lambda image: str(image["file_name"])):
            row_of[image["id"]] = len(part.names)
            part.names.append(os.path.relpath(folder / str(image["file_name"]), path))
            part.sizes.append((int(image["height"]), int(image["width"])))
            part.objects.append([])
        for item in content["annotations"]:
            left, top, width, height = (float(number) for number in item["bbox"])
            box = (left, top, left + width, top + height)
            ignored = bool(item.get("iscrowd", 0))
            named = (names[item["category_id"]], box, ignored)
            part.objects[row_of[item["image_id"]]].append(named)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{annotations} is not a file of COCO instances: {error!r}") from error
    return part


def _numbered(data: str, part: _Part, classes: tuple[str, ...], channels: int) -> Annotated:
    """Return the part with class numbers; boxes are cut at the borders of their pictures."""
    numbers = {name: number for number, name in enumerate(classes)}
    sizes = np.array(part.sizes, dtype=np.int64).reshape(-1, 2)
    objects = []
    outside = [name for name in part.names if name.startswith("..") or os.path.isabs(name)]
    if outside:
        raise ValueError(f"{data}: its annotations name {outside[0]!r}, which lies outside of it")
    for name, (height, width), named in zip(part.names, part.sizes, part.objects, strict=True):
        boxes = np.array([box for _, box, _ in named], dtype=np.float32).reshape(-1, 4)
        # what lies beyond the border is in no picture that a detector sees
        boxes = boxes.clip(0, np.array([width, height, width, height], dtype=np.float32))
        # torchvision's detectors refuse boxes without an area
        whole = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        if not np.isfinite(boxes).all():
            raise ValueError(f"{data}: a box of {name!r} is not of finite numbers")
        labels = np.array([numbers[label] for label, *_ in named], dtype=np.int64)
        ignored = np.array([is_ignored for *_, is_ignored in named], dtype=np.bool_)
        objects.append(Objects(boxes[whole], labels[whole], ignored[whole]))
    if not objects:
        raise ValueError(f"{data}: one of its two parts has no picture")
    names = PackedNames(part.names)
    pictures = Pictures(data, Contents(Files(part.root, names), names), channels=channels)
    return Annotated(pictures, objects, sizes, classes)
