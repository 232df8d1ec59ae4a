"""Data of one's own from a function: squares and crosses, drawn here."""

import dataclasses

import digits
import numpy as np

import spacedkd_lib as skd


@skd.register_dataset
def shapes():
    """Return training and test pictures [N, 1, 8, 8], their labels and the names of the classes."""
    draw = np.random.default_rng(0)
    labels = np.arange(300) % 2
    pictures = draw.integers(0, 120, (300, 1, 8, 8))
    pictures[labels == 0, :, 2:6, 2:6] += 100
    pictures[labels == 1] += 100 * np.eye(8, dtype=int)
    return pictures[:200], labels[:200], pictures[200:], labels[200:], ("square", "diagonal")


RECIPE = dataclasses.replace(digits.RECIPE, dataset="shapes", train_images=0)

if __name__ == "__main__":
    print(skd.run(RECIPE).summary["test_accuracy"])
