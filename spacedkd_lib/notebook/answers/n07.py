"""Exercises of notebook 07, Robustness."""

from ..exercises import Exercise, agrees, number


def _fgsm(pixels, slopes, radius):
    return [min(max(x + radius * ((g > 0) - (g < 0)), 0.0), 1.0) for x, g in zip(pixels, slopes)]


EXERCISES = {
    "07.1": Exercise("compute", number(8 / 255),
                     ("no pixel is so near to 0 or 1 that it would be cut.",) * 3, 8),
    "07.2": Exercise("compute", number(100 * 50 / 80),
                     ("it is still right on 50.",) * 3, 50),
    "07.3": Exercise("compute", agrees([([0.2, 0.99, 0.0], [0.3, 2.0, -1.0], 0.1), ([0.5, 0.5], [-4.0, 0.0], 0.25)], _fgsm),
                     ("x + r sign(g), then no less than 0 and no more than 1; the sign of 0 is 0.",) * 3, lambda x, g, r: [a + r * (b > 0) for a, b in zip(x, g)]),
}
