"""The eight classes of the generated road scenes."""

from __future__ import annotations

from dlv3deploy.core.classes import Classes

SKY, BUILDING, TREE, ROAD, MARKING, PAVEMENT, CAR, PERSON = range(8)

ROAD_SCENE = Classes(
    names=("sky", "building", "tree", "road", "marking", "pavement", "car", "person"),
    palette=(
        (120, 183, 232),
        (176, 118, 79),
        (78, 154, 71),
        (87, 83, 107),
        (244, 241, 222),
        (217, 165, 179),
        (42, 79, 184),
        (242, 69, 46),
    ),
    ignore_index=255,
)
