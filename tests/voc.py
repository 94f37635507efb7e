"""Small sets with boxes, written in the layouts of VOC and COCO."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"blue": (40, 60, 230), "red": (230, 50, 40)}


def draw(generator: np.random.Generator, height: int, width: int, num_objects: int):
    """Return a grey picture with coloured squares, and (class, left, top, right, bottom)."""
    pixels = generator.integers(110, 140, (height, width, 3)).astype(np.uint8)
    objects = []
    for _ in range(num_objects):
        name = ("blue", "red")[int(generator.integers(2))]
        side = int(generator.integers(12, 20))
        top, left = (int(generator.integers(0, room - side)) for room in (height, width))
        pixels[top : top + side, left : left + side] = COLOURS[name]
        objects.append((name, left, top, left + side, top + side))
    return pixels, objects


def xml(objects, height: int, width: int, difficult=()) -> str:
    """Return VOC's annotation; it counts pixels from one, the last one included."""
    parts = [
        f"<object><name>{name}</name><difficult>{int(row in difficult)}</difficult><bndbox>"
        f"<xmin>{left + 1}</xmin><ymin>{top + 1}</ymin><xmax>{right}</xmax><ymax>{bottom}</ymax>"
        "</bndbox></object>"
        for row, (name, left, top, right, bottom) in enumerate(objects)
    ]
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    return f"<annotation>{size}{''.join(parts)}</annotation>"


def write_voc(folder: Path, lists: dict[str, int], *, seed: int = 0, num_objects: int = 1) -> None:
    """Write a VOC folder whose lists have so many pictures each, of several sizes."""
    generator = np.random.default_rng(seed)
    for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (folder / name).mkdir(parents=True)
    for list_name, number in lists.items():
        stems = [f"{list_name}{row}" for row in range(number)]
        (folder / "ImageSets/Main" / f"{list_name}.txt").write_text("\n".join(stems) + "\n")
        for row, stem in enumerate(stems):
            height, width = ((40, 48), (48, 36))[row % 2]
            pixels, objects = draw(generator, height, width, num_objects)
            Image.fromarray(pixels).save(folder / "JPEGImages" / f"{stem}.jpg", quality=95)
            (folder / "Annotations" / f"{stem}.xml").write_text(xml(objects, height, width))


def write_coco(folder: Path, numbers: dict[str, int], *, seed: int = 0) -> dict[str, list]:
    """Write COCO's layout, and return the objects of each picture by its path."""
    generator = np.random.default_rng(seed)
    (folder / "annotations").mkdir(parents=True)
    written = {}
    for part, number in numbers.items():
        (folder / part).mkdir()
        images, annotations = [], []
        for row in range(number):
            pixels, objects = draw(generator, 40, 56, 2)
            Image.fromarray(pixels).save(folder / part / f"{row:03}.png")
            written[f"{part}/{row:03}.png"] = objects
            size = {"height": 40, "width": 56}
            images.append({"id": 100 + row, "file_name": f"{row:03}.png", **size})
            for place, (name, left, top, right, bottom) in enumerate(objects):
                annotations.append(
                    {
                        "image_id": 100 + row,
                        "category_id": 7 if name == "red" else 3,
                        "bbox": [left, top, right - left, bottom - top],
                        "iscrowd": int(place == 1),
                    }
                )
        content = {
            "images": images[::-1],
            "annotations": annotations,
            "categories": [{"id": 7, "name": "red"}, {"id": 3, "name": "blue"}],
        }
        (folder / "annotations" / f"instances_{part}.json").write_text(json.dumps(content))
    return written
