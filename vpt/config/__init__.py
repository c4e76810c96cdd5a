"""Every setting of a run: frozen models, YAML in and out. A method's own stand beside it, see `vpt.sections`."""

from vpt.config.before import as_written
from vpt.config.files import (
    as_config,
    build_config,
    dump_config,
    load_config,
    load_written,
    parse_labels,
    parse_override,
    parse_prompts,
    unknown_keys,
)
from vpt.config.run import HEAD_RATES, Config, ResolvedConfig

__all__ = [
    "HEAD_RATES",
    "Config",
    "ResolvedConfig",
    "as_config",
    "as_written",
    "build_config",
    "dump_config",
    "load_config",
    "load_written",
    "parse_labels",
    "parse_override",
    "parse_prompts",
    "unknown_keys",
]
