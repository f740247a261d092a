"""Words for a log or a screen in which no password is shown."""

import re


def masked(text: str) -> str:
    """A text in which no URI shows a name, password or token: "postgresql://***@host/runs".

    For everything that is printed or logged. What stands between // and the last @ is hidden, as a
    password may hold any character, and so is the value of a query such as password=.
    """
    text = re.sub(r"(?<=://)[^/\s]\S*@", "***@", text)
    return re.sub(
        r"(?i)([?&;][^=&;\s]*(?:pass|pwd|secret|token|key)[^=&;\s]*=)[^&;\s]*", r"\1***", text
    )


def one_line(error: object) -> str:
    """What an error says, for a log."""
    return masked(" ".join(str(error).split()))[:200]
