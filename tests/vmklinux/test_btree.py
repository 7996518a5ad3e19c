"""B-trees: the image's own code, with its initcall run at boot. Independent sides: Debian's image, and Python's dict."""

from __future__ import annotations

import random

from vmkernel_core.memory import load, store
from vmklinux.linux import Linux
from vmklinux.loader import allocations

KEYS = 500


def test_a_tree_holds_what_a_dict_holds_and_gives_its_memory_back(linux: Linux, scratch: int) -> None:
    image = (linux.image.base, linux.image.base + linux.image.size)
    head, tree, before = linux.new("btree_head"), linux.symbols["btree_geo64"], allocations(linux, *image)
    chosen = random.Random(1)
    model: dict[int, int] = {}

    def call(name: str, *arguments: int) -> int:
        return linux.call(name, head, tree, scratch, *arguments)

    assert linux.call_int("btree_init", head) == 0
    for _ in range(4 * KEYS):
        key = chosen.randrange(1, KEYS)
        store(scratch, 8, key)
        if chosen.random() < 0.6:
            value = chosen.randrange(1, 1 << 48)
            done = call("btree_update", value) if key in model else call("btree_insert", value, 0)
            assert done & 0xFFFF_FFFF == 0
            model[key] = value
        else:
            assert call("btree_remove") == model.pop(key, 0)
    for key in range(1, KEYS):
        store(scratch, 8, key)
        assert call("btree_lookup") == model.get(key, 0)
    walked = []
    value = call("btree_last")
    while value:
        walked.append((load(scratch, 8), value))
        value = call("btree_get_prev")
    assert walked == sorted(model.items(), reverse=True)
    for key in model:
        store(scratch, 8, key)
        call("btree_remove")
    linux.call("btree_destroy", head)
    assert allocations(linux, *image) == before
    linux.free(head)
