"""What a record says about cost: one field for each number. A new cost, such as energy, is a field here first."""

from typing import Any

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from bench.storage.strict_model import Strict
from pruning.hashed_options import without_defaults

LATER = ("measured_training_speedup",)
"""Fields that were added after the first records of this schema. They are None by default, and then left out of a record,
so that older digests stay valid."""
MEASURED = ("search_seconds", "train_seconds", "measured_speedup", "measured_training_speedup")
"""Fields that differ from run to run, which ``bench verify`` therefore does not compare."""


class Cost(Strict):
    """The costs of search and training, counted separately.

    MACs are multiply-adds. ``*_dense_trainings`` are multiples of the MACs of one dense training at the rate that the hardware
    here pays, which for masked entries is the dense one; ``*_at_sparse_rate`` are the same if masked entries cost nothing
    (theoretical). Seconds were measured when the stage was trained.
    """

    search_steps: int
    train_steps: int
    search_dense_trainings: float
    train_dense_trainings: float
    search_at_sparse_rate: float | None = None
    train_at_sparse_rate: float | None = None
    search_seconds: float
    train_seconds: float
    inference_macs: float = Field(description="theoretical: every maskable at its density")
    inference_macs_dense: float
    measured_speedup: float | None = Field(
        None, description="of inference: slim or sparse executor against dense, one interleaved run"
    )
    measured_training_speedup: float | None = Field(None, description="of a training step, likewise")

    @model_serializer(mode="wrap")
    def without_later_fields(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out fields that were added after the first records of this schema where they are not set, so that digests stay
        valid."""
        return without_defaults(handler(self), dict.fromkeys(LATER))
