"""All batches through a model side by side, layer by layer: each waits at every BatchNorm layer for the others.

Any model can be stopped in the middle of its forward pass where it calls a layer, as long as it runs in a thread of its
own. One thread runs at a time, in the order of the batches, so this is not about speed-up by threads: each batch goes
through the model once, instead of once per layer. Knows no points, no statistics, no metrics.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Generic, TypeVar

from torch import Tensor, nn

Key = TypeVar("Key", bound=nn.Module)


class Stopped(BaseException):
    """Ends a forward pass from inside. No `except Exception` stops it."""


class _Thread(threading.Thread):
    """One batch on its way; it runs from `go` until `paused`."""

    def __init__(self, forward: Callable[[], object], surroundings: Callable[[], AbstractContextManager[Any]]) -> None:
        super().__init__(daemon=True)
        self._forward, self._surroundings = forward, surroundings
        self._mine, self._others = threading.Semaphore(0), threading.Semaphore(0)
        self.layer: nn.Module | None = None  # where it waits; None: not there yet, or at the end
        self.called: set[nn.Module] = set()
        self.error: BaseException | None = None
        self.ended = False
        self._stopping = False

    def run(self) -> None:
        self._mine.acquire()
        try:
            if not self._stopping:
                with self._surroundings():
                    self._forward()
        except Stopped:
            pass
        except BaseException as error:  # raised again by the main thread
            self.error = error
        finally:
            self.layer, self.ended = None, True
            self._others.release()

    def pause(self, layer: nn.Module) -> None:
        """Wait at a layer; called from inside."""
        self.layer = layer
        self._others.release()
        self._mine.acquire()
        if self._stopping:
            raise Stopped

    def go(self) -> None:
        """Let it run to the next layer or to the end; called by the main thread."""
        self._mine.release()
        self._others.acquire()

    def stop(self) -> None:
        """End it wherever it waits."""
        self._stopping = True
        self._mine.release()
        self.join()


class Sweep(Generic[Key]):
    """One forward pass of every batch, all at one layer at a time.

    Args:
        layers: Where the batches wait for each other.
        arrived: Called with the layer, its input, and whether the batch has called the layer before.
        complete: Called with the layers at which batches wait, once all do.
        surroundings: What each thread enters: gradients off, device, stream.
    """

    def __init__(
        self,
        layers: Sequence[Key],
        arrived: Callable[[Key, Tensor, bool], None],
        complete: Callable[[Sequence[Key]], None],
        surroundings: Callable[[], AbstractContextManager[Any]],
    ) -> None:
        self._layers, self._arrived, self._complete = layers, arrived, complete
        self._surroundings = surroundings

    def run(self, forwards: Sequence[Callable[[], object]]) -> None:
        """Run them; raises what one of them raises, after all threads have ended."""
        threads = [_Thread(forward, self._surroundings) for forward in forwards]
        with self._hooks():
            try:
                for thread in threads:
                    thread.start()
                while left := [thread for thread in threads if not thread.ended]:
                    for thread in left:
                        thread.go()
                        if thread.error is not None:
                            raise thread.error
                    waiting = list(dict.fromkeys(t.layer for t in left if t.layer is not None))
                    if waiting:
                        self._complete(waiting)  # type: ignore[arg-type]  # only layers of ours are waited at
            finally:
                for thread in threads:
                    if thread.ident is not None:
                        thread.stop()

    @contextmanager
    def _hooks(self) -> Iterator[None]:
        handles = [layer.register_forward_pre_hook(self._hook, with_kwargs=True) for layer in self._layers]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _hook(self, layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        thread = threading.current_thread()
        if isinstance(thread, _Thread):
            again = layer in thread.called
            thread.called.add(layer)
            self._arrived(layer, args[0] if args else kwargs["input"], again)
            thread.pause(layer)
