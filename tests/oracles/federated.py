"""LVIS' measure in plain loops, one class, size and overlap after the other.

Objects and detections are dicts: image, label, score (of detections), area, and mask (bool H x W)
or box (x0, y0, x1, y1).
"""

import math


def overlap(first, second):
    """Intersection over union of two masks or two boxes."""
    if "mask" in first:
        both = int((first["mask"] & second["mask"]).sum())
        return both / int((first["mask"] | second["mask"]).sum())
    a, b = first["box"], second["box"]
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    both = width * height
    whole = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both
    return both / whole


def looked_at(truths, found, images, absent, most=300):
    """Of each image the best `most`, of classes that are labelled in it or known to be absent."""
    kept = []
    for image in images:
        mine = sorted((d for d in found if d["image"] == image), key=lambda d: -d["score"])
        present = {t["label"] for t in truths if t["image"] == image}
        kept += [d for d in mine[:most] if d["label"] in present | absent[image]]
    return kept


def judged(truths, found, images, incomplete, label, threshold, size):
    """[(score, right or wrong or None)] of a class, and the number of objects to be found."""
    low, high = size
    rows, wanted = [], 0
    for image in images:
        mine = [t for t in truths if (t["image"], t["label"]) == (image, label)]
        inside = [low <= t["area"] <= high for t in mine]
        wanted += sum(inside)
        taken = [False] * len(mine)
        own = [d for d in found if (d["image"], d["label"]) == (image, label)]
        for detection in sorted(own, key=lambda d: -d["score"]):
            best = None
            for counts in (True, False):  # objects that count come first
                for i, truth in enumerate(mine):
                    reached = overlap(detection, truth)
                    if taken[i] or inside[i] != counts or reached < min(threshold, 1 - 1e-10):
                        continue
                    if best is None or reached >= overlap(detection, mine[best]):
                        best = i
                if best is not None:
                    break
            if best is not None:
                taken[best] = True
                verdict = True if inside[best] else None
            else:
                unsure = label in incomplete[image] or not low <= detection["area"] <= high
                verdict = None if unsure else False
            rows.append((detection["score"], verdict))
    return rows, wanted


def average_precision(rows, wanted):
    """The mean over recall 0, 0.01 ... 1 of the best precision at that recall or more."""
    if not wanted:
        return None
    right = wrong = 0
    points = []
    for _, verdict in sorted(rows, key=lambda row: -row[0]):
        right += verdict is True
        wrong += verdict is False
        precision = right / (right + wrong) if right + wrong else 0.0
        points.append((right / wanted, precision))
    total = 0.0
    for step in range(101):
        total += max((p for recall, p in points if recall >= step / 100 - 1e-12), default=0.0)
    return total / 101


SIZES = {"": (0, 1e10), "_small": (0, 1024), "_medium": (1024, 9216), "_large": (9216, 1e10)}


def lvis_numbers(truths, found, images, *, absent, incomplete, frequency, most=300):
    """AP, AP50, AP75, AP_small ... APr, APc, APf in percent; None where there is no object."""
    found = looked_at(truths, found, images, absent, most)
    table = {}
    for label in range(len(frequency)):
        for name, size in SIZES.items():
            for percent in range(50, 100, 5):
                rows, wanted = judged(truths, found, images, incomplete, label, percent / 100, size)
                table[label, name, percent] = average_precision(rows, wanted)

    def mean(chosen):
        values = [100 * v for key, v in table.items() if v is not None and chosen(*key)]
        return math.fsum(values) / len(values) if values else None

    numbers = {f"AP{size}": mean(lambda _, s, __, size=size: s == size) for size in SIZES}
    for at in (50, 75):
        numbers[f"AP{at}"] = mean(lambda _, s, p, at=at: s == "" and p == at)
    for f in "rcf":
        numbers[f"AP{f}"] = mean(lambda label, s, _, f=f: s == "" and frequency[label] == f)
    return {name: value for name, value in numbers.items() if value is not None}
