"""What is wrong with a data set for classification: every image is read once, and all problems are collected."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vpt.data.alike_names import person_in
from vpt.data.check_images import parted, unlike
from vpt.data.class_counts import counted_classes, problems_of_classes
from vpt.data.doubts.class_copies import Look, copies, near_copies, split_name
from vpt.data.doubts.class_images import masks_as_classes, masks_beside, patients_as_classes, told_by_the_file
from vpt.data.doubts.headers import once, unusual_spacing
from vpt.data.doubts.left_out import beside, kinds, left_out
from vpt.data.doubts.one_patient import guessed_on_two_sides
from vpt.data.doubts.unread_columns import unread_columns
from vpt.data.doubts.unread_lists import unread_lists
from vpt.data.doubts.unread_tables import unread_tables
from vpt.data.findings import (
    Check,
    ClassSummary,
    Problem,
    intensity_of,
    orientations_of,
    problem_of,
    seen_from,
    spread_of,
    unforeseen,
)
from vpt.data.labelled import Example, LabelledSet
from vpt.data.layouts import survey_labelled
from vpt.data.layouts.class_folders import unread_classes
from vpt.data.layouts.image_folders import COLOUR
from vpt.data.looked_for import looked_for_in_words, one_sided
from vpt.data.patients import of_folders
from vpt.data.reading import ImageFacts, read_each, see
from vpt.data.splits import Splits, first_sides, source_in_words, survey_folds
from vpt.errors import VptError
from vpt.readers import reader_of
from vpt.vocabulary import SIDE_WORDS, TABLES, Target
from vpt.words import counted, listed

FEWEST_ALIKE = 2  # folders inside every class that are told


@dataclass
class _Facts(ImageFacts):
    """What reading an example gave."""

    example: Example

    @property
    def is_empty(self) -> bool:
        return len({value for pair in self.ranges for value in pair}) == 1


def check_labelled(
    path: str | Path,
    target: Target | None = None,
    classes: Sequence[str] | None = None,
    progress: Callable[[int, int, str], None] = lambda done, total, name: None,
    patients: str | None = None,
) -> Check:
    """Read every image of a labelled set once, and collect all problems.

    target, classes, patients: as in `read_labelled`; progress: called after each image with (done, total, name).
    Raises VptError only where nothing can be checked.
    """
    found, pairing = survey_labelled(path, target, classes, patients)
    facts = read_each(lambda example: _read(example, found), found.cases, found.kind, progress)
    splits, split_errors = survey_folds(found)
    sides = [{name: side for side, names in each.to_dict().items() for name in names} for each in splits]
    looks = [Look(each.example, each.digest, each.steps) for each in facts]
    problems = [
        *map(problem_of, pairing),
        *map(problem_of, split_errors),
        *(problem for each in facts for problem in each.problems),
        *(Problem("warning", file, text) for file, text in once(doubt for each in facts for doubt in each.doubts)),
        *_empty(found, facts),
        *copies(found, looks, sides),
        *near_copies(found, looks, sides),
        *unlike(facts, found.channels, found.kind),
        *_in_no_split(found, sides),
        *problems_of_classes(found, splits),
        *_images_of_classes(found, facts),
        *_one_sided(found, splits),
        *_folders(found),
        *_alike_inside(found),
        *_guessed(found, splits),
        *parted(facts, found.whose, splits, split_name(found)),
        *_spacings(found, facts),
        *_left_out(found, pairing),
    ]
    return _summary(found, facts, splits, tuple(seen_from(problem, found.root) for problem in problems))


def _read(example: Example, found: LabelledSet) -> _Facts:
    """Read an image; what the loaders refuse becomes a problem."""
    source: Any = example.images[0]
    file = str(source) if isinstance(source, Path) else f"{found.source}: {example.name}"
    facts = _Facts(example, name=example.name, file=file)
    try:
        see(facts, example.images, len(found.channels), found.kind)
        doubts = reader_of(source).doubts() if isinstance(source, Path) else []
        if found.kind == "volumes":
            facts.problems += [Problem("warning", facts.file, text) for text in doubts]
        else:
            facts.doubts += [(facts.file, text) for text in doubts]
    except VptError as error:
        if isinstance(source, Path):
            facts.problems.append(_unseen_colour(example, found) or problem_of(error))
        else:
            facts.problems.append(problem_of(VptError(f"{facts.file}: {str(error).partition(': ')[2]}")))
    except Exception as error:  # of a library; it must not hide the other images
        facts.problems.append(unforeseen(error, facts.file))
    return facts


def _unseen_colour(example: Example, found: LabelledSet) -> Problem | None:
    """The problem of an image with colour where dataset.json says that all are grey."""
    if found.kind != "images" or len(found.channels) > 1:
        return None
    try:
        reader_of(example.images).voxels(len(COLOUR))
    except VptError:
        return None
    text = (
        "a colour image among grey ones; convert it to grey, or write dataset.json with "
        '"channel_names": {"0": "red", "1": "green", "2": "blue"}'
    )
    return Problem("error", str(example.images[0]), text)


# --- doubts, one line for all of a kind, since there are thousands of images ------------------------------------------


def _empty(found: LabelledSet, facts: Sequence[_Facts]) -> Iterator[Problem]:
    names = [each.example.name for each in facts if each.is_empty]
    if names:
        text = f"{counted(len(names), 'image')} of one value only ({listed(names, 3)}); is the export complete?"
        yield Problem("warning", str(found.source), text)


def _in_no_split(found: LabelledSet, sides: Sequence[dict[str, str]]) -> Iterator[Problem]:
    unused = [each.name for each in found.cases if not any(each.name in side for side in sides)]
    if sides and unused:
        text = f"{counted(len(unused), 'image')} on no side ({listed(unused, 3)}); add to train, or leave out"
        yield Problem("warning", split_name(found), text)


def _images_of_classes(found: LabelledSet, facts: Sequence[_Facts]) -> Iterator[Problem]:
    """Masks that count as a class, and classes that their files alone tell apart."""
    read = [(each.example, each.values, each.grid, each.file) for each in facts if each.values and each.grid]
    masks = masks_as_classes(found, [(example, values) for example, values, _, _ in read])
    for text in masks:  # in a list somebody has called them a class
        yield Problem("error" if found.source.is_dir() else "warning", str(found.source), text)
    for text in masks_beside(found) + ([] if masks else patients_as_classes(found) or told_by_the_file(found, read)):
        yield Problem("warning", str(found.source), text)


def _one_sided(found: LabelledSet, splits: Sequence[Splits]) -> Iterator[Problem]:
    if not found.is_partly_annotated:
        return
    for each in splits[:1]:
        for text in one_sided([found.case(name) for name in each.train], found.classes, "training"):
            yield Problem("warning", str(found.source), text)


def _guessed(found: LabelledSet, splits: Sequence[Splits]) -> Iterator[Problem]:
    for text in guessed_on_two_sides(found, splits):
        yield Problem("warning", split_name(found), text)
    if text := unread_lists(found):
        yield Problem("warning", str(found.root), text)
    for text in unread_columns(found, splits):
        yield Problem("warning", str(found.source), text)
    for text in unread_tables(found, splits):
        yield Problem("warning", str(found.root), text)
    for text in found.whose.doubts([each.to_dict() for each in splits]):
        yield Problem("warning", str(found.source), text)


def _spacings(found: LabelledSet, facts: Sequence[_Facts]) -> Iterator[Problem]:
    if found.kind == "volumes":
        for file, text in unusual_spacing([(each.file, each.grid) for each in facts if each.grid]):
            yield Problem("warning", file, text)


def _folders(found: LabelledSet) -> Iterator[Problem]:
    """Folders inside a class, which may be patients, or where all of its images lie in some, the classes; none that
    are called as patients, and read as such.
    """
    if not found.source.is_dir():
        return
    depth = {name: len(Path(name).parts) - 2 - (name in found.sides) for name in (each.name for each in found.cases)}
    own = found.whose.own
    inner = [name for name in depth if depth[name] > 0 and not (name in found.patients or person_in(own[name]))]
    alone = any(found.patient(name) == name for name in inner)
    class_of = {example.name: found.classes[example.target[0]] for example in found.cases}
    empty = {class_of[name] for name in inner} - {class_of[name] for name in depth if depth[name] == 0}
    if inner and (alone or empty):
        folders = listed(dict.fromkeys(Path(name).parent.as_posix() for name in inner), 3)
        patients = ", each taken for a patient of its own; if the folders are patients, say so in labels.csv, or as "
        patients += "`patients` in dataset.json"
        classes = "; if they are the classes, list all in labels.csv with the columns path and label"
        text = f"{counted(len(inner), 'image')} in folders inside a class ({folders}){patients if alone else ''}"
        yield Problem("warning", str(found.source), text + (classes if empty else ""))


def _alike_inside(found: LabelledSet) -> Iterator[Problem]:
    """Folders inside every class, which may be the classes, or sides, and those above folds, patients or roles."""
    if not found.source.is_dir() or len(found.classes) < 2:
        return
    inside: dict[str, set[str]] = {}
    for example in found.cases:
        parts = Path(example.name).parts[example.name in found.sides : -1]
        if parts:
            inside.setdefault(parts[0], set()).update(parts[1:2])
    everywhere = sorted(set.intersection(*inside.values())) if len(inside) > 1 else []
    alike = [name for name in everywhere if not name.isdecimal() and not of_folders({name: (name,)})]
    if len(alike) < FEWEST_ALIKE and not SIDE_WORDS.keys() & {*map(str.lower, alike)}:
        return
    text = (
        f"every class ({listed(inside, 3)}) holds the folders {listed(alike, 3)}: are these the classes, or sides, and "
        "those above folds, patients or something else? Then list all in labels.csv with the columns path and label"
    )
    yield Problem("warning", str(found.source), text)


def _left_out(found: LabelledSet, told: Sequence[VptError]) -> Iterator[Problem]:
    """Files in the set's folder that are no images of it, and classes of which none is read, but for those `told`."""
    is_folder = found.source.is_dir()
    if not is_folder and found.source.suffix.lower() not in TABLES:
        return
    read = {Path(source) for example in found.cases for source in example.images if isinstance(source, Path)}
    read |= {Path(problem_of(error).file) for error in told}
    read |= {file for file in found.masks if isinstance(file, Path)}
    out = left_out(found.root, read) if is_folder else beside(found.root, read)
    for name, files in unread_classes(found.root).items() if is_folder else ():
        text = (
            f"no file of the class {Path(name).name} is read ({kinds(files)}), so it is no class; convert them to PNG"
            if files
            else f"the folder {Path(name).name} is empty, so it is no class; add its images, or remove it"
        )
        yield Problem("warning", str(found.root / name), text)
    because = "" if is_folder else f": they are in no usable line of {found.source.name}; add them, or take them out"
    for text in out.sentences(" to PNG" if found.kind == "images" else " to .nii.gz", because):
        yield Problem("warning", str(found.root), text)


# --- summary ----------------------------------------------------------------------------------------------------------


def _summary(
    found: LabelledSet,
    facts: Sequence[_Facts],
    splits: Sequence[Splits],
    problems: tuple[Problem, ...],
) -> Check:
    grids = [each.grid for each in facts if each.grid]
    everywhere = counted_classes(found, [each.name for each in found.cases])
    on = {side: counted_classes(found, names) for side, names in splits[0].to_dict().items()} if splits else {}
    return Check(
        root=found.root,
        name=found.name,
        cases=len(found.cases),
        channels=found.channels,
        labels=(),
        shape=spread_of([grid.shape for grid in grids]),
        spacing=spread_of([grid.spacing for grid in grids]),
        orientations=orientations_of(grids),
        intensity=intensity_of([each.ranges for each in facts if each.ranges]),
        splits={side: len(names) for side, names in splits[0].to_dict().items()} if splits else {},
        split_source=source_in_words(found, splits),
        patients=found.whose.guess(),
        dataset=found,
        sides=first_sides(splits),
        problems=problems,
        kind=found.kind,
        annotated=looked_for_in_words(found.cases, found.classes),
        classes=tuple(
            ClassSummary(name, everywhere[name], {side: count[name] for side, count in on.items()})
            for name in found.classes
        ),
    )
