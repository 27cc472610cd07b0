"""JSON values of every kind, and JSON documents of which one part was replaced or is missing."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import strategies as st

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-300, 300)
    | st.just(10**400)
    | st.floats(allow_nan=True, allow_infinity=True)
    | st.text(max_size=4)
    | st.sampled_from(["\ud800", "12", "rgb", "mask"])
)
any_json = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3), max_leaves=6
)


def places(document: Any) -> list[tuple[Any, ...]]:
    """The path to every part of a document."""
    found: list[tuple[Any, ...]] = [()]
    inner = document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    for key, value in inner:
        found += [(key, *rest) for rest in places(value)]
    return found


@st.composite
def damaged(draw: st.DrawFn, document: Any) -> Any:
    """`document` with one part replaced by any JSON, or taken out."""
    path = draw(st.sampled_from(places(document)))
    if not path:
        return draw(any_json)
    result = copy.deepcopy(document)
    holder = result
    for key in path[:-1]:
        holder = holder[key]
    if draw(st.booleans()):
        del holder[path[-1]]
    else:
        holder[path[-1]] = draw(any_json)
    return result
