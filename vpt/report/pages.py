"""Pages from templates: one file of HTML each, that loads nothing from elsewhere."""

from __future__ import annotations

from typing import Any


def render(template: str, **values: Any) -> str:
    """The page of a template in `vpt/report/templates/`; values are escaped, and one that is not given is an error."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    pages = Environment(
        loader=PackageLoader("vpt.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return pages.get_template(template).render(**values)
