"""A network in eight bits, by onnxruntime's static quantisation.

Jacob et al. (2018), "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference", arXiv:1712.05877. Weights are scaled channel by channel, activations by the ranges that
calibration episodes of the validation classes show. The head that adapts stays in full precision.
"""

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lightning_metakd.export.onnx_file import Graph, quiet, without_traces
from lightning_metakd.export.packages import package

OPERATORS = (
    *("Conv", "Gemm", "MatMul", "Gather"),
    *("MaxPool", "Relu", "GlobalAveragePool", "AveragePool"),
)
"""What runs in eight bits."""


def calibration_reader(batches: Iterable[Mapping[str, np.ndarray]]) -> Any:
    """Calibration data as onnxruntime asks for them."""
    rows: Iterator[Mapping[str, np.ndarray]] = iter(batches)
    base = package("onnxruntime.quantization").CalibrationDataReader

    class Reader(base):  # type: ignore[misc, valid-type]
        """Hands out one batch after another."""

        def get_next(self) -> Mapping[str, np.ndarray] | None:
            """The next batch; None at the end."""
            return next(rows, None)

    return Reader()


def quantised(network: Graph, batches: Iterable[Mapping[str, np.ndarray]]) -> Graph:
    """The network in eight bits.

    Args:
        network: of `network_graph`.
        batches: inputs of calibration, by name.
    """
    tools, onnx = package("onnxruntime.quantization"), package("onnx")
    prepare = package("onnxruntime.quantization.shape_inference").quant_pre_process
    with tempfile.TemporaryDirectory() as folder, quiet():
        before, prepared, after = (Path(folder) / f"{name}.onnx" for name in ("a", "b", "c"))
        onnx.save(network, before)
        prepare(str(before), str(prepared), skip_symbolic_shape=True)
        tools.quantize_static(
            str(prepared),
            str(after),
            calibration_reader(batches),
            quant_format=tools.QuantFormat.QDQ,
            activation_type=tools.QuantType.QUInt8,
            weight_type=tools.QuantType.QInt8,
            per_channel=True,
            reduce_range=True,  # sums of products stay within 16 bits on processors without VNNI too
            op_types_to_quantize=list(OPERATORS),
        )
        return without_traces(onnx.load(after))
