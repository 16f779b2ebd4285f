"""What this repository's own methods and controls declare of themselves (``pruning.metadata``), without importing them.

A record may come from anybody, so code that it names is never imported: what this repository does not know has the defaults.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

from bench import registry
from pruning.metadata import AnalysisInfo, ControlInfo, MethodInfo


@cache
def control_info(name: str) -> ControlInfo:
    """Return what a control declares."""
    return ControlInfo(**registry.declared("pruning.controls", name)) if name in registry.controls() else ControlInfo()


@cache
def method_info(name: str) -> MethodInfo:
    """Return what a method declares."""
    return MethodInfo(**registry.declared(*registry.METHODS[name].split(":"))) if name in registry.METHODS else MethodInfo()


@cache
def analysis_info(name: str) -> AnalysisInfo:
    """Return what an analysis declares."""
    known = registry.ANALYSES
    return AnalysisInfo(**registry.declared(*known[name].split(":"))) if name in known else AnalysisInfo()


def is_sequential(name: str, options: Mapping[str, Any]) -> bool:
    """Return whether a method's tickets depend on the densities that were requested before theirs."""
    return method_info(name).is_sequential(options)


@cache
def default_options(name: str) -> dict[str, Any]:
    """Return a method's options at their defaults."""
    return registry.written_options(name) if name in registry.METHODS else {}
