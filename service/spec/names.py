"""Which characters a name may have that a user gives to a job, an experiment, a variant or a folder.

Those that print (`str.isprintable`): letters, digits, marks, punctuation and symbols of any script, and the space. Not
the others: control characters, line ends, what changes the direction of a text, and what no character is assigned to.
What was named before this rule is shown with U+FFFD in their place.
"""

import unicodedata


def printable(text: str, keep: str = "") -> str:
    """`text` with U+FFFD in place of every character that does not print; those of `keep` stay."""
    return "".join(c if c.isprintable() or c in keep else "\N{REPLACEMENT CHARACTER}" for c in text)


def wrong_with_name(name: str) -> str | None:
    """Why this cannot be a name, with a remedy; None where it can."""
    for character in name:
        if not character.isprintable():
            called = unicodedata.name(character, "a control character" if ord(character) < 160 else "unnamed")
            return f"has the character U+{ord(character):04X} ({called}), which does not print; leave it out"
    return None


def printing(name: str) -> str:
    """The name itself, as a validator of a field. Raises ValueError where it cannot be a name."""
    if (wrong := wrong_with_name(name)) is not None:
        raise ValueError(wrong)
    return name
