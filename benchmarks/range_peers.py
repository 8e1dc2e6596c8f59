"""The learning-rate finders of other packages, run as installed: each does its own ramp, stop rule and suggestion."""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import logging
import tempfile
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from range_tasks import Task

MIN_LR, MAX_LR = 1e-7, 10.0
Suggestions = dict[str, Any]  # rule -> learning rate, or the text of the error


def lr_finder(task: Task, model: nn.Module, optimizer: torch.optim.Optimizer, batches: Any, steps: int) -> Suggestions:
    from torch_lr_finder import LRFinder

    finder = LRFinder(model, optimizer, task.loss)
    finder.range_test(batches, start_lr=MIN_LR, end_lr=MAX_LR, num_iter=steps)
    return {"pytorch-lr-finder": _suggested(lambda: _plotted(finder))}


def _plotted(finder: Any) -> float:
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots()
    try:
        return float(finder.plot(ax=ax)[1])  # the suggestion is only to be had from the plot
    finally:
        plt.close(figure)


def ignite(task: Task, model: nn.Module, optimizer: torch.optim.Optimizer, batches: Any, steps: int) -> Suggestions:
    from ignite.engine import Engine
    from ignite.handlers import FastaiLRFinder

    def update(engine: Any, batch: Any) -> float:
        model.train()
        optimizer.zero_grad()
        loss = task.loss(model(batch[0]), batch[1])
        loss.backward()
        optimizer.step()
        return loss.item()

    finder, trainer = FastaiLRFinder(), Engine(update)
    to_save = {"model": model, "optimizer": optimizer}
    with finder.attach(trainer, to_save, num_iter=steps, start_lr=MIN_LR, end_lr=MAX_LR) as engine:
        engine.run(batches)
    return {"ignite": _suggested(finder.lr_suggestion)}


def lightning(task: Task, model: nn.Module, optimizer: torch.optim.Optimizer, batches: Any, steps: int) -> Suggestions:
    import pytorch_lightning as pl
    from pytorch_lightning.tuner import Tuner

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.lr = model, 1e-3

        def training_step(self, batch: Any, index: int) -> torch.Tensor:
            return task.loss(self.net(batch[0]), batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return optimizer

    with tempfile.TemporaryDirectory() as folder:
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        trainer = pl.Trainer(accelerator="cpu", devices=1, default_root_dir=folder, max_epochs=1000, **quiet)
        finder = Tuner(trainer).lr_find(
            Module(), train_dataloaders=batches, min_lr=MIN_LR, max_lr=MAX_LR, num_training=steps, update_attr=False
        )
    return {"Lightning": _suggested(finder.suggestion)}


def fastai(task: Task, model: nn.Module, optimizer: torch.optim.Optimizer, batches: Any, steps: int) -> Suggestions:
    from fastai.callback.schedule import minimum, slide, steep, valley
    from fastai.data.core import DataLoaders
    from fastai.learner import Learner
    from fastai.optimizer import OptimWrapper

    rules = {"valley": valley, "slide": slide, "minimum/10": minimum, "steep": steep}
    with tempfile.TemporaryDirectory() as folder:
        learner = Learner(
            DataLoaders(batches, batches, device=torch.device("cpu")), model, loss_func=task.loss, path=folder,
            opt_func=lambda params, **_: OptimWrapper(opt=optimizer),
        )  # fmt: skip
        learner.create_opt()
        learner.lr_find(MIN_LR, MAX_LR, steps, show_plot=False, suggest_funcs=None)
        lrs = torch.tensor(learner.recorder.lrs[steps // 10 : -5])
        losses = torch.tensor([float(loss) for loss in learner.recorder.losses[steps // 10 : -5]])
        bad = torch.nonzero(torch.isnan(losses))  # as lr_find does before it asks the rules
        stop = int(bad.min()) if len(bad) else len(losses)
    return {
        f"fastai {name}": _suggested(lambda rule=rule: rule(lrs[:stop], losses[:stop], steps)[0])
        for name, rule in rules.items()
    }


PEERS: dict[str, tuple[str, Callable[..., Suggestions]]] = {
    "torch_lr_finder": ("torch-lr-finder", lr_finder),
    "ignite": ("pytorch-ignite", ignite),
    "pytorch_lightning": ("pytorch-lightning", lightning),
    "fastai": ("fastai", fastai),
}


def _suggested(rule: Callable[[], Any]) -> Any:
    try:
        value = rule()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "no suggestion" if value is None else float(value)


def versions() -> dict[str, str]:
    """Version of each peer that is here; the reason of those that are not."""
    found = {}
    for module, (package, _) in PEERS.items():
        try:
            with quiet():
                __import__(module)
            found[package] = importlib.metadata.version(package)
        except Exception as error:
            found[package] = f"not here ({type(error).__name__}: {error})"
    return found


@contextlib.contextmanager
def quiet() -> Any:
    """The peers print and warn a lot."""
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        yield


def suggest(module: str, *arguments: Any) -> Suggestions:
    """All rules of one package; an error of the run itself counts for each of them."""
    with quiet():
        try:
            return PEERS[module][1](*arguments)
        except Exception as error:
            return {"run": f"{type(error).__name__}: {error}"}
