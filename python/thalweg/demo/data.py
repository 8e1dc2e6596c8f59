"""The handwritten digits of scikit-learn as tensors: stratified split, labels re-drawn on the training part only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .. import _check
from .._extras import require

CLASSES = 10


@dataclass(frozen=True, eq=False)
class Split:
    """Train, validation and test images of one seed.

    Attributes:
        x_train: [n, 1, 8, 8] float32, standardised with the mean and deviation of the training images.
        y_train: [n] int64, the labels that training sees; some re-drawn when there is noise.
        x_val: [v, 1, 8, 8] validation images.
        y_val: [v] their true labels.
        x_test: [t, 1, 8, 8] test images.
        y_test: [t] their true labels.
        true_train: [n] labels before re-drawing.
        redrawn: [n] bool, which labels were re-drawn (about one in ten of these keeps its value by chance).
        rows: Row numbers in the data set of train, validation and test images; no row is in two of them.
    """

    x_train: Tensor
    y_train: Tensor
    x_val: Tensor
    y_val: Tensor
    x_test: Tensor
    y_test: Tensor
    true_train: Tensor
    redrawn: Tensor
    rows: tuple[Tensor, Tensor, Tensor]

    @property
    def train(self) -> tuple[Tensor, Tensor]:
        """Training images and labels."""
        return self.x_train, self.y_train

    @property
    def val(self) -> tuple[Tensor, Tensor]:
        """Validation images and labels."""
        return self.x_val, self.y_val

    @property
    def test(self) -> tuple[Tensor, Tensor]:
        """Test images and labels."""
        return self.x_test, self.y_test


def load(noise: float = 0.0, *, train_size: int = 600, val_size: int = 300, seed: int = 0) -> Split:
    """Return the split of `seed`; with the same seed it has the same images whatever the noise.

    Args:
        noise: Share of the training labels, in [0, 1], replaced by a class drawn uniformly from all ten.
        train_size: Training images, stratified by class.
        val_size: Validation images, stratified by class; all others are test images.
        seed: Chooses the images and the labels.

    Raises:
        ValueError: `noise` is outside [0, 1], or the sizes leave no test images.
        ImportError: scikit-learn is not installed.
    """
    noise = _check.real("demo", "noise", noise, 0.0, 1.0)
    digits = require("sklearn.datasets", "the demo").load_digits()
    split = require("sklearn.model_selection", "the demo").train_test_split
    images, labels = np.asarray(digits.images, dtype=np.float32), np.asarray(digits.target, dtype=np.int64)
    train, rest = split(np.arange(len(labels)), train_size=train_size, stratify=labels, random_state=seed)
    val, test = split(rest, train_size=val_size, stratify=labels[rest], random_state=seed)
    images = (images - images[train].mean()) / images[train].std()

    rng = np.random.default_rng([seed, 1])
    redrawn = np.zeros(len(train), dtype=bool)
    redrawn[rng.permutation(len(train))[: round(noise * len(train))]] = True
    noisy = np.where(redrawn, rng.integers(0, CLASSES, len(train)), labels[train])

    def tensors(rows: np.ndarray[tuple[int], np.dtype[np.int64]]) -> tuple[Tensor, Tensor]:
        return torch.from_numpy(images[rows]).unsqueeze(1), torch.from_numpy(labels[rows])

    (x_train, true_train), (x_val, y_val), (x_test, y_test) = tensors(train), tensors(val), tensors(test)
    return Split(
        x_train,
        torch.from_numpy(noisy),
        x_val,
        y_val,
        x_test,
        y_test,
        true_train,
        torch.from_numpy(redrawn),
        (torch.from_numpy(train), torch.from_numpy(val), torch.from_numpy(test)),
    )
