"""A Lightning module's own training step, without the trainer, so that both sides do only that."""

from __future__ import annotations

from typing import Any


def without_trainer(kind: Any) -> Any:
    """Return a class like `kind` whose `training_step` can be called as it is.

    Its `global_step` is an attribute; `all_optimizers` are what `optimizers` returns; what is
    logged is forgotten.
    """

    class Bare(kind):
        global_step = 0
        all_optimizers: Any = ()

        def optimizers(self) -> Any:
            return self.all_optimizers

        def manual_backward(self, loss: Any) -> None:
            loss.backward()

        def log(self, *_: Any, **__: Any) -> None:
            pass

        def log_dict(self, *_: Any, **__: Any) -> None:
            pass

    return Bare
