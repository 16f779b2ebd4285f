"""What this repository's own methods and controls declare of themselves (``pruning.metadata``).

A record may come from anybody, so code that it names is never imported: what this repository does not know has the defaults.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench import registry
from pruning import CONTROLS
from pruning.metadata import AnalysisInfo, ControlInfo, MethodInfo, info_of


def control_info(name: str) -> ControlInfo:
    """Return what a control declares."""
    return info_of(CONTROLS[name], ControlInfo) if name in CONTROLS else ControlInfo()


def method_info(name: str) -> MethodInfo:
    """Return what a method declares."""
    return info_of(registry.method(name), MethodInfo) if name in registry.METHODS else MethodInfo()


def analysis_info(name: str) -> AnalysisInfo:
    """Return what an analysis declares."""
    return info_of(registry.analysis(name), AnalysisInfo) if name in registry.ANALYSES else AnalysisInfo()


def is_sequential(name: str, options: Mapping[str, Any]) -> bool:
    """Return whether a method's tickets depend on the densities that were requested before theirs."""
    return name in registry.METHODS and registry.sequential(registry.method(name), options)


def default_options(name: str) -> dict[str, Any]:
    """Return a method's options at their defaults."""
    return registry.options(registry.method(name)) if name in registry.METHODS else {}
