"""Text that every encoder, terminal and parser takes, whatever was in a file."""

from __future__ import annotations

import json
import re

_SURROGATE = re.compile("[\ud800-\udfff]")
# In JSON text: an escaped backslash, a pair of surrogates, or (as group 1) a surrogate that stands alone.
_ESCAPED_SURROGATE = re.compile(r"\\\\|\\ud[89ab][0-9a-f]{2}\\ud[c-f][0-9a-f]{2}|(\\ud[89a-f][0-9a-f]{2})")


def valid_text(text: str) -> str:
    """Returns text that every encoder takes: what is no character becomes U+FFFD."""
    return _SURROGATE.sub("\ufffd", text)


def valid_json(value: object) -> str:
    """Returns JSON in one line of ASCII, in which what is no character became U+FFFD."""
    text = json.dumps(value, allow_nan=False)
    # On the text rather than the value: no recursion of ours, whatever the depth.
    return _ESCAPED_SURROGATE.sub(lambda match: r"\ufffd" if match[1] else match[0], text) if r"\ud" in text else text
