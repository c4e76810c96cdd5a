"""How many examples each class has, and whether that is enough to learn from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from vpt.data.doubts.class_copies import split_name
from vpt.data.doubts.class_images import folders_say_otherwise
from vpt.data.doubts.class_names import class_doubts
from vpt.data.findings import Problem
from vpt.data.labelled import LabelledSet
from vpt.data.splits import Splits
from vpt.words import counted, listed

FEW_EXAMPLES = 5  # of a class: with less, nothing can be learned, nor measured
IMBALANCE = 20  # the most frequent class to the rarest


def counted_classes(found: LabelledSet, names: Iterable[str]) -> Counter[str]:
    """Class -> how many of the examples called so have it, in the order of the classes."""
    targets = {each.name: each.target for each in found.cases}
    places = Counter(place for name in names for place in targets.get(name, ()))
    return Counter({found.classes[place]: places[place] for place in sorted(places)})


def problems_of_classes(found: LabelledSet, splits: Sequence[Splits]) -> Iterator[Problem]:
    """Classes with nothing to learn from, few examples, or far less than others."""
    everywhere = counted_classes(found, [each.name for each in found.cases])
    learned = [counted_classes(found, each.train) for each in splits]
    if missing := [name for name in found.classes if not everywhere[name]]:
        text = f"no example of {listed(missing)}; add some, or leave out the class"
        yield Problem("warning", str(found.source), text)
    for doubt in (*class_doubts(found.classes), *folders_say_otherwise(found)):
        yield Problem("warning", str(found.source), doubt)
    if unseen := [name for name in everywhere if any(not each[name] for each in learned)]:
        never = all(not any(each[name] for each in learned) for name in unseen)
        folds = "" if never else f" in some of {counted(len(splits), 'fold')}"
        text = f"no training example of {listed(unseen)}{folds}; put some on the side train, or leave out the class"
        yield Problem("warning", split_name(found), text)
    if few := [f"{name} ({count})" for name, count in everywhere.items() if count < FEW_EXAMPLES]:
        text = f"fewer than {FEW_EXAMPLES} examples of {listed(few)}; add some, or join classes"
        yield Problem("warning", str(found.source), text)
    ranked = everywhere.most_common()
    if ranked and ranked[0][1] > IMBALANCE * ranked[-1][1]:
        (most, many), (least, rare) = ranked[0], ranked[-1]
        text = (
            f"{counted(many, 'example')} of {most}, but {rare} of {least}; weigh the classes, and look at each one's "
            "score"
        )
        yield Problem("warning", str(found.source), text)
