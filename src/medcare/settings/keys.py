"""API keys, which are in environment variables: a setting or option names the variable, never the key."""

from __future__ import annotations

import os

from medcare.foundation.errors import ConfigError


def read_key(variable: str, named: str) -> str:
    """The key in a variable; empty where none is named.

    Args:
        variable: its name.
        named: the setting or option that names it.

    Raises:
        ConfigError: the variable is not set, or the key has characters that no header can carry.
    """
    if not variable:
        return ""
    key = os.environ.get(variable, "").strip()
    if not key:
        raise ConfigError(f"{named} names {variable}, which is not set or empty. Set it to the key.")
    if not all("!" <= letter <= "~" for letter in key):
        raise ConfigError(f"The key in {variable} may only have visible ASCII characters. Check its value.")
    return key
