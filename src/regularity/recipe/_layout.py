"""Python source in lines of at most 100 characters, broken as ruff and black break them."""

from collections.abc import Sequence
from dataclasses import dataclass

WIDTH = 100


@dataclass(frozen=True)
class Group:
    """What stands in brackets, item by item."""

    items: Sequence["Parts"]
    brackets: str = "()"


class Tuple(Group):
    """A group that is a tuple and no call's arguments."""


# A piece of source: texts, which are never broken, and groups, which are broken where they don't fit.
Parts = tuple[str | Group, ...]


def flat(parts: Parts) -> str:
    """A piece of source on one line."""
    return "".join(part if isinstance(part, str) else _flat_group(part) for part in parts)


def _flat_group(group: Group) -> str:
    inside = ", ".join(map(flat, group.items))
    if isinstance(group, Tuple) and len(group.items) == 1:
        inside += ","
    return group.brackets[0] + inside + group.brackets[1]


def laid_out(parts: Parts, indent: int = 0, after: str = "") -> str:
    """A piece of source whose groups are broken where they don't fit, with room for `after` behind it."""
    text = " " * indent
    for i, part in enumerate(parts):
        if isinstance(part, str):
            text += part
            continue
        # a bracket that follows may be broken itself, so only what comes before it has to fit
        rest = ""
        for following in parts[i + 1 :]:
            rest += following if isinstance(following, str) else following.brackets[0]
            if isinstance(following, Group):
                break
        else:
            rest += after
        line = text.rpartition("\n")[2]
        fits = len(line) + len(flat((part,))) + len(rest) <= WIDTH
        text += flat((part,)) if fits or not part.items else _broken(part, indent)
    return text


def _broken(group: Group, indent: int) -> str:
    is_call = group.brackets == "()" and not isinstance(group, Tuple)
    line = ", ".join(map(flat, group.items))
    if is_call and indent + 4 + len(line) <= WIDTH:
        inside = " " * (indent + 4) + line + "\n"
    else:
        comma = "" if is_call and len(group.items) == 1 else ","
        inside = "".join(laid_out(item, indent + 4, comma) + f"{comma}\n" for item in group.items)
    return f"{group.brackets[0]}\n{inside}{' ' * indent}{group.brackets[1]}"
