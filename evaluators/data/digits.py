"""Digit scenes: the built-in data set, real handwritten digits on synthetic backgrounds.

scikit-learn contains 1797 handwritten digits of 8 x 8 pixels (E. Alpaydin, C. Kaynak, 1998, UCI "Optical Recognition of
Handwritten Digits"). A scene shows 2 to 6 of them, 32 to 96 pixels high in 192, on noise, gradients and stripes, among strokes,
blobs and pieces of digits that are not labelled. Nothing is downloaded. A small detector learns the scenes in minutes, but not
perfectly, so they can tell architectures apart. Each digit appears in the scenes of one split only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from evaluators.data.records import DetectionData, Record

NAMES = tuple("0123456789")

_HEIGHTS = (32 / 192, 96 / 192)  # least and most height of a digit's ink, as shares of the scene's size
_DIGITS = (2, 6)  # least and most digits in a scene
_OVERLAP = 0.25  # the largest share of the smaller of two boxes that may lie in the larger
_UPSAMPLED = 8  # pixels along each side of one of the 8 x 8 pixels of a digit, after sharpening
_INK = 0.5  # a pixel above this opacity is ink, which the box encloses

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Content:
    """What a scene shows.

    heights: least and most height of a digit's ink, as shares of the scene's size. digits: least and most of them. clutter:
    least and most strokes, blobs and pieces of digits behind them.
    """

    heights: tuple[float, float] = _HEIGHTS
    digits: tuple[int, int] = _DIGITS
    clutter: tuple[int, int] = (0, 3)


def digit_scenes(
    train: int = 480, val: int = 120, test: int = 120, size: int = 192, seed: int = 0, content: Content = Content()
) -> DetectionData:
    """`train`, `val` and `test` scenes of `size` x `size` pixels, with the boxes of their digits.

    The same arguments give the same scenes. A split of no scenes is left out.
    """
    from sklearn.datasets import load_digits  # late: the import takes a second

    digits = load_digits()
    order = np.random.default_rng(seed).permutation(len(digits.target))
    parts = dict(zip(("train", "val", "test"), np.split(order, [len(order) * 3 // 5, len(order) * 4 // 5]), strict=True))
    splits: dict[str, tuple[Record, ...]] = {}
    first_id = 1
    for number, (split, count) in enumerate({"train": train, "val": val, "test": test}.items()):
        glyphs = [_sharpened(image) for image in digits.images[parts[split]]]
        labels = digits.target[parts[split]].astype(np.int64)
        rngs = [np.random.default_rng([seed, number, i]) for i in range(count)]  # a scene does not depend on the others
        splits[split] = tuple(_scene(first_id + i, glyphs, labels, size, rng, content) for i, rng in enumerate(rngs))
        first_id += count
    return DetectionData("digits", NAMES, {k: v for k, v in splits.items() if v}, tuple(range(10)), may_flip=False)


def _sharpened(image: NDArray[np.float64]) -> Array:
    """(8, 8) in 0..16 -> opacity in [0, 1] at _UPSAMPLED times the size, with edges about one original pixel wide."""
    side = (image.shape[0] + 2) * _UPSAMPLED  # a rim of one pixel, so that no ink touches the border
    smooth = cv2.resize(np.pad(image / 16, 1).astype(np.float32), (side, side), interpolation=cv2.INTER_CUBIC)
    opacity: Array = np.clip((smooth - 0.4) / 0.3, 0, 1)
    return opacity


def _scene(
    image_id: int, glyphs: list[Array], labels: NDArray[np.int64], size: int, rng: np.random.Generator, content: Content
) -> Record:
    canvas = _background(size, rng)
    for _ in range(rng.integers(content.clutter[0], content.clutter[1] + 1)):
        _draw_clutter(canvas, glyphs, content.heights, rng)
    boxes: list[list[float]] = []
    classes: list[int] = []
    wanted = int(rng.integers(content.digits[0], content.digits[1] + 1))
    # Where a digit would overlap others too much, another digit is tried at another place and scale; two always fit.
    for _ in range(40 * wanted):
        if len(boxes) == wanted:
            break
        which = int(rng.integers(len(glyphs)))
        patch = _turned(glyphs[which], size * _log_uniform(*content.heights, rng), rng)
        height, width = patch.shape
        left, top = int(rng.integers(0, size - width + 1)), int(rng.integers(0, size - height + 1))
        box = _ink_box(patch, left, top)
        if any(_overlap(box, other) > _OVERLAP for other in boxes):
            continue
        _blend(canvas, patch * rng.uniform(0.75, 1), left, top, _contrasting(canvas, left, top, patch.shape, rng))
        boxes.append(box)
        classes.append(int(labels[which]))
    if rng.random() < 0.5:
        _draw_stroke(canvas, rng, thickness=1)  # in front of the digits
    return Record(
        image_id=image_id,
        width=size,
        height=size,
        boxes=np.array(boxes, dtype=np.float32).reshape(-1, 4),
        classes=np.array(classes, dtype=np.int64),
        pixels=_developed(canvas, rng),
    )


def _log_uniform(low: float, high: float, rng: np.random.Generator) -> float:
    return math.exp(rng.uniform(math.log(low), math.log(high)))


def _turned(glyph: Array, height: float, rng: np.random.Generator) -> Array:
    """The digit's opacity, rotated and slanted a little, with ink about `height` pixels high, cropped to what is visible."""
    ys = np.flatnonzero(glyph.max(axis=1) > _INK)
    scale = height / (ys[-1] - ys[0] + 1)
    angle, slant, stretch = math.radians(rng.uniform(-12, 12)), rng.uniform(-0.15, 0.15), rng.uniform(0.85, 1.2)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    matrix = scale * turn @ np.array([[stretch, slant], [0, 1]])
    middle = glyph.shape[0] / 2
    side = math.ceil(glyph.shape[0] * scale * 1.6)
    shift = side / 2 - matrix @ np.array([middle, middle])
    # A warp that shrinks skips pixels, so the digit is blurred first.
    source = glyph if scale >= 1 else cv2.GaussianBlur(glyph, (0, 0), 0.4 / scale)
    turned = cv2.warpAffine(source, np.column_stack([matrix, shift]), (side, side), flags=cv2.INTER_LINEAR)
    rows, columns = np.flatnonzero(turned.max(axis=1) > 0.05), np.flatnonzero(turned.max(axis=0) > 0.05)
    cropped: Array = turned[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    opaque: Array = cropped / cropped.max()  # thin strokes lose opacity when they shrink
    return opaque


def _ink_box(patch: Array, left: int, top: int) -> list[float]:
    """xyxy of the box around the ink of a patch whose top left corner lies at (left, top)."""
    rows, columns = np.flatnonzero(patch.max(axis=1) > _INK), np.flatnonzero(patch.max(axis=0) > _INK)
    return [float(v) for v in (left + columns[0], top + rows[0], left + columns[-1] + 1, top + rows[-1] + 1)]


def _overlap(a: list[float], b: list[float]) -> float:
    """The intersection of two boxes as a share of the smaller one."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    smaller = min((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return max(width, 0) * max(height, 0) / smaller


def _contrasting(canvas: Array, left: int, top: int, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """A colour that is lighter or darker than the canvas at that place by 0.4 to 0.75 of the full scale."""
    place = canvas[top : top + shape[0] : 2, left : left + shape[1] : 2].mean(axis=(0, 1))
    level = min(max(float(place.mean()), 0.0), 1.0)
    lighter = level < 0.3 or (level < 0.7 and rng.random() < 0.5)  # at random where both fit
    contrast = rng.uniform(0.4, 0.75)
    colour: Array = (level + (contrast if lighter else -contrast) + rng.normal(0, 0.06, 3)).astype(np.float32)
    return np.clip(colour, 0, 1)


def _blend(canvas: Array, opacity: Array, left: int, top: int, colour: Array) -> None:
    view = canvas[top : top + opacity.shape[0], left : left + opacity.shape[1]]
    view += opacity[: view.shape[0], : view.shape[1], None] * (colour - view)


def _background(size: int, rng: np.random.Generator) -> Array:
    """Grey texture (smooth noise at several octaves, a gradient, sometimes stripes) over a coarse tint.

    (size, size, 3), mostly in [0, 1].
    """
    tint = rng.normal(0, 0.08, 3) + rng.normal(0, 0.06, (3, 3, 3))
    canvas = cv2.resize(tint.astype(np.float32), (size, size), interpolation=cv2.INTER_CUBIC)
    along = np.linspace(-1, 1, size, dtype=np.float32)
    angle = rng.uniform(0, 2 * math.pi)
    ramp = np.float32(math.cos(angle)) * along[None, :] + np.float32(math.sin(angle)) * along[:, None]
    texture = np.float32(rng.uniform(0.2, 0.8)) + np.float32(rng.uniform(0, 0.2)) * ramp
    for cells in (3, 6, 12, 24, 48):
        noise = rng.normal(0, rng.uniform(0, 0.25) / math.sqrt(cells), (cells, cells)).astype(np.float32)
        texture += cv2.resize(noise, (size, size), interpolation=cv2.INTER_CUBIC)
    if rng.random() < 0.4:
        waves = ramp * np.float32(rng.uniform(15, 60)) + np.float32(rng.uniform(0, 6))
        texture += np.sin(waves) * np.float32(rng.uniform(0.03, 0.1))
    shaded: Array = canvas + texture[..., None]
    return shaded


def _draw_clutter(canvas: Array, glyphs: list[Array], heights: tuple[float, float], rng: np.random.Generator) -> None:
    kind = rng.integers(3)
    if kind == 0:
        _draw_stroke(canvas, rng, thickness=int(rng.integers(1, 5)))
    elif kind == 1:
        _draw_blob(canvas, rng)
    else:
        _draw_piece(canvas, glyphs[int(rng.integers(len(glyphs)))], heights, rng)


def _draw_stroke(canvas: Array, rng: np.random.Generator, thickness: int) -> None:
    """A bent line through three random points."""
    a, b, c = rng.uniform(0, canvas.shape[0], (3, 2))
    t = np.linspace(0, 1, 12)[:, None]
    points = ((1 - t) ** 2 * a + 2 * t * (1 - t) * b + t**2 * c).round().astype(np.int32)
    cv2.polylines(canvas, [points], False, rng.uniform(0.1, 0.9, 3).tolist(), thickness, cv2.LINE_AA)


def _draw_blob(canvas: Array, rng: np.random.Generator) -> None:
    size = canvas.shape[0]
    axes = tuple(int(size * _log_uniform(0.02, 0.15, rng)) + 1 for _ in range(2))
    place = tuple(rng.integers(0, size, 2).tolist())
    colour = rng.uniform(0.1, 0.9, 3).tolist()
    thickness = -1 if rng.random() < 0.6 else int(rng.integers(1, 4))  # filled, or a ring
    cv2.ellipse(canvas, place, axes, rng.uniform(0, 180), 0, 360, colour, thickness, cv2.LINE_AA)


def _draw_piece(canvas: Array, glyph: Array, heights: tuple[float, float], rng: np.random.Generator) -> None:
    """Less than half of a digit, without a label: a detector must learn to ignore it."""
    size = canvas.shape[0]
    patch = _turned(glyph, size * _log_uniform(*heights, rng), rng)
    height, width = patch.shape
    piece = patch[: max(2, height * 2 // 5)] if rng.random() < 0.5 else patch[:, : max(2, width * 2 // 5)]
    piece = piece[::-1, ::-1] if rng.random() < 0.5 else piece
    left, top = int(rng.integers(0, size - piece.shape[1])), int(rng.integers(0, size - piece.shape[0]))
    _blend(canvas, np.ascontiguousarray(piece), left, top, _contrasting(canvas, left, top, piece.shape, rng))


def _developed(canvas: Array, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Blur, noise, and bytes."""
    if rng.random() < 0.5:
        canvas = cv2.GaussianBlur(canvas, (0, 0), rng.uniform(0.3, 0.9))
    noise = rng.standard_normal(canvas.shape, dtype=np.float32)
    noise *= np.float32(255 * rng.uniform(0.005, 0.04))
    noise += np.float32(255) * canvas
    developed: NDArray[np.uint8] = np.clip(noise, 0, 255, out=noise).astype(np.uint8)
    return developed
