"""SVG and HTML. Every text becomes text: what a record says can never become markup."""

import re
from functools import cache, lru_cache
from html import escape

FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that no page can hold."""
SPECIAL = re.compile(f"[&<>\"']|{FORBIDDEN.pattern}")
"""What a text must have to be changed at all: most have nothing of it."""
VOID = frozenset(("br", "input", "link", "meta"))


class Markup(str):
    """A text that is markup already."""


def element(tag: str, *children: str | None, **attributes: object) -> Markup:
    """An element. Children are markup or texts; None is left out, and so is an attribute that is None. Of an attribute's name an
    underscore becomes a hyphen, and one at its end is dropped (``class_``)."""
    written = "".join([f' {_attribute(name)}="{text(str(value))}"' for name, value in attributes.items() if value is not None])
    if tag in VOID:
        return Markup(f"<{tag}{written}/>")
    inner = "".join([child if isinstance(child, Markup) else text(child) for child in children if child is not None])
    return Markup(f"<{tag}{written}>{inner}</{tag}>")


@cache
def _attribute(name: str) -> str:
    return name.rstrip("_").replace("_", "-")


@lru_cache(1 << 16)  # a page says most of its texts more than once
def text(plain: str) -> str:
    """A text as markup that shows it."""
    return escape(FORBIDDEN.sub("\ufffd", plain)) if SPECIAL.search(plain) else plain
