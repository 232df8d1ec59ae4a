"""A rule of one's own for the lengths of blocks: they shrink as the teacher learns less in each."""

import digits

import spacedkd_lib as skd


@skd.register_rule
def shrinking(length, total, seed):
    """Yield twice the fixed length first, then ever less, at least one batch."""
    block = 2 * length
    while True:
        yield max(block, 1)
        block = block * 3 // 4


RECIPE = skd.spaced(digits.RECIPE, interval=1.0, rule="shrinking")

if __name__ == "__main__":
    print(skd.counts(skd.recipe_schedule(RECIPE, batches_per_epoch=10)))
    print(skd.run(RECIPE).summary["test_accuracy"])
