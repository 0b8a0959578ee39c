"""Cityscapes' measure of instances in plain loops over pixels, classes and overlaps.

`labels` are its label images: 1000 times the class and a number for an object, below 1000 a class
or a group. Predictions are (class, score, mask).
"""

import numpy as np

VOID = {0, 1, 2, 3, 4, 5, 6, 9, 10, 14, 15, 16, 18, 29, 30}


def shares(mask, labels, number):
    """Pixels of a label image that are `number` and in `mask`."""
    return int(((labels == number) & mask).sum())


def verdicts(labels, predictions, label, overlap):
    """Scores of right and of wrong predictions of one class in one image, and objects missed."""
    numbers = [n for n in np.unique(labels).tolist() if n == label or n // 1000 == label]
    sizes = {n: int((labels == n).sum()) for n in numbers}
    void = np.isin(labels, sorted(VOID))
    mine = [(s, m) for c, s, m in predictions if c == label and m.any()]

    def reached(mask, number):
        both = shares(mask, labels, number)
        return both / (sizes[number] + int(mask.sum()) - both)

    right, wrong, missed = [], [], 0
    must = [n for n in numbers if n >= 1000 and sizes[n] >= 100]
    for number in must:
        scores = [score for score, mask in mine if reached(mask, number) > overlap]
        if not scores:
            missed += 1
            continue
        best = max(scores)
        scores.remove(best)
        right.append(best)
        wrong += scores
    for score, mask in mine:
        if any(reached(mask, number) > overlap for number in numbers):
            continue
        excused = int((void & mask).sum())
        for number in numbers:
            excused += shares(mask, labels, number) * (number < 1000)
            excused += shares(mask, labels, number) * (sizes[number] < 100)
        if excused / int(mask.sum()) <= overlap:
            wrong.append(score)
    return right, wrong, missed, len(must), len(mine)


def average_precision(images, label, overlap):
    """Of a class over images of (labels, predictions); None without an object to be found."""
    right, wrong, missed, wanted, any_predictions = [], [], 0, 0, 0
    for labels, predictions in images:
        found = verdicts(labels, predictions, label, overlap)
        right += found[0]
        wrong += found[1]
        missed += found[2]
        wanted += found[3]
        any_predictions += found[4]
    if not wanted:
        return None
    if not any_predictions or not right + wrong:
        return 0.0
    points = []  # recall and precision from the lowest score on
    for level in sorted(set(right + wrong)):
        true = sum(score >= level for score in right)
        false = sum(score >= level for score in wrong)
        points.append((true / (len(right) + missed), true / (true + false)))
    points.append((0.0, 1.0))
    area = 0.0
    for i, (_, precision) in enumerate(points):
        before = points[max(i - 1, 0)][0]
        after = points[i + 1][0] if i + 1 < len(points) else 0.0
        area += precision * (before - after) / 2
    return area


def cityscapes_numbers(images, classes):
    """AP and AP50 in percent."""
    overlaps = [0.5 + 0.05 * step for step in range(10)]
    table = [[average_precision(images, label, o) for o in overlaps] for label in classes]
    known = [row for row in table if row[0] is not None]
    return {
        "AP": 100 * float(np.mean(known)),
        "AP50": 100 * float(np.mean([row[0] for row in known])),
    }
