"""The street's contents: fixed by seed and block, never in each other's way, moving without jumps."""

from itertools import pairwise

from dlv3deploy.scenes.drive import Drive
from dlv3deploy.scenes.street import BLOCK_M, Block, block_of
from dlv3deploy.scenes.traffic import BEHIND_M, ONCOMING_LOOP_M

WORLDS = [Drive(seed, 48, 80).world for seed in range(10)]


def _blocks(count: int = 6) -> list[tuple[int, Block]]:
    return [(i, block_of(w.seed, n, w.road, w.facades, w.parked)) for i, w in enumerate(WORLDS) for n in range(count)]


def test_a_block_does_not_depend_on_what_was_made_before() -> None:
    world = WORLDS[0]
    arguments = (world.road, world.facades, world.parked)
    alone = block_of(world.seed, 7, *arguments)
    block_of(world.seed, 6, *arguments)
    assert block_of(world.seed, 7, *arguments) == alone


def test_houses_and_hedges_stand_side_by_side_within_their_block() -> None:
    for _, block in _blocks():
        for side in (-1.0, 1.0):
            row = sorted((each.start, each.end) for each in (*block.houses, *block.hedges) if each.side == side)
            assert all(this[1] <= after[0] for this, after in pairwise(row))
            assert row[-1][1] - row[0][0] <= BLOCK_M


def test_zebra_crossings_are_kept_free_of_parked_cars_and_trees() -> None:
    for i, block in _blocks():
        for thing in (*block.cars, *(tree for tree in block.trees if abs(tree.offset) < WORLDS[i].road.front_m)):
            assert abs(float(WORLDS[i].road.from_crossing(thing.z))) > 3.2


def test_the_camera_never_turns_back() -> None:
    for world in WORLDS:
        places = [world.traffic.travelled(i / 10) for i in range(600)]
        assert all(after > before for before, after in pairwise(places))


def test_cars_and_people_move_smoothly_until_they_are_passed() -> None:
    for world in WORLDS:
        for now in (1.0, 5.0, 20.0):
            here = world.traffic.travelled(now)
            for things in (world.traffic.cars, lambda t, r, w=world: w.traffic.people(t, r)[: w.traffic.walkers]):
                for before, after in zip(things(now, world.road), things(now + 0.02, world.road), strict=True):
                    if before.z - here > BEHIND_M - 1 and before.z - here < ONCOMING_LOOP_M / 3:
                        assert abs(after.z - before.z) < 0.5 and abs(after.offset - before.offset) < 0.1


def test_people_have_crossed_before_the_camera_is_there() -> None:
    for world in WORLDS:
        for i in range(40):
            here = world.traffic.travelled(i / 4)
            for person in world.traffic.people(i / 4, world.road):
                if person.crossing != 0 and person.z - here < 9.5:
                    assert abs(person.offset) > world.road.half_m - 0.5
