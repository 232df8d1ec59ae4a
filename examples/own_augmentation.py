"""An augmentation of one's own: a square of each picture is erased, for teacher and student the same."""

import dataclasses

import digits
import torch

import spacedkd_lib as skd


@skd.register_augmentation
def erase_a_square(images, generator):
    """Set a square of a quarter of the side to black."""
    count, _, height, width = images.shape
    side = width // 4
    row, column = (torch.randint(0, size - side + 1, (count, 1, 1, 1), generator=generator).to(images.device)
                   for size in (height, width))
    rows = torch.arange(height, device=images.device)[:, None] - row
    columns = torch.arange(width, device=images.device) - column
    return images.masked_fill((rows >= 0) & (rows < side) & (columns >= 0) & (columns < side), 0)


RECIPE = dataclasses.replace(digits.RECIPE, augment="erase_a_square")

if __name__ == "__main__":
    print(skd.run(RECIPE).summary["test_accuracy"])
