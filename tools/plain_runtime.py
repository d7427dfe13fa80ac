"""What a plain ONNX Runtime, as a user has it, makes of a model."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import onnxruntime as ort

from recipes import Array, Arrays


def session(model: bytes, *, optimised: bool = True) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 2
    levels = ort.GraphOptimizationLevel
    options.graph_optimization_level = (
        levels.ORT_ENABLE_ALL if optimised else levels.ORT_DISABLE_ALL
    )
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def predict(model: bytes, arrays: Arrays) -> list[Array]:
    """All outputs, sample by sample: some models take only one at a time."""
    runner = session(model)
    rows = [runner.run(None, feed) for feed in feeds(runner, arrays)]
    batched = is_batched(runner, arrays)
    return [joined(column, batched=batched) for column in zip(*rows, strict=True)]


def joined(outputs: Sequence[Array], *, batched: bool) -> Array:
    """One array of one output per sample; some models lose the axis where there is one alone."""
    return np.concatenate(outputs) if batched and outputs[0].ndim else np.stack(outputs)


def feeds(runner: ort.InferenceSession, arrays: Arrays) -> Iterator[Arrays]:
    """One feed per sample."""
    inputs = {name: array for name, array in arrays.items() if name != "labels"}
    batched = is_batched(runner, arrays)
    for i in range(len(next(iter(inputs.values())))):
        row = slice(i, i + 1) if batched else i
        yield {name: np.asarray(array[row]) for name, array in inputs.items()}


def is_batched(runner: ort.InferenceSession, arrays: Arrays) -> bool:
    """Whether the samples' axis is the model's own; else each sample is a whole feed."""
    return all(arrays[spec.name].ndim == len(spec.shape) for spec in runner.get_inputs())


def accuracy(model: bytes, arrays: Arrays) -> float | None:
    """Share of samples whose largest first output is their label; None without labels."""
    if "labels" not in arrays:
        return None
    scores = predict(model, arrays)[0]
    return float((scores.argmax(axis=1) == arrays["labels"]).mean())


def what_runs(original: bytes, pruned: bytes, samples: Sequence[Arrays]) -> str:
    """``ok`` if the pruned model loads and has finite outputs of the right shapes.

    Else what is wrong. ``samples`` are whole feeds.
    """
    reference = session(original)
    wanted = [[np.shape(output) for output in reference.run(None, feed)] for feed in samples]
    for optimised in (True, False):
        try:
            runner = session(pruned, optimised=optimised)
            found = [runner.run(None, feed) for feed in samples]
        except Exception as error:  # its exceptions have no common base
            return first_line(error)
        for was, now in zip(itertools.chain(*wanted), itertools.chain(*found), strict=True):
            if was != np.shape(now):
                return f"an output is {np.shape(now)}, not {was}"
            if not np.isfinite(now).all():
                return "an output isn't finite"
    return "ok"


def first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
