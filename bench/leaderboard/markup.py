"""Trees of SVG and HTML. Every text becomes text: what a record says can never become markup."""

from __future__ import annotations

import re
from xml.etree.ElementTree import Element, tostring

FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML cannot hold."""


def element(tag: str, *children: Element | str | None, **attributes: object) -> Element:
    """An element. Children are elements or texts, None is left out, and so is an attribute that is None. Of an attribute's name
    an underscore becomes a hyphen, and one at its end is dropped (``class_``)."""
    made = Element(
        tag, {name.rstrip("_").replace("_", "-"): clean(str(value)) for name, value in attributes.items() if value is not None}
    )
    for child in children:
        if isinstance(child, Element):
            made.append(child)
        elif child is not None and len(made):
            made[-1].tail = (made[-1].tail or "") + clean(child)
        elif child is not None:
            made.text = (made.text or "") + clean(child)
    return made


def clean(text: str) -> str:
    """Text without characters that no page can hold."""
    return FORBIDDEN.sub("\ufffd", text)


def xml(tree: Element) -> str:
    """The tree as a file of SVG."""
    return tostring(tree, encoding="unicode") + "\n"


def html(tree: Element) -> str:
    """The tree as a page of HTML."""
    return "<!DOCTYPE html>\n" + tostring(tree, encoding="unicode", method="html") + "\n"
