"""Pages from templates: one file of HTML each, that loads nothing from elsewhere."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any

from vpt.versions import version_of

if TYPE_CHECKING:
    from jinja2 import Environment


def render(template: str, **values: Any) -> str:
    """The page of a template in `vpt/report/templates/`; values are escaped, and one that is not given is an error."""
    return _templates().get_template(template).render(**values, version=version_of("vpt") or "unknown")


@cache
def _templates() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    templates = Environment(
        loader=PackageLoader("vpt.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    templates.filters |= {"sentence": sentence, "spaced": spaced}
    return templates


def sentence(words: str) -> str:
    """A note as one writes it in a page: a capital, and a full stop."""
    return f"{words[:1].upper()}{words[1:]}{'' if words.endswith(('.', '!', '?', ':')) else '.'}"


def spaced(words: object) -> str:
    """Per cent with the space before it that all pages have."""
    return re.sub(r"(?<=\d)%", "\N{NO-BREAK SPACE}%", str(words))
