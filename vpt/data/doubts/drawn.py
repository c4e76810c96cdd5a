"""Boxes and polygons in files of their own, as COCO, YOLO, LabelMe, VIA, Pascal VOC and Aperio have them, no masks."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from vpt.data.walking import Walk
from vpt.words import counted, listed

HEAD = 65536  # bytes of a file that tell
PART = r" ([012](\.\d+)?|\d(\.\d+)?e-\d+)"  # of the image; 2 is of a point that is seen
YOLO = re.compile(rf"\d+({PART}){{4,}}\s*")  # the class, then a box, a polygon or points
TOOLS = {"COCO": " (pycocotools: `annToMask`)"}
KEYS = {  # of a JSON file, all of which are in it
    "LabelMe": ('"shapes"', '"imagePath"'),
    "VIA": ('"regions"', '"shape_attributes"'),
    "COCO": ('"annotations"', '"categories"', '"images"'),
}
TAGS = {  # the same of an XML file
    "Pascal VOC": ("<annotation", "<object>"),
    "Aperio ImageScope": ("<Annotations", "<Vertex "),
    "ASAP": ("<ASAP_Annotations", "<Coordinate "),
}


def drawn_as(path: Path) -> str:
    """Whose boxes and polygons a file holds, by its name or how it begins; "" where none."""
    name, ending = path.name.lower(), path.suffix.lower()
    if name.endswith(".coco.json") or (name.startswith("instances_") and ending == ".json"):
        return "COCO"
    if ending not in (".json", ".txt", ".xml"):
        return ""
    head, tail = _ends(path)
    if ending == ".json":
        return next((kind for kind, keys in KEYS.items() if all(key in head + tail for key in keys)), "")
    if ending == ".xml":
        return next((kind for kind, keys in TAGS.items() if all(key in head + tail for key in keys)), "")
    return "YOLO" if head and all(map(YOLO.fullmatch, head.splitlines()[:3])) else ""


def _ends(path: Path) -> tuple[str, str]:
    """How a file begins and how it ends, as text; "" where it cannot be read, or is a pipe, which is waited for."""
    if not path.is_file():
        return "", ""
    try:
        with open(path, "rb") as file:
            head = file.read(HEAD)
            file.seek(max(len(head), path.stat().st_size - HEAD))
            return head.decode("utf-8", "replace"), file.read(HEAD).decode("utf-8", "replace")
    except OSError:
        return "", ""


def drawn_below(root: Path) -> str:
    """That a folder without masks holds such files, and the way out; "" where it does not."""
    return told_of_drawn(root, drawn_among(Walk(root).files()))


def drawn_among(files: Iterable[Path]) -> dict[Path, str]:
    """Whose boxes and polygons files hold, of those that do; each is opened once."""
    return {path: whose for path in files if (whose := drawn_as(path))}


def told_of_drawn(root: Path, files: Mapping[Path, str]) -> str:
    """That such files are not read, and the way out; "" for none."""
    if not files:
        return ""
    kinds = Counter(files.values())
    whose, names = " and ".join(sorted(kinds)), listed((path.relative_to(root).as_posix() for path in files), 3)
    return (
        f"{counted(len(files), 'file')} of boxes and polygons as {whose} {'has' if len(kinds) == 1 else 'have'} them "
        f"not read: {names}; draw them as masks, PNGs called as their images{TOOLS.get(whose, '')}, and put images "
        "into images/ and masks into masks/"
    )
